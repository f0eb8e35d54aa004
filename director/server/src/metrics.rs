//! Names of all metrics, with what they mean. Labels come from closed sets only.

use metrics::{counter, describe_counter, describe_gauge};

/// The latest Raft term.
pub const RAFT_TERM: &str = "directorate_raft_term";
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

/// Logins that were refused.
pub const LOGINS_REFUSED: &str = "directorate_logins_refused_total";

/// Counts a refused login.
pub fn login_refused() {
    counter!(LOGINS_REFUSED).increment(1);
}

/// Tells the recorder what each name means.
pub fn describe() {
    describe_gauge!(RAFT_TERM, "The latest Raft term that this replica has seen");
    describe_gauge!(RAFT_LEADER, "1 if this replica leads, else 0");
    describe_gauge!(RAFT_LAST_INDEX, "Index of the last entry in this replica's log");
    describe_gauge!(RAFT_APPLIED_INDEX, "Index of the last entry that this replica's state contains");
    describe_gauge!(AGENT_STREAMS, "Agents whose stream this replica holds");
    describe_counter!(LOGINS_REFUSED, "Logins that were refused: wrong passwords, tokens and names");
    describe_gauge!(TASKS_OPEN, "Tasks that are queued, processed or being cancelled");
}
