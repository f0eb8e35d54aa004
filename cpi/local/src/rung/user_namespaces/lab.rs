//! The lab of VMs that an ordinary user makes: a user namespace, and below it the network with the bridge that they are wired to.
//!
//! It needs no process and no record of its own. The first VM's supervisor makes it, those of all others enter it, and each holds
//! it: it lives as long as any of them, also when every replica is gone, and goes with the last one, however that ends. Whoever
//! makes a VM finds it at any VM that lives.
//!
//! Invariant: there is one. Whoever looks for it has the lab's lock until its own VM holds the lab and its record says so.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use cpi_host::{HostError, NamedLock, Scope};

use crate::cloud::Cloud;
use crate::helper::{Entrance, LabSpec};
use crate::process::ProcessId;
use crate::record::VmRecord;
use crate::rung::Rung;

/// The way into the lab. To be kept until the VM's record names its processes.
pub(crate) struct WayIn {
    held: Option<Held>,
    _lock: NamedLock,
}

/// A lab that can't go meanwhile, also if its last VM does.
struct Held {
    users: File,
    network: File,
}

/// Returns the way into the lab, for a VM that is about to be made.
pub(crate) fn way_in(cloud: &Cloud, scope: &Scope) -> Result<WayIn, HostError> {
    let lock = cloud.store.lock("lab.lock", scope)?;
    let vms = cloud.store.vms()?.into_iter().filter(|vm| vm.rung == Rung::UserNamespaces);
    let held = vms.filter_map(|vm| vm.processes).find_map(|processes| Held::by(&processes.supervisor));
    Ok(WayIn { held, _lock: lock })
}

impl WayIn {
    /// Returns what the VM's supervisor is told.
    pub fn spec(&self, vm: &VmRecord) -> LabSpec {
        LabSpec { entrance: self.held.as_ref().map(Held::entrance), links: vm.links.clone() }
    }
}

impl Held {
    /// Holds the lab that a VM's supervisor is in, if it lives.
    fn by(supervisor: &ProcessId) -> Option<Self> {
        let open = |kind: &str| File::open(format!("/proc/{}/ns/{kind}", supervisor.pid)).ok();
        let held = Self { users: open("user")?, network: open("net")? };
        // Only now: the number may have become another process's before we looked.
        supervisor.is_alive().then_some(held)
    }

    /// Returns where a helper of ours can enter it: by what we hold.
    fn entrance(&self) -> Entrance {
        let path =
            |file: &File| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        Entrance { users: path(&self.users), other: path(&self.network) }
    }
}
