//! The REST front door: what the unmodified `bosh` CLI speaks, in BOSH's paths, shapes and errors. It decides nothing:
//! JSON and YAML in, the same service functions as gRPC, JSON out.
//!
//! Every replica answers everything itself: the CLI follows redirects to the host that it was given, and to no other.
//! Invariants: no route but `/info` answers whoever has not logged in; whatever makes a task answers with `302` to it.
//!
//! Read next: [`described`] (all routes), [`outcome`] and [`answer`] (redirects and errors), [`repeats`] (the CLI sends again
//! whatever got no answer), then one file per noun. [`openapi`] makes a document of them.

mod answer;
mod artifacts;
mod cloud_check;
mod configs;
mod content;
mod deployments;
mod described;
mod dynamic_disks;
mod exports;
mod history;
mod info;
mod instances;
mod leftovers;
mod links;
mod login;
mod logs;
mod openapi;
mod outcome;
mod parts;
mod repeats;
mod snapshots;
mod ssh;
mod tasks;
mod times;
mod unread;
mod variables;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::Response;
use tower::ServiceExt as _;

use crate::door::Door;

/// The largest body that is read into memory: a manifest with everything that an entry of the log can hold, and more.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What the handlers work with.
#[derive(Clone)]
struct Rest {
    door: Door,
    /// What `/info` says the CPI is.
    cpi: &'static str,
    /// What describes the routes.
    document: Bytes,
}

/// Returns all routes.
pub fn routes(door: Door, cpi: &'static str) -> Router {
    let (all, document) = openapi::routes();
    let document = serde_json::to_vec(&document).expect("the document has text for keys alone").into();
    all.fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(unread::read_to_the_end))
        .with_state(Rest { door, cpi, document })
}

/// Returns whether a flag of a query is on: only `true` is.
fn is_on(flag: Option<&String>) -> bool {
    flag.is_some_and(|flag| flag == "true")
}

/// Returns both doors at one port: gRPC says of itself what it is, everything else is REST.
pub fn beside(grpc: Router, rest: Router) -> Router {
    Router::new().fallback(by_protocol).with_state((grpc, rest))
}

async fn by_protocol(State((grpc, rest)): State<(Router, Router)>, request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let chosen = if kind.starts_with(b"application/grpc") { grpc } else { rest };
    match chosen.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// Returns every path.
#[cfg(test)]
pub(crate) fn paths() -> Vec<&'static str> {
    described::table().into_iter().map(|(path, _)| path).collect()
}

#[cfg(test)]
mod bodies_tests;
#[cfg(test)]
mod dynamic_disks_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod links_tests;
#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traps_tests;
#[cfg(test)]
mod unread_tests;
