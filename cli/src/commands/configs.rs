//! Configs of every type.

use proto::v1::configs_client::ConfigsClient;
use proto::v1::*;
use serde_json::json;

use super::{ALL, Context, pages};
use crate::args::{DeleteConfig, ListConfigs, Overlay, ShowConfig, UpdateConfig, UpdateTypedConfig};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, column, rfc3339};
use crate::document::Document;
use crate::error::Error;

pub(super) async fn update(context: &mut Context<'_>, args: UpdateConfig) -> Result<(), Error> {
    let request = PutConfigRequest {
        request_id: request_id(),
        r#type: args.kind,
        name: args.name,
        content: content(&args.file, &args.overlay)?,
        expected_latest_id: args.expected_latest_id,
    };
    put(context, request).await
}

pub(super) async fn update_typed(
    context: &mut Context<'_>,
    kind: &str,
    args: UpdateTypedConfig,
) -> Result<(), Error> {
    let request = PutConfigRequest {
        request_id: request_id(),
        r#type: kind.into(),
        name: args.name,
        content: content(&args.file, &args.overlay)?,
        expected_latest_id: None,
    };
    put(context, request).await
}

fn content(file: &camino::Utf8Path, overlay: &Overlay) -> Result<String, Error> {
    Ok(Document::read(file, overlay)?.text)
}

async fn put(context: &mut Context<'_>, request: PutConfigRequest) -> Result<(), Error> {
    let (kind, name) = (request.r#type.clone(), request.name.clone());
    let answer = call!(context.fleet, ConfigsClient.put(request)).await?;
    let text = if answer.unchanged {
        format!("The {kind} config `{name}` has this content already (id {}).", answer.id)
    } else {
        format!("The {kind} config `{name}` is stored (id {}).", answer.id)
    };
    context
        .console
        .say(&text, &json!({ "id": answer.id, "type": kind, "name": name, "unchanged": answer.unchanged }))
}

const CONFIGS: &[Column] = &[
    column("ID", "id"),
    column("Type", "type"),
    column("Name", "name"),
    column("Current", "current"),
    column("Created at", "created_at"),
];

pub(super) async fn list(context: &mut Context<'_>, args: ListConfigs) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListConfigsRequest {
            r#type: args.kind.clone(),
            name: args.name.clone(),
            history: args.history,
            page: Some(page),
        };
        let answer = call!(context.fleet, ConfigsClient.list(request)).await?;
        Ok((answer.configs, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("configs", CONFIGS, found.rows, |config| {
        [
            Cell::Number(config.id),
            config.r#type.into(),
            config.name.into(),
            Cell::Flag(config.current),
            Cell::Time(config.created_at_unix_ms),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

pub(super) async fn show(context: &mut Context<'_>, args: ShowConfig) -> Result<(), Error> {
    let request = match args.id {
        Some(id) => GetConfigRequest { id, ..GetConfigRequest::default() },
        None => GetConfigRequest { id: 0, r#type: args.kind.unwrap_or_default(), name: args.name },
    };
    let config = call!(context.fleet, ConfigsClient.get(request)).await?;
    context.console.say(
        &config.content,
        &json!({
            "id": config.id,
            "type": config.r#type,
            "name": config.name,
            "current": config.current,
            "created_at": rfc3339(config.created_at_unix_ms),
            "content": config.content,
        }),
    )
}

pub(super) async fn delete(context: &mut Context<'_>, args: DeleteConfig) -> Result<(), Error> {
    let DeleteConfig { kind, id, name } = args;
    let kind = kind.unwrap_or_default();
    let what = match id {
        Some(id) => format!("version {id} of a config"),
        None => format!("the {kind} config `{name}`"),
    };
    context.console.confirm(&format!("Delete {what}"))?;
    let request = DeleteConfigRequest {
        request_id: request_id(),
        r#type: kind.clone(),
        name: name.clone(),
        id: id.unwrap_or_default(),
    };
    call!(context.fleet, ConfigsClient.delete(request)).await?;
    let told = match id {
        Some(id) => json!({ "id": id }),
        None => json!({ "type": kind, "name": name }),
    };
    context.console.say(&format!("Deleted {what}."), &told)
}
