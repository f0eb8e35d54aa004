//! The isolation ladder: how much of a VM this machine lets us make.

mod process;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cloud::Cloud;
use crate::error::LocalError;
use crate::helper::InsideSpec;
use crate::record::VmRecord;
use crate::scope::Scope;

/// A way to isolate VMs, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Namespaces of its own for everything, made by root: own root, own network, limits.
    Namespaces,
    /// The same inside a user namespace, without root.
    UserNamespaces,
    /// An own root directory only.
    Chroot,
    /// A supervised process tree in an own base directory.
    Process,
}

impl Rung {
    /// Returns the name that options and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::UserNamespaces => "user-namespaces",
            Self::Chroot => "chroot",
            Self::Process => "process",
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

/// Tries each rung once in a scratch directory below `root`, best first; never asks for names of capabilities.
pub fn probe(root: &Path) -> Vec<RungReport> {
    let report = |rung, outcome: Result<String, String>| {
        let ok = outcome.is_ok();
        RungReport { rung, ok, why: outcome.unwrap_or_else(|why| why) }
    };
    let missing = || Err("this version of Directorate does not make VMs this way yet".to_owned());
    vec![
        report(Rung::Namespaces, missing()),
        report(Rung::UserNamespaces, missing()),
        report(Rung::Chroot, missing()),
        report(Rung::Process, process::probe(root)),
    ]
}

/// Gives a VM that waits for `go` its network and limits.
pub(crate) fn equip(_: &Cloud, vm: &VmRecord, _: &Scope) -> Result<(), LocalError> {
    Err(unmade(vm))
}

/// Takes back what [`equip`] gave, once the VM's processes are gone. Idempotent.
pub(crate) fn unequip(_: &Cloud, vm: &VmRecord, _: &Scope) -> Result<(), LocalError> {
    Err(unmade(vm))
}

/// Returns what runs inside a VM that has an inside: the agent's program, its base directory, and the surroundings.
pub(crate) fn inside(cloud: &Cloud, vm: &VmRecord) -> (PathBuf, PathBuf, Option<InsideSpec>) {
    (cloud.options.dagent.clone(), crate::vm::base_dir(cloud, vm), None)
}

/// Puts a loop device into a VM's sight and returns its path there.
pub(crate) fn show_device(vm: &VmRecord, _name: &str, _number: u32) -> Result<String, LocalError> {
    Err(unmade(vm))
}

/// Takes a device out of a VM's sight. Idempotent.
pub(crate) fn hide_device(vm: &VmRecord, _name: &str) -> Result<(), LocalError> {
    Err(unmade(vm))
}

fn unmade(vm: &VmRecord) -> LocalError {
    LocalError::refused(cpi_api::CpiErrorKind::NotSupported, format!("rung `{}` is not made yet", vm.rung))
}
