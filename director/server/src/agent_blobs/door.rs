//! What is served on the port of blobs.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State as Shared};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use model::{AgentId, BlobDigest};
use release::{BlobError, Blobstore as _};
use serde::Deserialize;
use state::State;
use state::log::CommandLog as _;
use tokio_util::io::ReaderStream;
use tracing::{debug, warn};

use super::dav;
use super::signing::{Opens, Refused, Way};
use super::taking_in::Again;
use super::{BlobDesk, now_unix};

/// Bytes read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// What a URL has for its proof.
#[derive(Deserialize)]
struct Proof {
    until: i64,
    signature: String,
}

/// Why somebody gets nothing. They are told no more than what they must know: agents say on what they are told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error(transparent)]
    Url(#[from] Refused),
    #[error("this agent has no VM any more")]
    NoVm,
    #[error("no agent has this password")]
    NoLogin,
    #[error("this is no id that a blob may be brought under")]
    NoId,
    #[error("another blob has this id")]
    Taken,
    #[error("there is no such blob")]
    NotFound,
    #[error("it is larger than what an agent may bring")]
    TooLarge,
    #[error("it ended before its end")]
    Cut,
    #[error("this replica can't do it at the moment")]
    Unavailable,
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Url(_) | Self::NoVm => StatusCode::FORBIDDEN,
            Self::NoLogin => StatusCode::UNAUTHORIZED,
            Self::NoId => StatusCode::BAD_REQUEST,
            Self::Taken => StatusCode::CONFLICT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Cut => StatusCode::BAD_REQUEST,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, format!("{self}\n")).into_response()
    }
}

pub(super) fn routes(desk: Arc<BlobDesk>) -> Router {
    Router::new()
        .route("/agents/{agent}/blobs/{blob}", get(fetch))
        .route("/agents/{agent}/brought/{name}", put(bring))
        .merge(dav::routes())
        .with_state(desk)
}

async fn fetch(
    Shared(desk): Shared<Arc<BlobDesk>>,
    Path((agent, blob)): Path<(AgentId, String)>,
    Query(proof): Query<Proof>,
) -> Result<Response, Denied> {
    let opens = Opens { way: Way::Get, agent: &agent, blob: &blob };
    desk.urls.check(opens, proof.until, &proof.signature, now_unix())?;
    desk.admit(&agent).await?;
    desk.content(&agent, &BlobDigest::new(blob)).await
}

async fn bring(
    Shared(desk): Shared<Arc<BlobDesk>>,
    Path((agent, name)): Path<(AgentId, String)>,
    Query(proof): Query<Proof>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Denied> {
    let opens = Opens { way: Way::Put, agent: &agent, blob: &name };
    desk.urls.check(opens, proof.until, &proof.signature, now_unix())?;
    desk.admit(&agent).await?;
    check_length(&headers, desk.bytes_max)?;
    desk.take_in(&agent, name, body, Again::Replaces).await.map(|()| StatusCode::CREATED)
}

/// Refuses what says that it is too large before any of it is read.
pub(super) fn check_length(headers: &HeaderMap, bytes_max: u64) -> Result<(), Denied> {
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if told.is_some_and(|bytes: u64| bytes > bytes_max) { Err(Denied::TooLarge) } else { Ok(()) }
}

impl BlobDesk {
    /// Sends an agent away whose VM is gone.
    async fn admit(&self, agent: &AgentId) -> Result<(), Denied> {
        let has_vm = self.holds(agent, |state| state.vm(agent).is_some()).await?;
        if has_vm { Ok(()) } else { Err(Denied::NoVm) }
    }

    /// Returns whether something is so. Before it says that it is not, this replica has to know everything.
    pub(super) async fn holds(
        &self,
        agent: &AgentId,
        is_so: impl Fn(&State<'_>) -> bool,
    ) -> Result<bool, Denied> {
        if is_so(&State::new(&*self.log.view())) {
            return Ok(true);
        }
        self.log.read_barrier().await.map_err(|error| {
            warn!(agent = %agent, error = %error, "nobody can tell whether an agent may have a blob");
            Denied::Unavailable
        })?;
        Ok(is_so(&State::new(&*self.log.view())))
    }

    /// Answers with a blob, wherever in the fleet it is. One that turns out to be damaged ends before its end.
    pub(super) async fn content(&self, agent: &AgentId, blob: &BlobDigest) -> Result<Response, Denied> {
        let denied = |error: BlobError| match error {
            BlobError::NotFound { .. } | BlobError::InvalidDigest { .. } => {
                debug!(agent = %agent, blob = %blob, "an agent asks for a blob that there is not");
                Denied::NotFound
            }
            error => {
                warn!(agent = %agent, blob = %blob, error = %error, "an agent does not get a blob");
                Denied::Unavailable
            }
        };
        let reader = self.blobs.get(blob).await.map_err(denied)?;
        let stat = self.blobs.stat(blob).await.map_err(denied)?;
        let headers = stat.map(|stat| [(CONTENT_LENGTH, stat.bytes.to_string())]);
        let kind: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/octet-stream")];
        let body = Body::from_stream(ReaderStream::with_capacity(reader, PIECE_BYTES));
        Ok(match headers {
            Some(length) => (kind, length, body).into_response(),
            None => (kind, body).into_response(),
        })
    }
}
