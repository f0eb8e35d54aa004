//! Who is asking.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use service::ops::check_context_id;
use service::{Caller, ServiceError};

use super::Rest;
use super::answer::{Failure, not_authorized};
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

/// Whoever has not logged in, or in vain, is nobody.
impl OptionalFromRequestParts<Rest> for Login {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Option<Self>, Response> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(None);
        }
        match caller(parts, rest).await {
            Ok(caller) => Ok(Some(Self(caller))),
            Err(ServiceError::Unauthenticated) => Ok(None),
            Err(other) => Err(Failure::from(other).into_response()),
        }
    }
}
