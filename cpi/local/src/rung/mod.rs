//! The isolation ladder: how much of a VM this machine lets us make.

mod namespaces;
mod process;
pub(crate) mod qemu;
pub(crate) mod user_namespaces;

use std::fmt;
use std::fs;
use std::process::{Command, Stdio};

use cpi_host::{HostError, Scope};
use serde::{Deserialize, Serialize};

use crate::LocalOptions;
use crate::cloud::Cloud;
use crate::helper::InsideSpec;
use crate::record::VmRecord;
use crate::store::Store;
pub(crate) use namespaces::{hide_device, show_device};

/// A way to isolate VMs, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Namespaces of its own for everything, made by root: own root, own network, limits.
    Namespaces,
    /// The same below a user namespace, without root: no limits.
    UserNamespaces,
    /// A supervised process tree in an own base directory.
    Process,
    /// A machine with a kernel of its own, by QEMU. Not on the ladder: only whoever asks for it gets it.
    Qemu,
}

impl Rung {
    /// Returns the name that options and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::UserNamespaces => "user-namespaces",
            Self::Process => "process",
            Self::Qemu => "qemu",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which rung to stand on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// The best one that a probe finds.
    #[default]
    Auto,
    /// This one, or nothing.
    Exactly(Rung),
}

/// What a probe found about a rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RungReport {
    /// The rung.
    pub rung: Rung,
    /// Whether VMs can be made on it here.
    pub ok: bool,
    /// What was tried, or what failed.
    pub why: String,
}

/// Tries each way once in a scratch directory below `options.root`; never asks for names of capabilities. Takes some
/// milliseconds, and blocks.
pub fn probe(options: &LocalOptions) -> Vec<RungReport> {
    // If it can't be made, each rung says so in its own report.
    let _ = std::fs::create_dir_all(&options.root);
    Rung::ALL.iter().map(|rung| rung.try_once(options)).collect()
}

impl Isolation {
    /// Returns the rung that this stands on where a probe has found `reports`, or would if it worked.
    pub fn stands_on(self, reports: &[RungReport]) -> Option<Rung> {
        let works = |rung: &Rung| reports.iter().any(|report| report.rung == *rung && report.ok);
        match self {
            Self::Exactly(rung) => Some(rung),
            Self::Auto => Rung::BEST_FIRST.into_iter().find(works).or(Rung::BEST_FIRST.first().copied()),
        }
    }
}

impl Rung {
    /// Every way to make a VM.
    pub const ALL: [Self; 4] = [Self::Namespaces, Self::UserNamespaces, Self::Process, Self::Qemu];

    /// The ladder, from the top: what is tried where nobody chooses.
    pub const BEST_FIRST: [Self; 3] = [Self::Namespaces, Self::UserNamespaces, Self::Process];

    /// Tries this rung once.
    pub(crate) fn try_once(self, options: &LocalOptions) -> RungReport {
        let outcome = match self {
            Self::Namespaces => namespaces::probe(options),
            Self::Process => process::probe(&options.root),
            Self::Qemu => qemu::probe(options),
            Self::UserNamespaces => user_namespaces::probe(options),
        };
        RungReport { rung: self, ok: outcome.is_ok(), why: outcome.unwrap_or_else(|why| why) }
    }
}

/// Gives a VM that waits for `go` its network and limits.
pub(crate) fn equip(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<(), HostError> {
    match vm.rung {
        // Its supervisor has wired it: nobody else could.
        Rung::UserNamespaces => Ok(()),
        _ => namespaces::equip(cloud, vm, scope),
    }
}

/// Takes back what [`equip`] gave, once the VM's processes are gone. Idempotent.
pub(crate) fn unequip(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<(), HostError> {
    match vm.rung {
        // What it had has gone with its processes.
        Rung::UserNamespaces => Ok(()),
        _ => namespaces::unequip(cloud, vm, scope),
    }
}

/// Returns what surrounds the agent in a VM with a root of its own.
pub(crate) fn inside(cloud: &Cloud, vm: &VmRecord) -> Result<InsideSpec, HostError> {
    let spec = namespaces::inside(cloud, vm)?;
    match vm.rung {
        Rung::UserNamespaces => user_namespaces::inside(cloud, vm, spec),
        _ => Ok(spec),
    }
}

/// Has a helper make once, in a scratch directory, what a VM takes. `role` says how.
fn made_once(options: &LocalOptions, role: &str) -> Result<(), String> {
    // Where it is removed later, should we be killed.
    let trash = Store::trash(&options.root);
    let scratch = fs::create_dir_all(&trash).and_then(|()| {
        let prefix = format!("{}-probe", std::process::id());
        tempfile::Builder::new().prefix(&prefix).tempdir_in(&trash)
    });
    let scratch = scratch.map_err(|error| format!("{}: {error}", trash.display()))?;
    let [program, first_args @ ..] = options.helper.as_slice() else {
        return Err("no helper program".into());
    };
    let output = Command::new(program)
        .args(first_args)
        .arg(role)
        .arg(scratch.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.to_string_lossy()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().last() {
        Some("ready") if output.status.success() => Ok(()),
        Some(line) => Err(line.trim_start_matches("failed: ").to_owned()),
        None => Err(format!("the helper ended with {}", output.status)),
    }
}
