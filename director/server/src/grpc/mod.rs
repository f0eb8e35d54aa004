//! The gRPC front door: wire types in, service functions, wire types out. It decides nothing.

mod artifacts;
mod blobs;
mod clean_up;
mod cloud_check;
pub mod cluster;
mod convert;
mod deployments;
mod dynamic_disks;
mod health;
mod history;
mod instances;
mod join;
mod links;
mod networks;
mod snapshots;
mod tasks;

use model::RequestId;
use service::Caller;
use tonic::service::Routes;
use tonic::{Request, Status};

use crate::door::Door;
use crate::error_map;
use crate::listen::ClientAddress;

pub use join::JoinDesk;

impl Door {
    /// Returns who is asking.
    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let from = request.extensions().get::<ClientAddress>().map(|address| address.0);
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.doorkeeper.caller(shown, from).await.map_err(error_map::status)
    }
}

/// Returns an idempotency key, if one was sent.
fn request_id(text: &str) -> Option<RequestId> {
    Some(text).filter(|t| !t.is_empty()).map(RequestId::from)
}

/// Returns all public services.
pub fn routes(door: &Door) -> anyhow::Result<Routes> {
    use proto::v1::blobs_server::BlobsServer;
    use proto::v1::clean_up_server::CleanUpServer;
    use proto::v1::cloud_check_server::CloudCheckServer;
    use proto::v1::cluster_server::ClusterServer;
    use proto::v1::configs_server::ConfigsServer;
    use proto::v1::deployments_server::DeploymentsServer;
    use proto::v1::disks_server::DisksServer;
    use proto::v1::dynamic_disks_server::DynamicDisksServer;
    use proto::v1::events_server::EventsServer;
    use proto::v1::health_server::HealthServer;
    use proto::v1::instances_server::InstancesServer;
    use proto::v1::join_server::JoinServer;
    use proto::v1::links_server::LinksServer;
    use proto::v1::locks_server::LocksServer;
    use proto::v1::networks_server::NetworksServer;
    use proto::v1::releases_server::ReleasesServer;
    use proto::v1::snapshots_server::SnapshotsServer;
    use proto::v1::stemcells_server::StemcellsServer;
    use proto::v1::tasks_server::TasksServer;
    use proto::v1::variables_server::VariablesServer;
    use proto::v1::watch_server::WatchServer;
    use tonic_health::pb::health_server::HealthServer as HealthCheckServer;
    use tonic_health::server::HealthService;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
    };
    let health = HealthService::from_health_reporter(door.health.clone());
    Ok(Routes::new(HealthCheckServer::new(health))
        .add_service(reflection()?)
        .add_service(ClusterServer::new(door.clone()))
        .add_service(JoinServer::new(JoinDesk::new(door.clone())))
        .add_service(ConfigsServer::new(door.clone()))
        .add_service(BlobsServer::new(door.clone()))
        .add_service(ReleasesServer::new(door.clone()))
        .add_service(StemcellsServer::new(door.clone()))
        .add_service(DeploymentsServer::new(door.clone()))
        .add_service(InstancesServer::new(door.clone()))
        .add_service(VariablesServer::new(door.clone()))
        .add_service(DisksServer::new(door.clone()))
        .add_service(DynamicDisksServer::new(door.clone()))
        .add_service(SnapshotsServer::new(door.clone()))
        .add_service(NetworksServer::new(door.clone()))
        .add_service(CleanUpServer::new(door.clone()))
        .add_service(CloudCheckServer::new(door.clone()))
        .add_service(LinksServer::new(door.clone()))
        .add_service(TasksServer::new(door.clone()))
        .add_service(EventsServer::new(door.clone()))
        .add_service(LocksServer::new(door.clone()))
        .add_service(HealthServer::new(door.clone()))
        .add_service(WatchServer::new(door.clone())))
}

#[cfg(test)]
mod conventions_tests;
#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod rights_tests;
