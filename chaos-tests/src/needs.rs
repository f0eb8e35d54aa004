//! What a story needs of the machine, and saying so where it is missing.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cpi_local::{Isolation, LocalCpi, LocalOptions, Rung};

use crate::{lab, programs};

/// A program that not every machine has.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Renders templates; a replica does not start without it.
    Ruby,
    /// Compiles the example release.
    Gcc,
    /// Builds what packages are made of.
    Make,
    /// Redis, under the one of its names that comes without a server that starts by itself.
    Redis,
    /// What asks it.
    RedisCli,
    /// Runs machines.
    Qemu,
    /// Makes CDs.
    Genisoimage,
    /// Judges units.
    SystemdAnalyze,
    /// The yardstick of the measurements.
    Etcd,
    /// What operators log in with.
    Ssh,
    /// What they log in to, in VMs on the host's own files.
    Sshd,
    /// What they become root with there.
    Sudo,
    /// Enters a VM.
    Nsenter,
    /// The bus of BOSH's agents.
    Nats,
    /// Makes a Debian stemcell.
    Mmdebstrap,
}

impl Need {
    fn program(self) -> &'static str {
        match self {
            Self::Ruby => "ruby",
            Self::Gcc => "gcc",
            Self::Make => "make",
            Self::Redis => "redis-check-rdb",
            Self::RedisCli => "redis-cli",
            Self::Qemu => "qemu-system-x86_64",
            Self::Genisoimage => "genisoimage",
            Self::SystemdAnalyze => "systemd-analyze",
            Self::Etcd => "etcd",
            Self::Ssh => "ssh",
            Self::Sshd => "sshd",
            Self::Sudo => "sudo",
            Self::Nsenter => "nsenter",
            Self::Nats => "nats-server",
            Self::Mmdebstrap => "mmdebstrap",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Redis | Self::RedisCli => "redis-tools",
            Self::Qemu => "qemu-system-x86",
            Self::SystemdAnalyze => "systemd",
            Self::Etcd => "etcd-server",
            Self::Ssh => "openssh-client",
            Self::Sshd => "openssh-server",
            Self::Nsenter => "util-linux",
            other => other.program(),
        }
    }

    /// Returns whether the program is on the search path.
    pub fn is_met(self) -> bool {
        self.path().is_ok()
    }

    /// Returns where the program is.
    pub fn path(self) -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // What only root runs is not on everybody's path.
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let found = folders.map(|folder| folder.join(self.program())).find(|program| program.is_file());
        let (program, package) = (self.program(), self.package());
        found.with_context(|| format!("there is no `{program}` here (apt-get install {package})"))
    }
}

/// Returns whether all needs are met; prints which one is not, and that the story is skipped.
pub fn met(needs: &[Need]) -> bool {
    match needs.iter().find_map(|need| need.path().err()) {
        Some(missing) => {
            eprintln!("skipped: {missing}");
            false
        }
        None => true,
    }
}

/// Returns whether a fleet can have a Docker daemon of its own here; prints why not, and that the story is skipped.
pub fn docker() -> bool {
    match lab::missing().or_else(cpi_docker::own_daemon::missing) {
        None => true,
        Some(why) => {
            eprintln!("skipped: {why}");
            false
        }
    }
}

/// Returns whether VMs can have namespaces of their own here; prints why not, and that the story is skipped.
pub fn namespaces() -> bool {
    rung(Rung::Namespaces)
}

/// Returns whether VMs can have namespaces of their own here without root; prints why not, and that the story is skipped.
pub fn user_namespaces() -> bool {
    rung(Rung::UserNamespaces)
}

/// Returns whether VMs can be machines of their own here; prints why not, and that the story is skipped.
pub fn machines() -> bool {
    rung(Rung::Qemu)
}

fn rung(rung: Rung) -> bool {
    let probe = || {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let options = LocalOptions {
            helper: vec![programs::directord().into(), "local-vm".into()],
            isolation: Isolation::Exactly(rung),
            ..LocalOptions::new(folder.path().join("cloud"), programs::dagent())
        };
        LocalCpi::open(options).map(drop).map_err(|error| error.to_string())
    };
    match probe() {
        Ok(()) => true,
        Err(why) => {
            eprintln!("skipped: {why}");
            false
        }
    }
}
