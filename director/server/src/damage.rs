//! What a replica does about data that is not what was written: it says so, says what helps, and ends.

use anyhow::ensure;
use model::NodeId;
use raft::StartError;
use tracing::error;

use crate::config::Config;
use crate::identity::IdentityFiles;

/// What helps.
const REPAIR: &str = "`directord repair` sets aside what is damaged, and the others send it all again";

/// Fails if a replica that has run has no data any more: under its old number it would not know what it has promised.
pub fn check_presence(config: &Config, files: &IdentityFiles, node: NodeId) -> anyhow::Result<()> {
    let is_there = config.data_dir.join("raft/log").exists();
    let folder = config.data_dir.display();
    ensure!(is_there || !files.has_run(), "the data of replica {node} in `{folder}` is gone: {REPAIR}");
    Ok(())
}

/// Says what to do about data that can't be read.
pub fn advised(error: StartError) -> anyhow::Error {
    match error {
        StartError::Database { .. } | StartError::DataDir { .. } => anyhow::Error::new(error)
            .context(format!("this replica's data can't be used (if it is damaged, {REPAIR})")),
        _ => error.into(),
    }
}

/// Ends the process at once, by SIGABRT: whatever else it did, it would do without knowing what is on its disk.
pub fn end_the_process(message: &str) {
    error!(error = message, "the replica can't go on and ends its process");
    eprintln!("fatal: {message}{}", advice(message));
    std::process::abort();
}

fn advice(message: &str) -> String {
    // RocksDB begins so what its checksums found.
    match message.contains("Corruption") || message.contains("damaged") {
        true => format!(" (the data is damaged: {REPAIR})"),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_apart_from_a_disk_that_is_full() {
        let damaged =
            "reading the state failed: Corruption: block checksum mismatch in /d/state/1/000012.sst";
        assert!(advice(damaged).contains("directord repair"));
        assert_eq!(advice("writing and syncing the log failed: IO error: No space left on device"), "");
    }
}
