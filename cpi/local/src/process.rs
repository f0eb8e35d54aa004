//! Processes that outlive us: who they are beyond their number, and how they end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::OnceLock;

use cpi_host::{HostError, Scope};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process for good: numbers are used again, a number with its time of birth is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub pid: i32,
    /// Clock ticks between the machine's boot and the process's birth.
    pub born_ticks: u64,
    /// Digest of the machine's boot id: ticks mean nothing across boots.
    pub boot: u64,
}

/// One process as `/proc` shows it.
struct Seen {
    id: ProcessId,
    parent: i32,
    /// Dead, and only waiting for its parent to notice.
    is_zombie: bool,
}

impl ProcessId {
    /// Returns the process with this number now.
    pub fn of(pid: i32) -> Option<Self> {
        look(pid).map(|seen| seen.id)
    }

    /// Returns the digest of the machine's boot id.
    pub fn boot_now() -> u64 {
        boot()
    }

    /// Returns whether it still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        look(self.pid).is_some_and(|seen| seen.id == *self && !seen.is_zombie)
    }

    fn signal(&self, signal: Signal) -> Result<(), HostError> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(HostError::os("signal process", self.pid.to_string())(errno)),
        }
    }

    /// Kills this one process and waits for its end.
    pub fn kill(&self, scope: &Scope) -> Result<(), HostError> {
        self.signal(Signal::SIGKILL)?;
        scope.wait_for(&format!("process {} to end", self.pid), || Ok((!self.is_alive()).then_some(())))
    }

    /// Kills the process and everything below it, and waits for their end.
    ///
    /// It must be a child subreaper: then nothing below it ever moves elsewhere. It is stopped first, so that it
    /// starts nothing more and, as the parent of every orphan, keeps their numbers from being used again meanwhile.
    pub fn kill_tree(&self, scope: &Scope) -> Result<(), HostError> {
        self.signal(Signal::SIGSTOP)?;
        scope.wait_for(&format!("the processes below {} to end", self.pid), || {
            let below = self.descendants();
            for process in &below {
                process.signal(Signal::SIGKILL)?;
            }
            Ok(below.is_empty().then_some(()))
        })?;
        self.kill(scope)
    }

    /// Returns the living processes below this one.
    pub fn descendants(&self) -> Vec<Self> {
        if !self.is_alive() {
            return Vec::new();
        }
        let mut children: BTreeMap<i32, Vec<Seen>> = BTreeMap::new();
        for seen in all() {
            children.entry(seen.parent).or_default().push(seen);
        }
        let (mut found, mut open) = (Vec::new(), vec![self.pid]);
        while let Some(pid) = open.pop() {
            for seen in children.remove(&pid).into_iter().flatten() {
                open.push(seen.id.pid);
                if !seen.is_zombie {
                    found.push(seen.id);
                }
            }
        }
        found
    }
}

/// Returns the living processes that carry `mark` in their environment or work in or run from `dir`: those of a VM
/// whose supervisor was killed by somebody else.
pub(crate) fn marked(mark: &str, dir: &Path) -> Vec<ProcessId> {
    let own = std::process::id() as i32;
    all()
        .filter(|seen| !seen.is_zombie && seen.id.pid != own && belongs(seen.id.pid, mark, dir))
        .map(|s| s.id)
        .collect()
}

fn belongs(pid: i32, mark: &str, dir: &Path) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let is_within = |link: &str| fs::read_link(proc.join(link)).is_ok_and(|target| target.starts_with(dir));
    let has_mark = || {
        let environment = fs::read(proc.join("environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|entry| entry == mark.as_bytes())
    };
    let names_dir = || {
        let line = fs::read(proc.join("cmdline")).unwrap_or_default();
        // Only what runs from there: a `tail -f` of somebody's console.log is not the VM's.
        line.split(|b| *b == 0).next().is_some_and(|program| program.starts_with(dir.as_os_str().as_bytes()))
    };
    has_mark() || is_within("exe") || is_within("cwd") && names_dir()
}

fn all() -> impl Iterator<Item = Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(look)
}

fn look(pid: i32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold any character: count from the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let [state, parent, ..] = fields.as_slice() else { return None };
    Some(Seen {
        id: ProcessId { pid, born_ticks: fields.get(19)?.parse().ok()?, boot: boot() },
        parent: parent.parse().ok()?,
        is_zombie: matches!(*state, "Z" | "X"),
    })
}

fn boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        fnv(text.trim().as_bytes())
    })
}

/// Returns the FNV-1a hash: for names where only equality matters, and which other builds must give alike.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_ends_and_its_number_is_not_it() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        assert!(id.is_alive());
        assert!(
            !ProcessId { born_ticks: id.born_ticks + 1, ..id }.is_alive(),
            "another process with that number"
        );
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(own.descendants().contains(&id));
        child.kill().unwrap();
        // Not yet waited for: a zombie counts as ended.
        let ended = std::iter::repeat_with(|| id.is_alive()).take(100_000).any(|alive| !alive);
        assert!(ended);
        child.wait().unwrap();
    }
}
