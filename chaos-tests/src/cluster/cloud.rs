//! The cloud of a fleet, while it runs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cpi_docker::own_daemon::{Network, OwnDaemon};

use super::CloudKind;
use crate::lab;
use crate::programs;
use crate::sim::SimCloud;
use crate::sim_cpi::InstalledCpi;

pub(super) enum Cloud {
    Local { root: PathBuf, isolation: &'static str },
    Docker { daemon: OwnDaemon, root: PathBuf },
    Sim(SimCloud),
    Program(SimCloud, InstalledCpi),
}

impl Cloud {
    pub fn start(kind: &CloudKind, folder: &Path) -> Result<Self> {
        let local = |isolation| Self::Local { root: folder.join("cloud"), isolation };
        Ok(match kind {
            CloudKind::Process => local("process"),
            CloudKind::Namespaces => local("namespaces"),
            CloudKind::UserNamespaces => local("user-namespaces"),
            CloudKind::Docker => {
                let daemon = OwnDaemon::start(&folder.join("docker"), Network::Here)?;
                lab::let_pass_beside_docker()?;
                Self::Docker { daemon, root: folder.join("cloud") }
            }
            CloudKind::Qemu => local("qemu"),
            CloudKind::Sim { seed, knobs } => Self::Sim(SimCloud::start(folder, *seed, knobs, None)?),
            CloudKind::Program { seed, knobs, options } => {
                let installed = folder.join("cpi");
                std::fs::create_dir_all(&installed)?;
                // Where the executable writes its own: one order for all.
                let calls = installed.join("calls.jsonl");
                let sim = SimCloud::start(folder, *seed, knobs, Some(&calls))?;
                let cpi = InstalledCpi::install(installed, sim.socket(), options)?;
                Self::Program(sim, cpi)
            }
        })
    }

    /// Returns what a configuration says of it.
    pub fn config_text(&self) -> String {
        match self {
            Self::Local { root, isolation } => format!(
                "kind = \"local\"\n[cpi.local]\nroot = \"{}\"\nisolation = \"{isolation}\"\nkvm = false\nagent = \"{}\"",
                root.display(),
                programs::dagent().display()
            ),
            Self::Docker { daemon, root } => format!(
                "kind = \"docker\"\n[cpi.docker]\nsocket = \"{}\"\nroot = \"{}\"\nagent = \"{}\"",
                daemon.socket().display(),
                root.display(),
                programs::dagent().display()
            ),
            Self::Sim(sim) => format!("kind = \"sim\"\n[cpi.sim]\nsocket = \"{}\"", sim.socket().display()),
            Self::Program(_, cpi) => {
                format!("kind = \"external\"\n[cpi.external]\nprogram = \"{}\"", cpi.program().display())
            }
        }
    }

    pub fn sim(&self) -> Option<&SimCloud> {
        match self {
            Self::Local { .. } | Self::Docker { .. } => None,
            Self::Sim(sim) | Self::Program(sim, _) => Some(sim),
        }
    }
}
