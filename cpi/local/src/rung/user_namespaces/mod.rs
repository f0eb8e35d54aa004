//! VMs with namespaces of their own for everything, made by an ordinary user: all of them below one user namespace.
//!
//! Inside, root is the user, and the other ids are the user's range ([`crate::ids`]). What takes the host's root is missing:
//! limits, a way out, loop devices. So a disk is a directory that is mounted in the VM, and nothing holds it to its size.
//!
//! Read next: [`lab`] for what VMs have in common, [`host_files`] for VMs on the host's own files, `helper::shepherd`.

pub(crate) mod disk;
mod host_files;
mod lab;

use cpi_host::{HostError, Scope};

use crate::LocalOptions;
use crate::cloud::Cloud;
use crate::helper::{InsideSpec, Realm};
use crate::ids::Mapping;
use crate::limits::Limits;
use crate::record::{StemcellKind, VmRecord};
pub(crate) use lab::way_in;

/// Makes what a new VM needs of its stemcell.
pub(crate) fn furnish(cloud: &Cloud, scope: &Scope, vm: &VmRecord) -> Result<(), HostError> {
    if vm.limits != Limits::default() {
        tracing::warn!(vm = %vm.cid, "limits can't be enforced without root");
    }
    match cloud.store.stemcell(&vm.stemcell)?.map(|stemcell| stemcell.kind) {
        Some(StemcellKind::Host) => host_files::prepare(cloud, scope, &vm.stemcell),
        _ => Ok(()),
    }
}

/// Returns what surrounds the agent in such a VM, from what does where there is root.
pub(super) fn inside(cloud: &Cloud, vm: &VmRecord, spec: InsideSpec) -> Result<InsideSpec, HostError> {
    let mut spec = InsideSpec { realm: Realm::UserNamespace, ..spec };
    if cloud.store.stemcell(&vm.stemcell)?.is_some_and(|stemcell| stemcell.kind == StemcellKind::Host) {
        spec.lower = host_files::skeleton(cloud, &vm.stemcell);
        spec.shared = host_files::shared();
        spec.hidden.extend(host_files::emptied());
    }
    // Before its agent starts, which is told of them.
    for disk in crate::disk::attached(cloud, vm)? {
        spec.binds.push((crate::disk::content(cloud, &disk), disk::place(&disk.cid)));
    }
    Ok(spec)
}

/// Makes a process with a user namespace and a root of its own below `options.root`, once.
pub(super) fn probe(options: &LocalOptions) -> Result<String, String> {
    let mapping = Mapping::of_own_user()?;
    super::made_once(options, "probe-realm")?;
    Ok(format!(
        "made a process below a user namespace, with {}, an overlay root and a network cable of its own; without limits, sizes of \
         disks or a way out",
        mapping.described()
    ))
}
