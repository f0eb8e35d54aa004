//! BOSH's vitals, from `/proc` and, where the VM has one, its control group.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::layout::Layout;
use crate::platform::Platform;
use crate::proc;

/// Shares of the processor's time, which need two looks.
#[derive(Default)]
pub struct Vitals {
    last: Mutex<Option<CpuTimes>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct CpuTimes {
    user: f64,
    sys: f64,
    wait: f64,
    total: f64,
}

impl Vitals {
    /// Returns the vitals now.
    pub fn now(&self, layout: &Layout, platform: &dyn Platform) -> Value {
        let memory = Memory::now();
        json!({
            "cpu": self.cpu(),
            "mem": { "kb": memory.used_kib().to_string(), "percent": memory.percent().to_string() },
            "swap": { "kb": memory.swap_used_kib.to_string(), "percent": share(memory.swap_used_kib, memory.swap_total_kib).to_string() },
            "load": load(),
            "uptime": { "secs": proc::uptime_seconds() as u64 },
            "disk": disks(layout, platform),
        })
    }

    fn cpu(&self) -> Value {
        let now =
            CpuTimes::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or_default();
        let before =
            self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(now).unwrap_or_default();
        let total = now.total - before.total;
        let percent = |now: f64, before: f64| {
            let share = if total > 0.0 { (now - before).max(0.0) / total * 100.0 } else { 0.0 };
            format!("{share:.1}")
        };
        json!({
            "user": percent(now.user, before.user),
            "sys": percent(now.sys, before.sys),
            "wait": percent(now.wait, before.wait),
        })
    }
}

impl CpuTimes {
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let times: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let at = |place: usize| times.get(place).copied().unwrap_or_default();
        // The fields after the eighth repeat time that is already in the first two.
        let total = times.iter().take(8).sum();
        Some(Self { user: at(0) + at(1), sys: at(2) + at(5) + at(6), wait: at(4), total })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    total_kib: u64,
    free_kib: u64,
    swap_total_kib: u64,
    swap_used_kib: u64,
}

impl Memory {
    fn now() -> Self {
        let machine = Self::parse(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
        // The VM's own limit, where a control group sets one: version 2, then 1.
        let group = |limit: &str, used: &str| {
            let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
            Some((read(limit)? / 1024, read(used)? / 1024))
        };
        let limited = group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current").or_else(|| {
            group(
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes",
            )
        });
        match limited {
            Some((total_kib, used_kib)) if total_kib < machine.total_kib => {
                Self { total_kib, free_kib: total_kib.saturating_sub(used_kib), ..machine }
            }
            _ => machine,
        }
    }

    fn parse(meminfo: &str) -> Self {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0u64)
        };
        Self {
            total_kib: field("MemTotal"),
            free_kib: field("MemAvailable"),
            swap_total_kib: field("SwapTotal"),
            swap_used_kib: field("SwapTotal").saturating_sub(field("SwapFree")),
        }
    }

    fn used_kib(&self) -> u64 {
        self.total_kib.saturating_sub(self.free_kib)
    }

    fn percent(&self) -> u64 {
        share(self.used_kib(), self.total_kib)
    }
}

/// Returns how much of the memory so many KiB are, in percent.
pub(crate) fn percent_of_memory(kib: u64) -> f64 {
    match Memory::now().total_kib {
        0 => 0.0,
        total => (kib as f64 / total as f64 * 1000.0).round() / 10.0,
    }
}

fn share(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or_default()
}

fn load() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).map(str::to_owned).collect()
}

/// `system` always; the others only where something is mounted there, as BOSH's agent does.
fn disks(layout: &Layout, platform: &dyn Platform) -> Value {
    let mut disks = Map::new();
    let mut add = |name: &str, path: &Path| {
        if let Some(usage) = usage(path) {
            disks.insert(name.to_owned(), usage);
        }
    };
    add("system", Path::new("/"));
    for (name, path) in [("ephemeral", layout.data()), ("persistent", layout.store())] {
        if platform.is_mounted(&path) {
            add(name, &path);
        }
    }
    Value::Object(disks)
}

fn usage(path: &Path) -> Option<Value> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let used = stat.blocks().saturating_sub(stat.blocks_free());
    let inodes_used = stat.files().saturating_sub(stat.files_free());
    Some(json!({
        // What only root may use counts as used, as `df` sees it.
        "percent": share(used, used + stat.blocks_available()).to_string(),
        "inode_percent": share(inodes_used, stat.files()).to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::process::ProcessPlatform;

    #[test]
    fn numbers_are_texts_as_bosh_has_them() {
        let vitals = Vitals::default().now(&Layout::new("/nowhere"), &ProcessPlatform);
        for path in ["/cpu/user", "/cpu/wait", "/mem/kb", "/mem/percent", "/swap/kb", "/disk/system/percent"]
        {
            let text =
                vitals.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} in {vitals}"));
            assert!(text.parse::<f64>().is_ok(), "{path}: {text}");
        }
        assert_eq!(vitals["load"].as_array().unwrap().len(), 3);
        assert!(vitals.pointer("/disk/persistent").is_none());
    }

    #[test]
    fn memory_and_times_are_read() {
        let memory =
            Memory::parse("MemTotal: 1000 kB\nMemAvailable: 250 kB\nSwapTotal: 8 kB\nSwapFree: 6 kB\n");
        assert_eq!((memory.used_kib(), memory.percent(), memory.swap_used_kib), (750, 75, 2));
        let times = CpuTimes::parse("cpu  10 5 20 60 3 1 1 0 7 0\ncpu0 1 1 1\n").unwrap();
        assert_eq!(times, CpuTimes { user: 15.0, sys: 22.0, wait: 3.0, total: 100.0 });
    }
}
