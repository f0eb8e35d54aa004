//! The isolation ladder: how much of a VM this machine lets us make.

mod namespaces;
mod process;
pub(crate) mod qemu;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::LocalOptions;
pub(crate) use namespaces::{equip, hide_device, inside, show_device, unequip};

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
    /// A machine with a kernel of its own, by QEMU. Not on the ladder: only whoever asks for it gets it.
    Qemu,
}

impl Rung {
    /// Returns the name that options and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::UserNamespaces => "user-namespaces",
            Self::Chroot => "chroot",
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
    pub const ALL: [Self; 5] =
        [Self::Namespaces, Self::UserNamespaces, Self::Chroot, Self::Process, Self::Qemu];

    /// The ladder, from the top: what is tried where nobody chooses.
    pub const BEST_FIRST: [Self; 4] = [Self::Namespaces, Self::UserNamespaces, Self::Chroot, Self::Process];

    /// Tries this rung once.
    pub(crate) fn try_once(self, options: &LocalOptions) -> RungReport {
        let outcome = match self {
            Self::Namespaces => namespaces::probe(&options.root, options),
            Self::Process => process::probe(&options.root),
            Self::Qemu => qemu::probe(&options.root, options),
            Self::UserNamespaces | Self::Chroot => Err("this version can't make VMs this way".to_owned()),
        };
        RungReport { rung: self, ok: outcome.is_ok(), why: outcome.unwrap_or_else(|why| why) }
    }
}
