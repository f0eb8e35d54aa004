//! Who is asking.

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, SecurityRequirement};
use aide::operation::ParamLocation;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use schemars::json_schema;
use service::ops::check_context_id;
use service::{Caller, ServiceError};

use super::Rest;
use super::answer::{Failure, not_authorized};
use super::content::text_parameter;
use super::tasks::context_id;
use crate::listen::ClientAddress;

/// Somebody who has logged in. A handler without one answers anybody.
pub(super) struct Login(pub(super) Caller);

async fn caller(parts: &Parts, rest: &Rest) -> Result<Caller, ServiceError> {
    let from = parts.extensions.get::<ClientAddress>().map(|address| address.0);
    let shown = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    rest.door.doorkeeper.caller(shown, from).await
}

impl FromRequestParts<Rest> for Login {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Response> {
        match caller(parts, rest).await {
            Ok(caller) => match check_context_id(context_id(parts)) {
                Ok(()) => Ok(Self(caller)),
                Err(error) => Err(Failure::from(error).into_response()),
            },
            Err(ServiceError::Unauthenticated) => Err(not_authorized(parts.uri.path())),
            Err(other) => Err(Failure::from(other).into_response()),
        }
    }
}

/// Somebody who asks what anybody may. Whoever has not logged in, or in vain, is nobody.
pub(super) struct Visitor(pub(super) Option<Caller>);

impl FromRequestParts<Rest> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Response> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Self(None));
        }
        match caller(parts, rest).await {
            Ok(caller) => Ok(Self(Some(caller))),
            Err(ServiceError::Unauthenticated) => Ok(Self(None)),
            Err(other) => Err(Failure::from(other).into_response()),
        }
    }
}

/// The names, in the document, of the ways to log in.
pub(super) const WAYS: [&str; 2] = ["password", "token"];

impl OperationInput for Login {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        operation.security = WAYS.map(way).into();
        let about = json_schema!({
            "type": "string", "maxLength": 64, "pattern": "^[!-~]*$",
            "description": "An id of your own, by which tasks are found again.",
        });
        let place = (ParamLocation::Header, false);
        operation.parameters.extend(text_parameter(ctx, "X-Bosh-Context-Id", place, about));
    }
}

impl OperationInput for Visitor {
    fn operation_input(_: &mut GenContext, operation: &mut Operation) {
        operation.security = WAYS.map(way).into();
        operation.security.push(SecurityRequirement::new());
    }
}

fn way(name: &str) -> SecurityRequirement {
    SecurityRequirement::from_iter([(name.to_owned(), Vec::new())])
}
