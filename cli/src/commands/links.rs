//! Links: what a deployment offers and wants, and connecting somebody outside.

use proto::v1::links_client::LinksClient;
use proto::v1::{
    CreateLinkRequest, DeleteLinkRequest, Link, LinkAddressRequest, LinkOwner, ListLinkConsumersRequest,
    ListLinkProvidersRequest, ListLinksRequest,
};
use serde_json::json;

use super::{ALL, Context, pages};
use crate::args::{CreateLink, DeleteLink, LinkAddress};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, Record, column};
use crate::error::Error;

const PROVIDERS: &[Column] = &[
    column("#", "id"),
    column("Name", "name"),
    column("Type", "type"),
    column("Shared", "shared"),
    column("Owner", "owner"),
    column("", "owner_type"),
    column("", "group"),
    column("Networks", "networks"),
    column("", "original_name"),
];

const CONSUMERS: &[Column] = &[
    column("#", "id"),
    column("Name", "name"),
    column("Type", "type"),
    column("Optional", "optional"),
    column("Owner", "owner"),
    column("", "owner_type"),
    column("", "group"),
    column("", "original_name"),
];

const LINKS: &[Column] = &[
    column("#", "id"),
    column("Name", "name"),
    column("Consumer", "consumer_id"),
    column("Provider", "provider_id"),
    column("Created at", "created_at"),
];

pub(super) async fn providers(context: &mut Context<'_>) -> Result<(), Error> {
    let deployment = context.deployment()?;
    let found = pages(ALL, async |page| {
        let request = ListLinkProvidersRequest { deployment: deployment.clone(), page: Some(page) };
        let answer = call!(context.fleet, LinksClient.list_providers(request)).await?;
        Ok((answer.providers, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("link providers", PROVIDERS, found.rows, |row| {
        let [owner, kind, group] = owner(row.owner);
        [
            Cell::Number(row.id),
            row.name.into(),
            row.r#type.into(),
            Cell::Flag(row.shared),
            owner,
            kind,
            group,
            Cell::Lines(row.networks),
            row.original_name.into(),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

pub(super) async fn consumers(context: &mut Context<'_>) -> Result<(), Error> {
    let deployment = context.deployment()?;
    let found = pages(ALL, async |page| {
        let request = ListLinkConsumersRequest { deployment: deployment.clone(), page: Some(page) };
        let answer = call!(context.fleet, LinksClient.list_consumers(request)).await?;
        Ok((answer.consumers, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("link consumers", CONSUMERS, found.rows, |row| {
        let [owner, kind, group] = owner(row.owner);
        [
            Cell::Number(row.id),
            row.name.into(),
            row.r#type.into(),
            Cell::Flag(row.optional),
            owner,
            kind,
            group,
            row.original_name.into(),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

/// Says who it is, for people (`group/job`, `variable name`) and in parts.
fn owner(owner: Option<LinkOwner>) -> [Cell; 3] {
    let LinkOwner { r#type, name, group } = owner.unwrap_or_default();
    let who = match (&r#type[..], group.is_empty()) {
        ("job", false) => format!("{group}/{name}"),
        (_, false) => format!("{type} {group}/{name}"),
        (_, true) => format!("{type} {name}"),
    };
    [Cell::Both(who, json!(name)), r#type.into(), group.into()]
}

pub(super) async fn list(context: &mut Context<'_>) -> Result<(), Error> {
    let deployment = context.deployment()?;
    let found = pages(ALL, async |page| {
        let request = ListLinksRequest { deployment: deployment.clone(), page: Some(page) };
        let answer = call!(context.fleet, LinksClient.list(request)).await?;
        Ok((answer.links, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("links", LINKS, found.rows, cells);
    context.console.list(&listing.as_of(found.revision))
}

fn cells(link: Link) -> [Cell; 5] {
    [
        Cell::Number(link.id),
        link.name.into(),
        Cell::Number(link.consumer_id),
        Cell::nonzero(link.provider_id),
        Cell::Time(link.created_at_ms),
    ]
}

pub(super) async fn create(context: &mut Context<'_>, args: CreateLink) -> Result<(), Error> {
    let CreateLink { provider, consumer, network } = args;
    let request = CreateLinkRequest { request_id: request_id(), provider_id: provider, consumer, network };
    let answer = call!(context.fleet, LinksClient.create(request)).await?;
    let link = answer.link.ok_or_else(|| Error::Protocol("a link was made, and not told".into()))?;
    context.console.record(&Record::new(LINKS.iter().copied().zip(cells(link))))
}

pub(super) async fn delete(context: &mut Context<'_>, args: DeleteLink) -> Result<(), Error> {
    let id = args.id;
    context.console.confirm(&format!("Delete link {id}"))?;
    let request = DeleteLinkRequest { request_id: request_id(), id };
    call!(context.fleet, LinksClient.delete(request)).await?;
    context.console.say(&format!("Link {id} is deleted."), &json!({ "deleted": id }))
}

pub(super) async fn address(context: &mut Context<'_>, args: LinkAddress) -> Result<(), Error> {
    let LinkAddress { id, azs, status } = args;
    let request = LinkAddressRequest { link_id: id, azs, status: status.word().into() };
    let address = call!(context.fleet, LinksClient.address(request)).await?.address;
    let value = Some(&address).filter(|address| !address.is_empty());
    context.console.say(if address.is_empty() { "-" } else { &address }, &json!({ "address": value }))
}
