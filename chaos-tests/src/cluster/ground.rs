//! What a fleet stands on: how many, over which cloud, on what machines and in what network.

use anyhow::Result;
use cpi_sim::Knobs;
use tempfile::TempDir;

use crate::lab::Lab;

/// Where VMs come from.
#[derive(Clone, Debug)]
pub enum CloudKind {
    /// The local cloud on its lowest rung, which works for everybody.
    Process,
    /// The local cloud with namespaces for its VMs. Needs root, see [`crate::needs::namespaces`].
    Namespaces,
    /// The same without root, for a user with a range of ids. See [`crate::needs::user_namespaces`].
    UserNamespaces,
    /// A Docker daemon of the fleet's own, in the laboratory that the fleet has to be in: VMs reach replicas through its
    /// network. See [`crate::needs::docker`].
    Docker,
    /// The local cloud with machines of their own by QEMU, never with KVM. Needs root, see [`crate::needs::machines`].
    Qemu,
    /// The simulated one.
    Sim {
        /// The source of its chance.
        seed: u64,
        /// What may happen there.
        knobs: Knobs,
    },
    /// The simulated one behind an executable, which writes down what it is asked, and what its agents are asked, too.
    Program {
        /// The source of its chance.
        seed: u64,
        /// What may happen there.
        knobs: Knobs,
        /// More options of `sim-cpi`.
        options: &'static str,
    },
}

/// Said before a fleet starts; see [`super::Cluster::start_on`].
pub struct Ground {
    /// How many replicas.
    pub size: usize,
    /// Where VMs come from.
    pub cloud: CloudKind,
    /// What the fleet is called, if it matters.
    pub fleet: Option<&'static str>,
    /// Beside each replica runs a NATS server, for VMs with BOSH's agent. See [`crate::needs::Need::Nats`].
    pub has_bus: bool,
    /// What every configuration has beside the usual.
    pub extra: String,
    /// Replicas are as patient with each other as on slow disks.
    pub is_patient: bool,
    /// Clocks and disks of replicas can be told to go wrong, see [`crate::machine::Machine`]. Needs a C compiler.
    pub can_go_wrong: bool,
    /// The replica whose data is on a disk of its own, of so many MiB. Needs root.
    pub small_disk: Option<(usize, u32)>,
    /// The network, if it is not the host's loopback.
    pub lab: Option<Lab>,
    /// Where everything lies, if it is to be a certain disk.
    pub folder: Option<TempDir>,
}

impl Ground {
    /// Returns sound ground on loopback.
    pub fn new(size: usize, cloud: CloudKind) -> Self {
        Self {
            size,
            cloud,
            fleet: None,
            has_bus: false,
            extra: String::new(),
            is_patient: false,
            can_go_wrong: false,
            small_disk: None,
            lab: None,
            folder: None,
        }
    }

    pub(super) fn take_folder(&mut self) -> Result<TempDir> {
        match self.folder.take() {
            Some(folder) => Ok(folder),
            None => Ok(tempfile::Builder::new().prefix("directorate-chaos-").tempdir()?),
        }
    }
}
