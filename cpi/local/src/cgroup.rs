//! Limits of a VM, by whatever control groups the machine has: version 1, version 2, a mixture, or none.

use std::fs;
use std::path::{Path, PathBuf};

use cpi_host::records::file_name;
use cpi_host::{HostError, Scope};

use crate::cloud::Cloud;
use crate::limits::Limits;
use crate::record::VmRecord;

/// The group that holds all of ours.
const PARENT: &str = "directorate";
/// The period over which processor time is counted, in microseconds: the kernel's default.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchy {
    V1 { controllers: Vec<String>, mount: PathBuf },
    V2 { mount: PathBuf },
}

/// One bound, in the words of one hierarchy.
struct Bound {
    group: PathBuf,
    file: &'static str,
    value: String,
}

/// Puts a VM's first process, which waits, under its limits.
///
/// A limit that this machine can't enforce is left out with a warning: a VM without it beats no VM.
pub(crate) fn confine(cloud: &Cloud, vm: &VmRecord) -> Result<(), HostError> {
    let Some(processes) = vm.processes else { return Ok(()) };
    let hierarchies = hierarchies();
    for (controller, value) in wanted(&vm.limits) {
        let bound = hierarchies.iter().find_map(|h| h.bound(controller, value, &group_name(cloud, vm)));
        let applied = bound.as_ref().ok_or("no such controller".to_owned()).and_then(|bound| {
            fs::create_dir_all(&bound.group)
                .and_then(|()| fs::write(bound.group.join(bound.file), &bound.value))
                .and_then(|()| fs::write(bound.group.join("cgroup.procs"), processes.init.pid.to_string()))
                .map_err(|error| error.to_string())
        });
        if let Err(error) = applied {
            tracing::warn!(vm = %vm.cid, controller, error, "a limit can't be enforced here");
        }
    }
    Ok(())
}

/// Removes a VM's groups once its processes are gone. Idempotent.
pub(crate) fn release(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<(), HostError> {
    let name = group_name(cloud, vm);
    for hierarchy in hierarchies() {
        let group = hierarchy.mount().join(PARENT).join(&name);
        scope.wait_for(&format!("the processes in {}", group.display()), || {
            match fs::remove_dir(&group) {
                Ok(()) => Ok(Some(())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(())),
                // The last ones are still on their way out.
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(None),
                Err(error) => Err(HostError::os("remove", &group)(error)),
            }
        })?;
    }
    Ok(())
}

fn wanted(limits: &Limits) -> Vec<(&'static str, u64)> {
    let cpu_micros = limits.cpu.map(|cpu| (cpu * CPU_PERIOD_MICROS as f64) as u64);
    let memory_bytes = limits.memory_mib.map(|mib| mib * 1024 * 1024);
    [("cpu", cpu_micros), ("memory", memory_bytes), ("pids", limits.pids)]
        .into_iter()
        .filter_map(|(controller, value)| Some((controller, value?)))
        .collect()
}

fn group_name(cloud: &Cloud, vm: &VmRecord) -> String {
    // Several clouds on one machine may have VMs of the same name; a path would make the name too long.
    let root = crate::process::fnv(cloud.store.root().as_os_str().as_encoded_bytes());
    format!("{root:016x}-{}", file_name(vm.cid.as_str()))
}

impl Hierarchy {
    fn mount(&self) -> &Path {
        match self {
            Self::V1 { mount, .. } | Self::V2 { mount } => mount,
        }
    }

    /// Returns how this hierarchy bounds `controller`, if it does.
    fn bound(&self, controller: &str, value: u64, name: &str) -> Option<Bound> {
        let group = self.mount().join(PARENT).join(name);
        let bound = |file, value| Some(Bound { group, file, value });
        match (self, controller) {
            (Self::V1 { controllers, .. }, _) if !controllers.iter().any(|c| c == controller) => None,
            // The period is 100 ms unless somebody has changed it for the whole machine.
            (Self::V1 { .. }, "cpu") => bound("cpu.cfs_quota_us", value.to_string()),
            (Self::V1 { .. }, "memory") => bound("memory.limit_in_bytes", value.to_string()),
            (Self::V2 { mount }, _) if !hands_down(mount, controller) => None,
            (Self::V2 { .. }, "cpu") => bound("cpu.max", format!("{value} {CPU_PERIOD_MICROS}")),
            (Self::V2 { .. }, "memory") => bound("memory.max", value.to_string()),
            (_, "pids") => bound("pids.max", value.to_string()),
            _ => None,
        }
    }
}

/// Makes a version 2 hierarchy hand `controller` down to our groups; returns whether it does.
fn hands_down(mount: &Path, controller: &str) -> bool {
    let parent = mount.join(PARENT);
    let enable = |dir: &Path| fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    enable(mount).and_then(|()| fs::create_dir_all(&parent)).and_then(|()| enable(&parent)).is_ok()
}

fn hierarchies() -> Vec<Hierarchy> {
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let Some(mount) = place.split(' ').nth(4).map(PathBuf::from) else { continue };
        let kind: Vec<&str> = kind.split(' ').collect();
        match kind.as_slice() {
            ["cgroup2", ..] => found.push(Hierarchy::V2 { mount }),
            ["cgroup", _, options, ..] => {
                let controllers = options.split(',').map(str::to_owned).collect();
                found.push(Hierarchy::V1 { controllers, mount });
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_versions_beside_each_other() {
        let text = "31 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    32 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    33 25 0:28 / /proc rw - proc proc rw\n";
        let found = parse(text);
        assert_eq!(found.len(), 2, "{found:?}");
        let bound = found[0].bound("cpu", 50_000, "vm").unwrap();
        assert_eq!(bound.group, Path::new("/sys/fs/cgroup/cpu,cpuacct/directorate/vm"));
        assert_eq!((bound.file, bound.value.as_str()), ("cpu.cfs_quota_us", "50000"));
        assert!(found[0].bound("memory", 1, "vm").is_none(), "another hierarchy has that one");
    }
}
