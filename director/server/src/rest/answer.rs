//! Answers to what was not done: errors in BOSH's shape.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::Json;
use axum::extract::Request;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use model::ErrorCode;
use model::task::TaskError;
use release::BlobError;
use schemars::{JsonSchema, json_schema};
use serde::Serialize;
use service::{ACCESS_TASK, ServiceError};
use state::command::Refusal;
use state::log::LogError;

use super::content::media;
use super::outcome::{ByStatus, with};
use crate::error_map::is_not_found;

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

impl From<BytesRejection> for Failure {
    fn from(error: BytesRejection) -> Self {
        Self::Text(error.status(), error.body_text())
    }
}

/// Makes an error with one of BOSH's numbers.
pub(super) fn told(code: ErrorCode, message: impl Into<String>) -> Failure {
    Failure::Service(ServiceError::told(code, message))
}

/// An error.
#[derive(JsonSchema, Serialize)]
pub(super) struct ErrorBody {
    /// BOSH's number.
    code: u32,
    /// What is wrong.
    description: String,
}

/// Returns an answer that is an error. BOSH tells some as a line of text.
pub(super) fn error(ctx: &mut GenContext, about: &str) -> Described {
    let mut answer = with(about, "application/json", ctx.schema.subschema_for::<ErrorBody>());
    answer.content.insert("text/plain".into(), media(json_schema!({ "type": "string" })));
    answer
}

/// What any operation may be answered with.
impl OperationOutput for Failure {
    type Inner = Self;

    fn inferred_responses(ctx: &mut GenContext, _: &mut Operation) -> ByStatus {
        let all = [
            (400, "The request makes no sense, or not now."),
            (401, "Nobody has logged in, or somebody who may not: the scopes are named that are wanted."),
            (404, "There is no such thing, or not for content of this type."),
            (500, "Something here is broken."),
            (503, "There is no leader just now. Asking again helps."),
        ];
        all.into_iter().map(|(status, about)| (Some(status), error(ctx, about))).collect()
    }
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
    (status, Json(ErrorBody { code, description: description.to_owned() })).into_response()
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
fn not_found_at(path: &str) -> Response {
    (StatusCode::NOT_FOUND, no_such_endpoint(path)).into_response()
}

/// Returns how it is said.
pub(super) fn no_such_endpoint(path: &str) -> String {
    match path.split('/').nth(1) {
        Some(noun) if NOUNS.contains(&noun) => format!("Endpoint '{path}' not found."),
        _ => format!("Not Found: {path}"),
    }
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
