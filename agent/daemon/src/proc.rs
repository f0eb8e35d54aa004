//! What `/proc` says of a process.

use std::collections::BTreeMap;
use std::fs;

/// The fields of `/proc/<pid>/stat` that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: u32,
    /// Clock ticks since the machine started, when the process did: with the id, it names a process for good.
    pub(crate) started_ticks: u64,
}

impl Stat {
    /// Reads it; `None` if there is no such process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The command's name is in parentheses and may hold anything, parentheses too.
        let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let started_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, started_ticks })
    }

    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Returns how long the process has run, in seconds.
    pub(crate) fn age_seconds(&self) -> f64 {
        // `USER_HZ` has been 100 on every Linux since 2.6.
        (uptime_seconds() - self.started_ticks as f64 / 100.0).max(0.0)
    }
}

/// Returns how long the machine has run.
pub(crate) fn uptime_seconds() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Returns the resident memory of a process in KiB.
pub(crate) fn memory_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

/// Returns a process and all its descendants.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<u32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(stat) = Stat::of(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let (mut tree, mut next) = (vec![root], 0);
    while let Some(pid) = tree.get(next).copied() {
        next += 1;
        tree.extend(u32::try_from(pid).ok().and_then(|pid| children.remove(&pid)).into_iter().flatten());
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let text = "42 (a) R 7 (b) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { state: b'S', parent: 1, started_ticks: 12345 });
    }

    #[test]
    fn we_are_a_living_process_with_memory() {
        let me = std::process::id() as i32;
        assert!(!Stat::of(me).unwrap().is_zombie());
        assert!(memory_kib(me) > 0);
        assert!(tree(me).contains(&me));
    }
}
