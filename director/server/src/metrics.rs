//! Names of all metrics, with what they mean. Labels come from closed sets only.

use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use state::command::{Command, TaskEnd};
use tonic::Code;

/// The latest Raft term.
pub const RAFT_TERM: &str = "directorate_raft_term";
/// Free bytes on the disk of the data.
pub const DISK_FREE: &str = "directorate_disk_free_bytes";
/// 1 on the leader.
pub const RAFT_LEADER: &str = "directorate_raft_leader";
/// The last entry in the log.
pub const RAFT_LAST_INDEX: &str = "directorate_raft_last_log_index";
/// The last entry in the state.
pub const RAFT_APPLIED_INDEX: &str = "directorate_raft_applied_index";
/// Agents connected here.
pub const AGENT_STREAMS: &str = "directorate_agent_streams";
/// Tasks that have not ended.
pub const TASKS_OPEN: &str = "directorate_tasks_open";
/// Agents that need other certificates.
pub const LATE_CERTIFICATES: &str = "directorate_agent_certificates_late";
/// Logins that were refused.
pub const LOGINS_REFUSED: &str = "directorate_logins_refused_total";
/// Changes of leader.
pub const LEADER_CHANGES: &str = "directorate_leader_changes_total";
/// Ends of tasks.
pub const TASKS_ENDED: &str = "directorate_tasks_ended_total";
/// From a command to its outcome.
pub const PROPOSE: &str = "directorate_propose_seconds";
/// Waits for linearizable reads.
pub const READ_BARRIER: &str = "directorate_read_barrier_seconds";
/// Applying an entry.
pub const APPLY: &str = "directorate_apply_seconds";
/// Calls of the public API.
pub const RPC: &str = "directorate_rpc_seconds";

/// Bounds of all histograms: from an apply to a request that waited for a leader.
pub const BUCKETS: &[f64] =
    &[0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What a path that is no method of ours counts as: paths are the outside's to choose, labels are not.
const NO_METHOD: &str = "other";

/// Counts a refused login.
pub fn login_refused() {
    counter!(LOGINS_REFUSED).increment(1);
}

/// Counts a change of leader, as this replica saw it.
pub fn leader_changed() {
    counter!(LEADER_CHANGES).increment(1);
}

/// Tells how long a command took, and counts the end of a task if it was one.
pub fn proposed(command: &Command, took: Duration) {
    histogram!(PROPOSE).record(took);
    if let Command::TaskFinish { end, .. } = command {
        let end = match end {
            TaskEnd::Done(_) => "done",
            TaskEnd::Error(_) => "error",
            TaskEnd::Cancelled => "cancelled",
        };
        counter!(TASKS_ENDED, "end" => end).increment(1);
    }
}

/// Tells how long a linearizable read had to wait.
pub fn read_barrier(took: Duration) {
    histogram!(READ_BARRIER).record(took);
}

/// Tells how long applying an entry took.
pub fn applied(took: Duration) {
    histogram!(APPLY).record(took);
}

/// Tells how long each call of the public API took until its answer began.
pub async fn observe(request: Request, next: Next) -> Response {
    let (begun, path) = (Instant::now(), request.uri().path().to_owned());
    let answer = next.run(request).await;
    // An answer that is only an error says so in its head.
    let code = answer.headers().get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
    let method = match path.strip_prefix('/') {
        Some(method) if code != Code::Unimplemented && answer.status().is_success() => method.to_owned(),
        _ => NO_METHOD.to_owned(),
    };
    histogram!(RPC, "method" => method, "code" => format!("{code:?}")).record(begun.elapsed());
    answer
}

/// Notes how much of the disk is free.
pub fn disk_free(bytes: u64) {
    gauge!(DISK_FREE).set(bytes as f64);
}

/// Tells, as the leader, how many agents' certificates end soon.
pub fn late_certificates(agents: usize) {
    gauge!(LATE_CERTIFICATES).set(agents as f64);
}

/// Tells the recorder what each name means.
pub fn describe() {
    describe_gauge!(RAFT_TERM, "The latest Raft term that this replica has seen");
    describe_gauge!(DISK_FREE, "Free bytes on the disk that this replica's data is on");
    describe_gauge!(RAFT_LEADER, "1 if this replica leads, else 0");
    describe_gauge!(RAFT_LAST_INDEX, "Index of the last entry in this replica's log");
    describe_gauge!(RAFT_APPLIED_INDEX, "Index of the last entry that this replica's state contains");
    describe_gauge!(AGENT_STREAMS, "Agents whose stream this replica holds");
    describe_gauge!(TASKS_OPEN, "Tasks that are queued, processed or being cancelled");
    describe_gauge!(
        LATE_CERTIFICATES,
        "Agents of BOSH's whose certificate for NATS ends soon and could not be replaced, as the leader sees it; 0 elsewhere"
    );
    describe_counter!(LOGINS_REFUSED, "Logins that were refused: wrong passwords, tokens and names");
    describe_counter!(LEADER_CHANGES, "Changes of leader that this replica has seen");
    describe_counter!(TASKS_ENDED, "Tasks that this replica has ended as their leader, by how they ended");
    describe_histogram!(PROPOSE, "Time from a command to its outcome, commit and apply included");
    describe_histogram!(READ_BARRIER, "Time that linearizable reads waited for the leader and for the state");
    describe_histogram!(APPLY, "Time to apply an entry to the state");
    describe_histogram!(RPC, "Time from a call of the public API to the beginning of its answer");
    raft::metrics::describe();
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn names_end_in_a_unit_and_are_rendered_with_buckets() {
        let recorder = PrometheusBuilder::new().set_buckets(BUCKETS).unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            let end = TaskEnd::Done(None);
            let finish = Command::TaskFinish { task: model::TaskId(1), epoch: model::Epoch(1), end };
            proposed(&finish, Duration::from_millis(3));
            applied(Duration::from_micros(300));
            leader_changed();
        });
        let text = recorder.handle().render();
        for expected in [
            "directorate_propose_seconds_bucket{le=\"0.0025\"} 0",
            "directorate_propose_seconds_bucket{le=\"0.005\"} 1",
            "directorate_apply_seconds_bucket{le=\"0.0005\"} 1",
            "directorate_tasks_ended_total{end=\"done\"} 1",
            "directorate_leader_changes_total 1",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        for name in [LOGINS_REFUSED, LEADER_CHANGES, TASKS_ENDED, PROPOSE, READ_BARRIER, APPLY, RPC] {
            assert!(name.ends_with("_total") || name.ends_with("_seconds"), "{name}");
        }
    }
}
