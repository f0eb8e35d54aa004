//! Processes that are ours: started, told things, and ended, always by pid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// How long the end of a killed process may take.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A child of ours, which ends with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Takes care of a child.
    pub fn new(name: impl Into<String>, child: Child) -> Self {
        Self { name: name.into(), child }
    }

    /// Returns the process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether it runs (or is stopped): it has not ended.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(Pid::from_raw(self.child.id() as i32), signal)
            .with_context(|| format!("send {signal} to {} (pid {})", self.name, self.child.id()))
    }

    /// Ends it without a chance to say goodbye, and waits until it has.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        let status = self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        // Else it had come to its end before, and whatever was to be shown was not.
        ensure!(
            status.signal() == Some(Signal::SIGKILL as i32),
            "{} had ended by itself: {status}",
            self.name
        );
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has, with success.
    pub async fn terminate(mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{} ended badly when asked to stop: {status}", self.name);
                return Ok(());
            }
            ensure!(begun.elapsed() < limit, "{} did not stop within {} s", self.name, limit.as_secs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends every process that belongs to a folder: those that name it in their command line or environment or stand in
/// it, and all below them. The folder must be one that nobody else knows.
pub fn end_all_of(folder: &Path) {
    let begun = Instant::now();
    while begun.elapsed() < END_WITHIN {
        let found = all_of(folder);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // It may have ended since we looked.
            let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("processes of {} did not end: {:?}", folder.display(), all_of(folder));
}

/// Returns the processes that belong to a folder; never ourselves.
pub fn all_of(folder: &Path) -> BTreeSet<i32> {
    let mark = folder.as_os_str().as_encoded_bytes();
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut found = Vec::new();
    for pid in pids() {
        let Some((parent, state)) = parent_and_state(pid) else { continue };
        if state == 'Z' {
            continue;
        }
        children.entry(parent).or_default().push(pid);
        if is_marked(pid, mark) {
            found.push(pid);
        }
    }
    let own = std::process::id() as i32;
    let mut all = BTreeSet::new();
    while let Some(pid) = found.pop() {
        if pid != own && all.insert(pid) {
            found.extend(children.get(&pid).into_iter().flatten());
        }
    }
    all
}

/// Returns the CPU time that a process has taken, with everything that it has started and waited for, and with those of its
/// descendants that run.
pub fn cpu_of_tree(root: u32) -> Duration {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in pids() {
        if let Some((parent, _)) = parent_and_state(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut left, mut ticks) = (vec![root as i32], 0u64);
    while let Some(pid) = left.pop() {
        ticks += cpu_ticks(pid).unwrap_or_default();
        left.extend(children.remove(&pid).unwrap_or_default());
    }
    // The kernel's clock for these, on every Linux that we run on: a hundred ticks a second.
    Duration::from_millis(10 * ticks)
}

/// Returns the time in and for a process, and that of the children that it has waited for.
fn cpu_ticks(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = text.rsplit_once(')')?.1.split_whitespace();
    // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), and the state is the third.
    fields.skip(11).take(4).map(|field| field.parse::<u64>().ok()).sum()
}

/// Returns whether a process is stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    parent_and_state(pid as i32).is_some_and(|(_, state)| state == 'T')
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_and_state(pid: i32) -> Option<(i32, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

fn is_marked(pid: i32, mark: &[u8]) -> bool {
    let holds = |file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(mark.len()).any(|window| window == mark)
    };
    let stands_in = || {
        let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
        cwd.is_ok_and(|cwd| cwd.as_os_str().as_encoded_bytes().starts_with(mark))
    };
    holds("cmdline") || holds("environ") || stands_in()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_time_of_children_counts_while_they_run_and_when_they_were_waited_for() {
        // The child of a child burns time, is waited for, and then one burns while we look.
        let script = "timeout 0.2 sh -c 'while :; do :; done'; sh -c 'while :; do :; done' & wait";
        let child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn();
        let process = Process::new("burning", child.expect("there is a shell"));
        let mut grown = Vec::new();
        while grown.len() < 3 {
            let cpu = cpu_of_tree(process.pid());
            if grown.last().is_none_or(|last| cpu > *last + Duration::from_millis(150)) {
                grown.push(cpu);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for pid in children_of(process.pid()) {
            let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    fn children_of(parent: u32) -> Vec<i32> {
        pids().filter(|pid| parent_and_state(*pid).is_some_and(|(of, _)| of == parent as i32)).collect()
    }
}
