//! Plain HTTP for machines that look after machines: metrics, and whether this replica lives and can serve.

use std::sync::Arc;

use agent_client_grpc::AgentHub;
use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use owned_tasks::{OnExit, OwnedTasks};
use raft::{Node, Role, Room};
use state::State;
use state::log::CommandLog as _;
use tokio::net::TcpListener;

use crate::contact::{Readiness, readiness};
use crate::fleet::log::RaftLog;
use crate::metrics as names;

#[derive(Clone)]
struct Probes {
    node: Node,
    log: RaftLog,
    hub: Arc<AgentHub>,
    metrics: PrometheusHandle,
}

/// Starts the probe port.
pub fn start(tasks: &OwnedTasks, listener: TcpListener, node: Node, log: RaftLog, hub: Arc<AgentHub>) {
    let builder =
        PrometheusBuilder::new().set_buckets(names::BUCKETS).expect("the list of buckets is not empty");
    let recorder = builder.build_recorder();
    let probes = Probes { node, log, hub, metrics: recorder.handle() };
    // A second replica in one process (tests) keeps its own numbers; the first one's recorder is global.
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("metrics are recorded elsewhere in this process");
    }
    names::describe();
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(probes);
    tasks.spawn("probe port", OnExit::StopNode, move |stop| async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
        if let Err(error) = served.await {
            tracing::error!(error = %error, "the probe port has ended");
        }
    });
}

/// Ready: knows its fleet and is in touch with a leader, so that a request can be answered.
async fn ready(Extract(probes): Extract<Probes>) -> (StatusCode, String) {
    let text = match readiness(&probes.node, &probes.log) {
        Readiness::Ready { leader } => {
            let disk = match probes.node.room() {
                Room::Ample => "",
                Room::Little | Room::None => ", little room on the disk here",
            };
            return (StatusCode::OK, format!("ok, replica {leader} leads{disk}\n"));
        }
        Readiness::NoLeader => "no leader in reach\n",
        Readiness::NoState => "the state has not arrived yet\n",
    };
    (StatusCode::SERVICE_UNAVAILABLE, text.into())
}

async fn scrape(Extract(probes): Extract<Probes>) -> String {
    let status = probes.node.status();
    let number = |n: Option<u64>| n.unwrap_or_default() as f64;
    metrics::gauge!(names::RAFT_TERM).set(status.term as f64);
    metrics::gauge!(names::RAFT_LEADER).set(if status.role == Role::Leader { 1.0 } else { 0.0 });
    metrics::gauge!(names::RAFT_LAST_INDEX).set(number(status.last_log_index));
    metrics::gauge!(names::RAFT_APPLIED_INDEX).set(number(status.applied));
    metrics::gauge!(names::AGENT_STREAMS).set(probes.hub.stream_count() as f64);
    let view = probes.log.view();
    // A count over keys: the tasks themselves, with their manifests, are not read.
    let open = tokio::task::spawn_blocking(move || State::new(&*view).open_tasks()).await;
    metrics::gauge!(names::TASKS_OPEN).set(open.unwrap_or_default() as f64);
    probes.metrics.render()
}
