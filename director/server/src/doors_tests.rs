//! One set of operations, two doors: `docs/doors.md` lists them, and neither door has more or less than it says.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tower::ServiceExt as _;

use crate::test_support::replica::Replica;

const PAGE: &str = include_str!("../../../docs/doors.md");

/// The cells of the page's table, a row an operation.
fn rows() -> Vec<Vec<&'static str>> {
    let lines = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| operation"));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The names in one column.
fn listed(column: usize) -> BTreeSet<String> {
    let cells = rows().into_iter().map(move |cells| cells[column]);
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn compare(what: &str, there: &BTreeSet<String>, listed: &BTreeSet<String>) {
    let unlisted: Vec<_> = there.difference(listed).collect();
    let missing: Vec<_> = listed.difference(there).collect();
    assert!(unlisted.is_empty(), "{what} without a row in docs/doors.md: {unlisted:?}");
    assert!(missing.is_empty(), "docs/doors.md lists {what} that do not exist: {missing:?}");
}

#[test]
fn every_grpc_method_is_an_operation() {
    let files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap().file;
    let public = files.iter().filter(|file| file.package() == "directorate.v1");
    let services = public.flat_map(|file| &file.service);
    let there = services.flat_map(|s| s.method.iter().map(|m| format!("{}/{}", s.name(), m.name())));
    compare("gRPC methods", &there.collect(), &listed(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rest_route_is_an_operation() {
    let replica = Replica::start().await;
    let router = crate::rest::routes(replica.door.clone(), "sim");
    let mut there = BTreeSet::new();
    for path in crate::rest::paths() {
        let asked = path.replace(['{', '}'], "");
        for (method, body) in [("GET", ""), ("POST", "{}"), ("PUT", "{}"), ("DELETE", ""), ("PATCH", "{}")] {
            let mut found = false;
            for kind in ["application/json", "text/yaml", "application/x-compressed"] {
                let request = Request::builder().method(method).uri(&asked).header("content-type", kind);
                let answer = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
                found |= answer.status() != StatusCode::NOT_FOUND;
            }
            if found {
                there.insert(format!("{method} {path}"));
            }
        }
    }
    compare("REST routes", &there, &listed(1));
    replica.stop().await;
}

#[test]
fn a_gap_has_its_reason() {
    for cells in rows() {
        assert_eq!(cells.len(), 5, "{cells:?}");
        let has_gap = cells[1..4].iter().any(|cell| cell.is_empty());
        assert_eq!(has_gap, !cells[4].is_empty(), "{}: {:?}", cells[0], cells[4]);
    }
}
