//! When BOSH's agent does what.

/// Whether a method is done before the next message is looked at, or in its turn, by the one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    AtOnce,
    Queued,
}

/// The method whose tasks outlive a restart: it may cause one.
pub(crate) const PERSISTENT: &str = "update_settings";

/// Returns when a method is done.
pub(crate) fn turn(method: &str) -> Turn {
    match method {
        "ping"
        | "info"
        | "get_state"
        | "start"
        | "ssh"
        | "shutdown"
        | "sync_dns"
        | "sync_dns_with_signed_url"
        | "delete_arp_entries"
        | "remove_dynamic_disk"
        | "bundle_logs"
        | "remove_file" => Turn::AtOnce,
        _ => Turn::Queued,
    }
}

/// Returns whether a method can be given up half-way.
pub(crate) fn can_be_cancelled(method: &str) -> bool {
    matches!(method, "drain" | "run_errand")
}
