//! The gRPC front door: wire types in, service functions, wire types out. It decides nothing.

mod artifacts;
mod blobs;
pub mod cluster;
mod convert;
mod deployments;
mod health;
mod history;
mod instances;
mod join;
mod tasks;

use std::sync::Arc;

use agent_api::Agents;
use agent_client_grpc::RemoteAgents;
use executor::ports::Vault;
use model::RequestId;
use owned_tasks::OwnedTasks;
use service::{Caller, Service};
use tonic::service::Routes;
use tonic::{Request, Status};
use tonic_health::server::HealthReporter;

use crate::auth::Doorkeeper;
use crate::error_map;
use crate::fleet::blobs::FleetBlobs;
use crate::fleet::membership::Membership;
use crate::listen::ClientAddress;
use crate::secrets::Kek;

pub use join::JoinDesk;

/// What the doors work with. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    /// All operations.
    pub service: Service,
    /// Who is asking.
    pub doorkeeper: Doorkeeper,
    /// The fleet's blobs.
    pub blobs: Arc<FleetBlobs>,
    /// The largest blob that may be uploaded.
    pub upload_bytes_max: u64,
    /// Agents, for vitals.
    pub agents: Arc<dyn Agents>,
    /// What agents said last.
    pub reports: RemoteAgents,
    /// For values of variables.
    pub vault: Arc<dyn Vault>,
    /// The fleet.
    pub membership: Membership,
    /// For joining replicas.
    pub kek: Kek,
    /// Whether this replica can serve, for load balancers.
    pub health: HealthReporter,
    /// Owner of streams.
    pub tasks: OwnedTasks,
}

impl Door {
    /// Returns who is asking.
    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let from = request.extensions().get::<ClientAddress>().map(|address| address.0);
        self.doorkeeper.caller(request.metadata(), from).await.map_err(error_map::status)
    }
}

/// Returns an idempotency key, if one was sent.
fn request_id(text: &str) -> Option<RequestId> {
    Some(text).filter(|t| !t.is_empty()).map(RequestId::from)
}

/// Returns all public services.
pub fn routes(door: &Door) -> anyhow::Result<Routes> {
    use proto::v1::blobs_server::BlobsServer;
    use proto::v1::cluster_server::ClusterServer;
    use proto::v1::configs_server::ConfigsServer;
    use proto::v1::deployments_server::DeploymentsServer;
    use proto::v1::disks_server::DisksServer;
    use proto::v1::events_server::EventsServer;
    use proto::v1::health_server::HealthServer;
    use proto::v1::instances_server::InstancesServer;
    use proto::v1::join_server::JoinServer;
    use proto::v1::locks_server::LocksServer;
    use proto::v1::releases_server::ReleasesServer;
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
        .add_service(TasksServer::new(door.clone()))
        .add_service(EventsServer::new(door.clone()))
        .add_service(LocksServer::new(door.clone()))
        .add_service(HealthServer::new(door.clone()))
        .add_service(WatchServer::new(door.clone())))
}

#[cfg(test)]
mod conventions_tests;
#[cfg(test)]
mod rights_tests;
