//! The sessions of a user on this machine, and their end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::ActionError;
use crate::proc;

/// How long ended processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whose sessions, and where processes are listed.
pub(super) struct Sessions<'a> {
    pub proc: &'a Path,
    pub name: &'a str,
    /// What tells the user's processes from others, if it does.
    pub uid: Option<u32>,
}

impl Sessions<'_> {
    /// Ends everything that the user has started, and whoever is letting the user in, until none is left.
    pub async fn end(&self) -> Result<(), ActionError> {
        let begun = Instant::now();
        loop {
            let found = self.processes();
            if found.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > GONE_WITHIN {
                return Err(ActionError::failed(format!(
                    "processes of user `{}` do not end: {found:?}",
                    self.name
                )));
            }
            for pid in found {
                // One that is gone needs no signal.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn processes(&self) -> BTreeSet<i32> {
        let entries = fs::read_dir(self.proc).into_iter().flatten().flatten();
        let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mut found = BTreeSet::new();
        for pid in all.filter(|pid| *pid > 1) {
            if self.is_door(pid) {
                // With what the user does as somebody else, root above all.
                found.extend(proc::tree(pid));
            } else if self.is_the_users(pid) {
                found.insert(pid);
            }
        }
        found
    }

    /// Returns whether this is the server's process for a session of the user, or of one who has only said the name: that
    /// one has passed the server's questions before we asked ours.
    fn is_door(&self, pid: i32) -> bool {
        let line = fs::read(self.proc.join(pid.to_string()).join("cmdline")).unwrap_or_default();
        let title = String::from_utf8_lossy(&line);
        let rest = title.strip_prefix("sshd: ").and_then(|title| title.strip_prefix(self.name));
        // Anybody can call themselves that.
        rest.is_some_and(|rest| rest.starts_with([' ', '@', '\0']))
            && self.uids(pid).iter().all(|uid| *uid == 0)
    }

    fn is_the_users(&self, pid: i32) -> bool {
        self.uid.is_some_and(|uid| self.uids(pid).contains(&uid))
    }

    /// Returns as whom a process runs: really, effectively, and so on. Nobody if it is dead, only not collected yet.
    fn uids(&self, pid: i32) -> Vec<u32> {
        let status = fs::read_to_string(self.proc.join(pid.to_string()).join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("State:").is_none_or(|state| state.starts_with(['Z', 'X'])) {
            return Vec::new();
        }
        field("Uid:").unwrap_or_default().split_whitespace().filter_map(|uid| uid.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(proc: &Path, pid: i32, uids: &str, state: &str, cmdline: &str) {
        let folder = proc.join(pid.to_string());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("status"), format!("Name:\tx\nState:\t{state}\nUid:\t{uids}\n")).unwrap();
        fs::write(folder.join("cmdline"), cmdline).unwrap();
    }

    #[test]
    fn sessions_are_what_the_user_runs_and_what_lets_the_user_in() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        // Numbers that no process of this machine has: descendants are looked for among the real ones.
        let at = |offset: i32| 2_000_000_000 + offset;
        process(proc, at(1), "1001\t1001\t1001\t1001", "S (sleeping)", "bash\0");
        process(proc, at(2), "1001\t0\t0\t0", "S (sleeping)", "sudo\0-n\0true\0");
        process(proc, at(3), "0\t0\t0\t0", "S (sleeping)", "sshd: bosh_1a [priv]\0");
        process(proc, at(4), "0\t0\t0\t0", "S (sleeping)", "sshd: bosh_1ab [priv]\0");
        process(proc, at(5), "1002\t1002\t1002\t1002", "S (sleeping)", "sshd: bosh_1a [priv]\0");
        process(proc, at(6), "1001\t1001\t1001\t1001", "Z (zombie)", "");
        process(proc, at(7), "0\t0\t0\t0", "S (sleeping)", "sshd: /usr/sbin/sshd [listener]\0");
        let sessions = |uid| Sessions { proc, name: "bosh_1a", uid };
        assert_eq!(sessions(Some(1001)).processes(), [at(1), at(2), at(3)].into());
        assert_eq!(sessions(None).processes(), [at(3)].into());
    }

    #[tokio::test]
    async fn none_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        Sessions { proc: folder.path(), name: "bosh_1a", uid: Some(1001) }.end().await.unwrap();
    }
}
