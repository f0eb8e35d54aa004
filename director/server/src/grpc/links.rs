//! Links over gRPC.

use model::DeploymentName;
use model::link::LinkOwner;
use proto::v1 as pb;
use proto::v1::links_server::Links;
use service::List;
use service::ops::{AddressWish, NewLink};
use state::records::{Link, LinkConsumer, LinkProvider};
use tonic::{Request, Response, Status};

use super::convert::{given, page};
use super::request_id;
use crate::door::Door;
use crate::error_map::status;

#[tonic::async_trait]
impl Links for Door {
    async fn list_providers(
        &self,
        request: Request<pb::ListLinkProvidersRequest>,
    ) -> Result<Response<pb::ListLinkProvidersResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ListLinkProvidersRequest { deployment, page: wire } = request.into_inner();
        let name = DeploymentName::new(deployment);
        let List { rows, next_page_token, revision } =
            self.service.link_providers(&caller, &name, &page(wire)).await.map_err(status)?;
        Ok(Response::new(pb::ListLinkProvidersResponse {
            providers: rows.into_iter().map(provider).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn list_consumers(
        &self,
        request: Request<pb::ListLinkConsumersRequest>,
    ) -> Result<Response<pb::ListLinkConsumersResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ListLinkConsumersRequest { deployment, page: wire } = request.into_inner();
        let name = DeploymentName::new(deployment);
        let List { rows, next_page_token, revision } =
            self.service.link_consumers(&caller, &name, &page(wire)).await.map_err(status)?;
        Ok(Response::new(pb::ListLinkConsumersResponse {
            consumers: rows.into_iter().map(consumer).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn list(
        &self,
        request: Request<pb::ListLinksRequest>,
    ) -> Result<Response<pb::ListLinksResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ListLinksRequest { deployment, page: wire } = request.into_inner();
        let name = DeploymentName::new(deployment);
        let List { rows, next_page_token, revision } =
            self.service.links(&caller, &name, &page(wire)).await.map_err(status)?;
        Ok(Response::new(pb::ListLinksResponse {
            links: rows.iter().map(link).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn create(
        &self,
        request: Request<pb::CreateLinkRequest>,
    ) -> Result<Response<pb::CreateLinkResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::CreateLinkRequest { request_id: id, provider_id, consumer, network } = request.into_inner();
        let new = NewLink {
            provider: number(provider_id).unwrap_or_default(),
            consumer,
            network: given(network).map(Into::into),
        };
        let made = self.service.create_link(&caller, request_id(&id), new).await.map_err(status)?;
        Ok(Response::new(pb::CreateLinkResponse { link: Some(link(&made)) }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteLinkRequest>,
    ) -> Result<Response<pb::DeleteLinkResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::DeleteLinkRequest { request_id: key, id } = request.into_inner();
        self.service.delete_link(&caller, request_id(&key), &id.to_string()).await.map_err(status)?;
        Ok(Response::new(pb::DeleteLinkResponse {}))
    }

    async fn address(
        &self,
        request: Request<pb::LinkAddressRequest>,
    ) -> Result<Response<pb::LinkAddressResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::LinkAddressRequest { link_id, azs, status: fares } = request.into_inner();
        let wish = AddressWish { link: number(link_id), azs, status: given(fares), ..AddressWish::default() };
        let address = self.service.link_address(&caller, &wish).await.map_err(status)?;
        Ok(Response::new(pb::LinkAddressResponse { address: address.unwrap_or_default() }))
    }
}

/// No link has the number 0: it is what is not given.
fn number(wire: u64) -> Option<String> {
    Some(wire).filter(|number| *number != 0).map(|number| number.to_string())
}

fn owner(owner: LinkOwner) -> pb::LinkOwner {
    pb::LinkOwner {
        r#type: owner.kind.name().into(),
        name: owner.name,
        group: owner.group.map(|group| group.to_string()).unwrap_or_default(),
    }
}

fn provider(row: LinkProvider) -> pb::LinkProvider {
    pb::LinkProvider {
        id: row.id.0,
        name: row.offer.alias,
        shared: row.offer.shared,
        deployment: row.deployment.to_string(),
        owner: Some(owner(row.offer.owner)),
        original_name: row.offer.name,
        r#type: row.offer.kind,
        networks: row.offer.networks.iter().map(ToString::to_string).collect(),
    }
}

fn consumer(row: LinkConsumer) -> pb::LinkConsumer {
    pb::LinkConsumer {
        id: row.id.0,
        name: row.alias,
        optional: row.optional,
        deployment: row.deployment.to_string(),
        owner: Some(owner(row.owner)),
        original_name: row.name,
        r#type: row.kind,
    }
}

fn link(row: &Link) -> pb::Link {
    pb::Link {
        id: row.id.0,
        name: row.name.clone(),
        consumer_id: row.consumer.0,
        provider_id: row.provider.map_or(0, |id| id.0),
        created_at_ms: row.created_at.0,
    }
}
