//! `user …`: who may log in, and the tokens of their programs.

use std::io::Write as _;

use camino::Utf8PathBuf;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::*;
use serde_json::json;

use super::{ALL, Context, pages};
use crate::args::{Scope, UserCommand};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Format, Listing, column};
use crate::error::Error;
use crate::settings::read_secret;

const SECONDS_PER_DAY: u32 = 24 * 3600;

pub(super) async fn user(context: &mut Context<'_>, command: UserCommand) -> Result<(), Error> {
    match command {
        UserCommand::Add { name, new_password_file, scopes } => {
            add(context, name, new_password_file, scopes).await
        }
        UserCommand::Remove { name } => {
            let request = RemoveUserRequest { request_id: request_id(), name: name.clone() };
            call!(context.fleet, ClusterClient.remove_user(request)).await?;
            context.console.say(&format!("User `{name}` is removed."), &json!({ "name": name }))
        }
        UserCommand::List => list(context).await,
        UserCommand::CreateToken { user, scopes, note, days } => {
            create_token(context, user, scopes, note, days).await
        }
        UserCommand::Tokens { user, all } => tokens(context, user, all).await,
        UserCommand::RevokeToken { id } => {
            let request = RevokeUserTokenRequest { request_id: request_id(), id: id.clone() };
            call!(context.fleet, ClusterClient.revoke_user_token(request)).await?;
            context.console.say(&format!("Token `{id}` is revoked."), &json!({ "id": id }))
        }
    }
}

const USERS: &[Column] = &[column("Name", "name"), column("Scopes", "scopes")];

async fn list(context: &mut Context<'_>) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListUsersRequest { page: Some(page) };
        let answer = call!(context.fleet, ClusterClient.list_users(request)).await?;
        Ok((answer.users, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let users = Listing::of("users", USERS, found.rows, |user| [user.name.into(), Cell::Lines(user.scopes)]);
    context.console.list(&users.as_of(found.revision))
}

fn names(scopes: Vec<Scope>) -> Vec<String> {
    scopes.into_iter().map(|scope| scope.0).collect()
}

async fn add(
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
    let scopes = names(scopes);
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

async fn create_token(
    context: &mut Context<'_>,
    user: Option<String>,
    scopes: Vec<Scope>,
    note: String,
    days: u32,
) -> Result<(), Error> {
    let request = CreateUserTokenRequest {
        request_id: request_id(),
        user: user.unwrap_or_default(),
        scopes: names(scopes),
        note,
        ttl_seconds: days.saturating_mul(SECONDS_PER_DAY),
    };
    let made = call!(context.fleet, ClusterClient.create_user_token(request)).await?;
    let details = made.details.unwrap_or_default();
    let expires = crate::console::rfc3339(details.expires_at_unix_ms);
    // The token alone on its line of standard output: `dctl user create-token > file` works.
    if context.console.format == Format::People {
        let (user, id, until) = (&details.user, &details.id, expires.as_deref().unwrap_or("soon"));
        writeln!(context.console.err, "Token `{id}` of `{user}`, good until {until}, shown only now:")?;
    }
    let whole = json!({
        "token": made.token,
        "id": details.id,
        "user": details.user,
        "scopes": details.scopes,
        "expires_at": expires,
    });
    context.console.say(&made.token, &whole)
}

const TOKENS: &[Column] = &[
    column("ID", "id"),
    column("User", "user"),
    column("Scopes", "scopes"),
    column("Note", "note"),
    column("Created at", "created_at"),
    column("Expires at", "expires_at"),
];

async fn tokens(context: &mut Context<'_>, user: Option<String>, all: bool) -> Result<(), Error> {
    let user = user.unwrap_or_default();
    let found = pages(ALL, async |page| {
        let request = ListUserTokensRequest { user: user.clone(), all, page: Some(page) };
        let answer = call!(context.fleet, ClusterClient.list_user_tokens(request)).await?;
        Ok((answer.tokens, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("tokens", TOKENS, found.rows, |token| {
        [
            token.id.into(),
            token.user.into(),
            Cell::Lines(token.scopes),
            token.note.into(),
            Cell::Time(token.created_at_unix_ms),
            Cell::Time(token.expires_at_unix_ms),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}
