//! Networks that directors make.

use proto::v1::networks_client::NetworksClient;
use proto::v1::{DeleteOrphanedNetworksRequest, ListNetworksRequest, SetManagedNetworksRequest};
use serde_json::json;

use super::{ALL, Context, pages};
use crate::args::{Switch, Wait};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, column};
use crate::error::Error;

const NETWORKS: &[Column] = &[
    column("Name", "name"),
    column("Type", "type"),
    column("Subnets", "subnets"),
    column("Deployments", "deployments"),
    column("Created at", "created_at"),
    column("Orphaned at", "orphaned_at"),
];

/// Lists networks.
pub(super) async fn list(context: &mut Context<'_>, only_orphaned: bool) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListNetworksRequest { only_orphaned, page: Some(page) };
        let answer = call!(context.fleet, NetworksClient.list(request)).await?;
        Ok((answer.networks, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("networks", NETWORKS, found.rows, |network| {
        let subnets = network.subnets.iter().map(|subnet| match subnet.cid.is_empty() {
            true => format!("{} (not made)", subnet.name),
            false => format!("{} {} ({})", subnet.name, subnet.range, subnet.cid),
        });
        [
            network.name.into(),
            network.r#type.into(),
            Cell::Lines(subnets.collect()),
            Cell::Lines(network.deployments),
            Cell::Time(network.created_at_unix_ms),
            Cell::Time(network.orphaned_at_unix_ms),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

/// Deletes an orphaned network.
pub(super) async fn delete(context: &mut Context<'_>, name: String) -> Result<(), Error> {
    context.console.confirm(&format!("Delete network `{name}`"))?;
    let request = DeleteOrphanedNetworksRequest { request_id: request_id(), names: vec![name] };
    let started = call!(context.fleet, NetworksClient.delete_orphaned(request)).await?;
    context.attend(started, Wait::default()).await
}

/// Has directors make networks, or not.
pub(super) async fn switch(context: &mut Context<'_>, state: Switch) -> Result<(), Error> {
    let are_made = state == Switch::On;
    let request = SetManagedNetworksRequest { request_id: request_id(), are_made };
    call!(context.fleet, NetworksClient.set_managed(request)).await?;
    let text = match are_made {
        true => "Directors make the networks that cloud configs call managed.",
        false => "Directors make no networks: people do.",
    };
    context.console.say(text, &json!({ "managed_networks": are_made }))
}
