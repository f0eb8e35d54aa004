//! Answers that are no rows: errors in BOSH's shape, and the redirect to a task.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use model::task::TaskError;
use model::{ErrorCode, TaskId};
use release::BlobError;
use serde::de::DeserializeOwned;
use serde_json::json;
use service::{ACCESS_TASK, ServiceError};
use state::command::Refusal;
use state::log::LogError;

use crate::error_map::is_not_found;

/// What a handler returns.
pub(super) type Answer = Result<Response, Failure>;

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service said no.
    Service(ServiceError),
    /// BOSH answers this with a line of text.
    Text(StatusCode, String),
    /// Somebody has to make room.
    NoRoom(String),
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NoRoom { .. } => Self::NoRoom(error.to_string()),
            BlobError::NotFound { .. } => told(ErrorCode::ResourceNotFound, error.to_string()),
            BlobError::InvalidDigest { .. } | BlobError::ReadContent { .. } => {
                told(ErrorCode::BadRequest, error.to_string())
            }
            other => Self::Text(StatusCode::SERVICE_UNAVAILABLE, other.to_string()),
        }
    }
}

impl From<QueryRejection> for Failure {
    fn from(error: QueryRejection) -> Self {
        told(ErrorCode::BadRequest, error.body_text())
    }
}

impl From<BytesRejection> for Failure {
    fn from(error: BytesRejection) -> Self {
        Self::Text(error.status(), error.body_text())
    }
}

/// A body of JSON. One that is none, or that lacks something, is told as every other mistake is.
pub(super) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Self::of(&Bytes::from_request(request, state).await?)
    }
}

impl<T: DeserializeOwned> JsonBody<T> {
    /// Reads one that is needed as bytes, too.
    pub fn of(body: &[u8]) -> Result<Self, Failure> {
        let parsed = object(body);
        parsed.map(Self).map_err(|error| {
            told(ErrorCode::BadRequest, format!("the body is not the JSON that is asked for: {error}"))
        })
    }
}

/// Reads an object. A structure would be read from an array, too, field by field: `[true]` would pause resurrection.
pub(super) fn object<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Err(serde::de::Error::custom("an object is expected, not an array")),
        _ => serde_json::from_slice(body),
    }
}

/// Makes an error with one of BOSH's numbers.
pub(super) fn told(code: ErrorCode, message: impl Into<String>) -> Failure {
    Failure::Service(ServiceError::told(code, message))
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Service(error) => of_service(error),
            Self::Text(status, text) => (status, text).into_response(),
            Self::NoRoom(text) => {
                described(StatusCode::INSUFFICIENT_STORAGE, ErrorCode::SystemError.number(), &text)
            }
        }
    }
}

fn of_service(error: ServiceError) -> Response {
    let message = error.to_string();
    match error {
        ServiceError::Unauthenticated => (StatusCode::UNAUTHORIZED, message).into_response(),
        // 401 and not 403, as in BOSH, and in its words.
        ServiceError::Forbidden { operation, scopes, .. } => {
            let required = match operation {
                ACCESS_TASK => "One of the following scopes is required to access this task",
                _ => "Require one of the scopes",
            };
            let text = format!("{required}: {}", scopes.join(", "));
            described(StatusCode::UNAUTHORIZED, ErrorCode::UnauthorizedError.number(), &text)
        }
        ServiceError::Told(TaskError { code, message }) => described(status_of(code), code, &message),
        ServiceError::Refused(refusal) => of_refusal(&refusal, &message),
        ServiceError::Log(error) => of_log(&error, &message),
        ServiceError::NoState | ServiceError::Busy(_) => again(&message),
        ServiceError::Compacted { .. } => {
            described(StatusCode::GONE, ErrorCode::BadRequest.number(), &message)
        }
    }
}

fn of_refusal(refusal: &Refusal, message: &str) -> Response {
    let (status, code) = match refusal {
        Refusal::NotFound { .. } => (StatusCode::NOT_FOUND, ErrorCode::ResourceNotFound),
        _ => (StatusCode::BAD_REQUEST, ErrorCode::ResourceError),
    };
    described(status, code.number(), message)
}

