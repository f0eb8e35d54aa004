//! Walks every method of the public API, from the descriptors that reflection serves: a method that is added without a
//! check of rights fails here without anybody thinking of it.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use crate::test_support::replica::{PASSWORD, Replica};

/// Open to everybody: what a client must know before it can log in, and the desk where a token is the right.
pub(super) const OPEN: &[&str] = &["Cluster/Info", "Join/Join"];

/// What changes nothing, and shows no secrets. Who may what of it is in `people_tests.rs`.
pub(super) const READS: &[&str] = &[
    "Blobs/Stat",
    "CleanUp/Preview",
    "Cluster/Status",
    "Configs/Get",
    "Configs/List",
    "Deployments/Diff",
    "Deployments/Get",
    "Deployments/List",
    "Deployments/ListErrands",
    "Disks/ListOrphaned",
    "DynamicDisks/List",
    "Networks/List",
    "Events/List",
    "Health/Agents",
    "Health/Deployments",
    "Health/Leaks",
    "Health/Shards",
    "Instances/List",
    "Instances/ListOrphanedVms",
    "Links/Address",
    "Links/List",
    "Links/ListConsumers",
    "Links/ListProviders",
    "Locks/List",
    "Releases/Inspect",
    "Releases/List",
    "Snapshots/List",
    "Stemcells/List",
    "Tasks/Follow",
    "Tasks/Get",
    "Tasks/List",
    "Tasks/Steps",
    "Variables/List",
    "Variables/ListCertificates",
    "Variables/ListDeployments",
    "Watch/Watch",
];

/// Every method of the public API as `Service/Method`.
pub(super) fn methods() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap().file;
    let public = files.iter().filter(|f| f.package() == "directorate.v1");
    let services = public.flat_map(|f| &f.service);
    services.flat_map(|s| s.method.iter().map(|m| format!("{}/{}", s.name(), m.name()))).collect()
}

/// The public API as it is served.
pub(super) fn router(replica: &Replica) -> Router {
    let routes = super::routes(&replica.door).unwrap().prepare().into_axum_router();
    routes.layer(axum::middleware::from_fn(crate::deadline::honour))
}

/// Calls a method with an empty message.
async fn call(router: &Router, method: &str, user: Option<&str>) -> Code {
    ask(router, method, user).await.code()
}

/// Calls a method with an empty message; the status is that of the answer's head.
async fn ask(router: &Router, method: &str, user: Option<&str>) -> Status {
    ask_with(router, method, user, &[]).await
}

/// Calls a method; the status is that of the answer's head.
pub(super) async fn ask_with(router: &Router, method: &str, user: Option<&str>, message: &[u8]) -> Status {
    let mut request = http::Request::post(format!("/directorate.v1.{method}"))
        .header("content-type", "application/grpc")
        // What waits for a leader that never comes is not waited for.
        .header("grpc-timeout", "2S")
        .header("te", "trailers");
    if let Some(user) = user {
        request = request
            .header("authorization", format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}"))));
    }
    // One message, not compressed, behind its length.
    let framed = [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
    let request = request.body(Body::from(framed)).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    // A refusal comes without a body, so that its status is in the headers; else the call was let in.
    Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::ok(""))
}

/// Says what an error lacks that every error has.
fn lacks(status: &Status) -> Option<&'static str> {
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Ok => None,
        _ if status.get_details_error_info().is_none_or(|info| info.domain != "directorate") => {
            Some("ErrorInfo")
        }
        Code::Unavailable if retry.is_none() => Some("RetryInfo"),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_says_why_and_when_to_come_back() {
    let replica = Replica::start().await;
    let router = router(&replica);
    let mut wrong = Vec::new();
    for method in &methods() {
        for user in [None, Some("nobody"), Some("admin")] {
            let status = ask(&router, method, user).await;
            wrong.extend(lacks(&status).map(|what| format!("{method} as {user:?}: {what} in {status:?}")));
        }
    }
    // Without consensus, too: whatever needs it can't be answered, and says so.
    replica.door.membership.node.shutdown().await;
    let mut unavailable = 0;
    for method in &methods() {
        let status = ask(&router, method, Some("admin")).await;
        unavailable += u32::from(status.code() == Code::Unavailable);
        wrong.extend(lacks(&status).map(|what| format!("{method} without consensus: {what} in {status:?}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(unavailable > 20, "{unavailable}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_checks_who_asks_before_anything_else() {
    let replica = Replica::start().await;
    let router = router(&replica);
    let methods = methods();
    assert!(methods.len() > 40, "{methods:?}");
    for listed in OPEN.iter().chain(READS) {
        assert!(methods.contains(*listed), "{listed} is listed here and does not exist");
    }
    let mut wrong = Vec::new();
    for method in &methods {
        let open = OPEN.contains(&method.as_str());
        for user in [None, Some("stranger"), Some("nobody")] {
            let code = call(&router, method, user).await;
            let right = match user {
                _ if open => !matches!(code, Code::PermissionDenied | Code::Unimplemented),
                None | Some("stranger") => code == Code::Unauthenticated,
                Some(_) => code == Code::PermissionDenied,
            };
            if !right {
                wrong.push(format!("{method} as {user:?}: {code:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    replica.stop().await;
}
