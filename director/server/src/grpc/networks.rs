//! Networks that directors make, over gRPC.

use model::NetworkName;
use model::managed_network::{ManagedNetwork, ManagedSubnet};
use proto::v1 as pb;
use proto::v1::networks_server::Networks;
use service::ops::WhichNetworks;
use tonic::{Request, Response, Status};

use super::artifacts::started;
use super::convert::page;
use super::request_id;
use crate::door::Door;
use crate::error_map::status;

#[tonic::async_trait]
impl Networks for Door {
    async fn list(
        &self,
        request: Request<pb::ListNetworksRequest>,
    ) -> Result<Response<pb::ListNetworksResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ListNetworksRequest { only_orphaned, page: wire } = request.into_inner();
        let which = if only_orphaned { WhichNetworks::Orphaned } else { WhichNetworks::All };
        let found = self.service.networks(&caller, which, &page(wire)).await.map_err(status)?;
        Ok(Response::new(pb::ListNetworksResponse {
            networks: found.list.rows.into_iter().map(shown).collect(),
            next_page_token: found.list.next_page_token,
            as_of_revision: found.list.revision.0,
            are_made: found.are_made,
        }))
    }

    async fn delete_orphaned(
        &self,
        request: Request<pb::DeleteOrphanedNetworksRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::DeleteOrphanedNetworksRequest { request_id: id, names } = request.into_inner();
        let names = names.into_iter().map(NetworkName::new).collect();
        let queued = self.service.delete_orphaned_networks(&caller, request_id(&id), names).await;
        queued.map(started).map_err(status)
    }

    async fn set_managed(
        &self,
        request: Request<pb::SetManagedNetworksRequest>,
    ) -> Result<Response<pb::SetManagedNetworksResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::SetManagedNetworksRequest { request_id: id, are_made } = request.into_inner();
        let set = self.service.set_managed_networks(&caller, request_id(&id), are_made).await;
        set.map_err(status)?;
        Ok(Response::new(pb::SetManagedNetworksResponse {}))
    }
}

fn shown(network: ManagedNetwork) -> pb::ManagedNetwork {
    pb::ManagedNetwork {
        name: network.name.to_string(),
        r#type: "manual".into(),
        created_at_unix_ms: network.created_at.0,
        orphaned_at_unix_ms: network.orphaned_at.map_or(0, |at| at.0),
        deployments: network.deployments.iter().map(ToString::to_string).collect(),
        subnets: network.subnets.into_iter().map(shown_subnet).collect(),
    }
}

fn shown_subnet(subnet: ManagedSubnet) -> pb::ManagedSubnet {
    let made = subnet.made.as_ref();
    pb::ManagedSubnet {
        name: subnet.name.clone(),
        cpi: subnet.cpi.to_string(),
        cid: made.map(|made| made.cid.to_string()).unwrap_or_default(),
        range: made.map(|made| made.range.clone()).unwrap_or_default(),
        gateway: made.and_then(|made| made.gateway.clone()).unwrap_or_default(),
        reserved: made.map(|made| made.reserved.clone()).unwrap_or_default(),
    }
}