fn of_log(error: &LogError, message: &str) -> Response {
    match error {
        LogError::NoLeader(_) | LogError::Stopping => again(message),
        LogError::NoRoom => {
            described(StatusCode::INSUFFICIENT_STORAGE, ErrorCode::SystemError.number(), message)
        }
        LogError::TooLarge { .. } => {
            described(StatusCode::BAD_REQUEST, ErrorCode::BadRequest.number(), message)
        }
        LogError::TooOld { .. } => {
            described(StatusCode::CONFLICT, ErrorCode::ResourceError.number(), message)
        }
        LogError::Other(_) => {
            described(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::SystemError.number(), message)
        }
    }
}

/// This replica can't just now; asking again helps.
fn again(message: &str) -> Response {
    let answer = described(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::SystemError.number(), message);
    ([(RETRY_AFTER, "1")], answer).into_response()
}

/// Returns the status that BOSH gives an error with, if it is told while the request is answered.
fn status_of(code: u32) -> StatusCode {
    match ErrorCode::from_number(code) {
        Some(code) if is_not_found(code) => StatusCode::NOT_FOUND,
        Some(ErrorCode::UnauthorizedError) => StatusCode::UNAUTHORIZED,
        Some(ErrorCode::LinkProviderNotShared) => StatusCode::FORBIDDEN,
        Some(ErrorCode::Unknown | ErrorCode::SystemError | ErrorCode::LinkDeleteError) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The CLI looks for `"code":` with no blank behind it, and for the code before the description.
fn described(status: StatusCode, code: u32, description: &str) -> Response {
    (status, Json(json!({ "code": code, "description": description }))).into_response()
}

/// Nobody has proved who they are.
pub(super) fn not_authorized(path: &str) -> Response {
    let text = format!("Not authorized: '{path}'\n");
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, r#"Basic realm="BOSH Director""#)], text).into_response()
}

/// What the first part of a path can be.
const NOUNS: &[&str] = &[
    "cleanup",
    "cloud_configs",
    "configs",
    "cpi_configs",
    "deployed_variables",
    "deployment_configs",
    "deployments",
    "director",
    "disks",
    "dynamic_disks",
    "events",
    "info",
    "jobs",
    "link_address",
    "link_consumers",
    "link_providers",
    "links",
    "locks",
    "networks",
    "orphan_disks",
    "orphaned_vms",
    "packages",
    "releases",
    "resources",
    "resurrection",
    "runtime_configs",
    "stemcell_uploads",
    "stemcells",
    "task",
    "tasks",
    "vms",
];

/// There is nothing at this path, or not with this method, or not for this kind of content.
pub(super) async fn no_such_path(uri: Uri) -> Response {
    not_found_at(uri.path())
}

/// Says so.
pub(super) fn not_found_at(path: &str) -> Response {
    let text = match path.split('/').nth(1) {
        Some(noun) if NOUNS.contains(&noun) => format!("Endpoint '{path}' not found."),
        _ => format!("Not Found: {path}"),
    };
    (StatusCode::NOT_FOUND, text).into_response()
}

/// Lets pass what comes as YAML; in BOSH, other content is at a path that there is not.
pub(super) async fn only_yaml(request: Request, next: Next) -> Response {
    only("text/yaml", request, next).await
}

/// Lets pass what comes as JSON.
pub(super) async fn only_json(request: Request, next: Next) -> Response {
    only("application/json", request, next).await
}

async fn only(kind: &str, request: Request, next: Next) -> Response {
    let has_content = matches!(*request.method(), Method::POST | Method::PUT);
    let given = request.headers().get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    if has_content && given.split(';').next().unwrap_or_default().trim() != kind {
        return not_found_at(request.uri().path());
    }
    next.run(request).await
}

/// Sends the client to a task. With 302, which is followed with GET whatever the method was; relative, because the CLI
/// goes on with the host that it was given.
pub(super) fn see_task(task: TaskId) -> Response {
    (StatusCode::FOUND, [(LOCATION, format!("/tasks/{task}"))]).into_response()
}
