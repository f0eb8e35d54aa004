//! `info`, `cluster …`, `user …`.

use std::io::Write as _;

use camino::Utf8PathBuf;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::*;
use serde_json::json;

use super::Context;
use crate::args::{ClusterCommand, Scope, UserCommand};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, Record, column};
use crate::error::Error;
use crate::settings::read_secret;

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
        ClusterCommand::JoinToken { ttl } => join_token(context, ttl).await,
        ClusterCommand::RemoveMember { id } => remove_member(context, id).await,
        ClusterCommand::Transfer { id } => transfer(context, id.unwrap_or(0)).await,
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
            Cell::Number(member.term),
            Cell::Number(member.last_log_index),
            Cell::Number(member.applied_index),
            Cell::Number(member.lag),
            Cell::nonzero(member.snapshot_index),
            Cell::Both(mebibytes(member.rss_bytes), json!(member.rss_bytes)),
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

fn mebibytes(bytes: u64) -> String {
    if bytes == 0 { "-".into() } else { format!("{} MiB", bytes >> 20) }
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
    // No request id: asking again for the same leader changes nothing.
    let answer =
        call!(context.fleet, ClusterClient.transfer_leader(TransferLeaderRequest { node_id })).await?;
    context.console.say(&format!("Replica {} leads.", answer.leader), &json!({ "leader": answer.leader }))
}

const USERS: &[Column] = &[column("Name", "name"), column("Scopes", "scopes")];

pub(super) async fn user(context: &mut Context<'_>, command: UserCommand) -> Result<(), Error> {
    match command {
        UserCommand::Add { name, password_file, scopes } => {
            add_user(context, name, password_file, scopes).await
        }
        UserCommand::Remove { name } => {
            let request = RemoveUserRequest { request_id: request_id(), name: name.clone() };
            call!(context.fleet, ClusterClient.remove_user(request)).await?;
            context.console.say(&format!("User `{name}` is removed."), &json!({ "name": name }))
        }
        UserCommand::List => {
            let answer = call!(context.fleet, ClusterClient.list_users(ListUsersRequest {})).await?;
            let users = Listing::of("users", USERS, answer.users, |user| {
                [user.name.into(), Cell::Lines(user.scopes)]
            });
            context.console.list(&users)
        }
    }
}

async fn add_user(
    context: &mut Context<'_>,
    name: String,
    password_file: Option<Utf8PathBuf>,
    scopes: Vec<Scope>,
) -> Result<(), Error> {
    let (password, made) = match password_file {
        Some(path) => (read_secret(&path)?, false),
        // 122 random bits.
        None => (uuid::Uuid::new_v4().simple().to_string(), true),
    };
    let scopes: Vec<String> = scopes.into_iter().map(|scope| scope.name().to_owned()).collect();
    let request = PutUserRequest {
        request_id: request_id(),
        name: name.clone(),
        password: password.clone(),
        scopes: scopes.clone(),
    };
    call!(context.fleet, ClusterClient.put_user(request)).await?;
    let shown = made.then_some(password);
    let text = match &shown {
        Some(password) => {
            format!("User `{name}` may log in. The password, shown only now:\n{password}")
        }
        None => format!("User `{name}` may log in."),
    };
    context.console.say(&text, &json!({ "name": name, "scopes": scopes, "password": shown }))
}
