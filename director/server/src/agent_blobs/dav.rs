//! Blobs for agents of older stemcells, which take no URLs: paths as BOSH's WebDAV client makes them, `<xx>/<id>`, and a password for each
//! agent. It reads what any agent may read, and what it has brought itself, and it brings what has a new id.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{AgentId, BlobDigest};
use state::State;
use state::log::CommandLog as _;
use uuid::Uuid;

use super::BlobDesk;
use super::door::{Denied, check_length};
use super::taking_in::Again;

/// The length of an id as agents make them.
const ID_CHARS: usize = 36;

pub(super) fn routes() -> Router<Arc<BlobDesk>> {
    Router::new().route("/dav/{folder}/{id}", get(fetch).put(bring))
}

/// Which folder an id is in follows from the id, and tells nothing more.
async fn fetch(
    Shared(desk): Shared<Arc<BlobDesk>>,
    Path((_folder, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Denied> {
    let agent = desk.logged_in(&headers).await?;
    let own = State::new(&*desk.log.view()).brought_by_agent(&agent, &id);
    let blob = own.map_or_else(|| BlobDigest::new(id), |own| own.brought.blob);
    desk.content(&agent, &blob).await
}

async fn bring(
    Shared(desk): Shared<Arc<BlobDesk>>,
    Path((_folder, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Denied> {
    let agent = desk.logged_in(&headers).await?;
    if id.len() != ID_CHARS || Uuid::try_parse(&id).is_err() {
        return Err(Denied::NoId);
    }
    check_length(&headers, desk.bytes_max)?;
    desk.take_in(&agent, id, body, Again::IfSame).await.map(|()| StatusCode::CREATED)
}

impl BlobDesk {
    /// Returns whose password somebody shows, if it is that of an agent whose VM is there. Takes equally long for right and wrong ones.
    async fn logged_in(&self, headers: &HeaderMap) -> Result<AgentId, Denied> {
        let (agent, password) = login(headers).ok_or(Denied::NoLogin)?;
        let generation = self.passwords.generation(&agent, &password).ok_or(Denied::NoLogin)?;
        let is_good = |state: &State<'_>| {
            let is_newest = state.agent(&agent).is_some_and(|row| row.token_generation == generation);
            is_newest && state.vm(&agent).is_some_and(|vm| vm.stemcell.has_bosh_s_agent())
        };
        if self.holds(&agent, is_good).await? { Ok(agent) } else { Err(Denied::NoLogin) }
    }
}

fn login(headers: &HeaderMap) -> Option<(AgentId, String)> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()).ok())??;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((AgentId::new(user), password.to_owned()))
}
