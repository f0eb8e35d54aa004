//! `info` and `cluster …`.

use std::io::Write as _;

use proto::v1::cluster_client::ClusterClient;
use proto::v1::*;
use serde_json::json;

use super::{Context, snapshot};
use crate::args::ClusterCommand;
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, Record, column};
use crate::error::Error;

pub(super) async fn info(context: &mut Context<'_>) -> Result<(), Error> {
    let info = call!(context.fleet, ClusterClient.info(InfoRequest {})).await?;
    context.console.record(&Record::new([
        (column("Name", "name"), info.name.into()),
        (column("UUID", "uuid"), info.uuid.into()),
        (column("Version", "version"), info.version.into()),
    ]))
}

pub(super) async fn cluster(context: &mut Context<'_>, command: ClusterCommand) -> Result<(), Error> {
    match command {
        ClusterCommand::Status => status(context).await,
        ClusterCommand::Certificates => certificates(context).await,
        ClusterCommand::JoinToken { ttl } => join_token(context, ttl).await,
        ClusterCommand::RemoveMember { id } => remove_member(context, id).await,
        ClusterCommand::Transfer { id } => transfer(context, id.unwrap_or(0)).await,
        ClusterCommand::Snapshot(command) => snapshot::snapshot(context, command).await,
    }
}

const MEMBERS: &[Column] = &[
    column("ID", "id"),
    column("Name", "name"),
    column("Address", "api_address"),
    column("", "peer_address"),
    column("", "agent_address"),
    column("Role", "role"),
    column("Term", "term"),
    column("Index", "last_log_index"),
    column("Applied", "applied_index"),
    column("Lag", "lag"),
    column("Snapshot", "snapshot_index"),
    column("RSS", "rss_bytes"),
    column("Disk", "room"),
    column("Version", "version"),
];

async fn status(context: &mut Context<'_>) -> Result<(), Error> {
    let status = call!(context.fleet, ClusterClient.status(ClusterStatusRequest {})).await?;
    let members = Listing::of("replicas", MEMBERS, status.members, |member| {
        [
            Cell::Number(member.id),
            member.name.into(),
            member.api_address.into(),
            member.peer_address.into(),
            member.agent_address.into(),
            Cell::State(member.role),
            number(member.term),
            number(member.last_log_index),
            number(member.applied_index),
            number(member.lag),
            member.snapshot_index.map_or(Cell::None, Cell::nonzero),
            member.rss_bytes.map_or(Cell::None, |bytes| Cell::Both(mebibytes(bytes), json!(bytes))),
            member.room.unwrap_or_default().into(),
            member.version.into(),
        ]
    });
    let head = Record::new([
        (column("Cluster", "cluster_id"), status.cluster_id.into()),
        (column("Leader", "leader"), Cell::nonzero(status.leader)),
        (column("Answered by", "answered_by"), Cell::nonzero(status.answered_by)),
    ]);
    let text =
        format!("{}\n\n{}", head.to_table(context.console.screen), members.to_table(context.console.screen));
    let mut value = head.to_json();
    value["members"] = members.to_json();
    context.console.say(&text, &value)
}

/// Returns what only a replica itself can tell: nothing while it is unreachable.
fn number(told: Option<u64>) -> Cell {
    told.map_or(Cell::None, Cell::Number)
}

fn mebibytes(bytes: u64) -> String {
    if bytes == 0 { "-".into() } else { format!("{} MiB", bytes >> 20) }
}

const CERTIFICATES: &[Column] =
    &[column("Certificate", "name"), column("Expires", "expires_at"), column("Days left", "days_left")];

async fn certificates(context: &mut Context<'_>) -> Result<(), Error> {
    let answer =
        call!(context.fleet, ClusterClient.list_certificates(ListFleetCertificatesRequest {})).await?;
    let listing = Listing::of("certificates", CERTIFICATES, answer.certificates, |certificate| {
        let days = certificate.days_left;
        [
            certificate.name.into(),
            Cell::Time(certificate.expires_at_unix_ms),
            Cell::Both(days.to_string(), json!(days)),
        ]
    });
    context.console.list(&listing)
}

async fn join_token(context: &mut Context<'_>, ttl_seconds: u32) -> Result<(), Error> {
    let request = CreateJoinTokenRequest { request_id: request_id(), ttl_seconds };
    let token = call!(context.fleet, ClusterClient.create_join_token(request)).await?;
    let expires = crate::console::rfc3339(token.expires_at_unix.saturating_mul(1000));
    // The token alone on its line of standard output: `token=$(dctl cluster join-token)` works.
    if context.console.format == crate::console::Format::People {
        let until = expires.as_deref().unwrap_or("soon");
        writeln!(context.console.err, "Good for one `directord join`, until {until}:")?;
    }
    context.console.say(&token.token, &json!({ "token": token.token, "expires_at": expires }))
}

async fn remove_member(context: &mut Context<'_>, id: u64) -> Result<(), Error> {
    context.console.confirm(&format!("Remove replica {id} from the cluster"))?;
    let request = RemoveMemberRequest { request_id: request_id(), node_id: id };
    call!(context.fleet, ClusterClient.remove_member(request)).await?;
    context.console.say(&format!("Replica {id} is no longer a member."), &json!({ "id": id }))
}

async fn transfer(context: &mut Context<'_>, node_id: u64) -> Result<(), Error> {
    let request = TransferLeaderRequest { node_id, request_id: request_id() };
    let answer = call!(context.fleet, ClusterClient.transfer_leader(request)).await?;
    context.console.say(&format!("Replica {} leads.", answer.leader), &json!({ "leader": answer.leader }))
}
