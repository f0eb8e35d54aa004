//! VMs with namespaces of their own for everything, made by an ordinary user: all of them below one user namespace.
//!
//! Inside, root is the user, and the other ids are the user's range ([`crate::ids`]). What takes the host's root is missing:
//! limits, a way out, loop devices. So a disk is a directory that is mounted in the VM, and nothing holds it to its size.
//!
//! Read next: [`lab`] for what VMs have in common, [`host_files`] for VMs on the host's own files, `helper::shepherd`.

pub(crate) mod disk;
mod host_files;
mod lab;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cpi_host::{HostError, Scope};

use crate::cloud::Cloud;
use crate::helper::{AGENT_INSIDE, InsideSpec, Realm};
use crate::ids::Mapping;
use crate::limits::Limits;
use crate::record::{StemcellKind, VmRecord};
use crate::store::Store;
use crate::{LocalOptions, OpenError};
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
    for (host, inside) in &mut spec.binds {
        if inside == Path::new(AGENT_INSIDE) {
            *host = own_agent(cloud, vm)?;
        }
    }
    // Before its agent starts, which is told of them.
    for disk in crate::disk::attached(cloud, vm)? {
        spec.binds.push((crate::disk::content(cloud, &disk), disk::place(&disk.cid)));
    }
    Ok(spec)
}

/// Copies the agent's program for a VM that does not run. The program itself is the user's, and root in the VM is the user: no
/// mount keeps it from being written to.
fn own_agent(cloud: &Cloud, vm: &VmRecord) -> Result<PathBuf, HostError> {
    let (program, copy) = (&cloud.options.dagent, cloud.store.vm_dir(&vm.cid).join("dagent"));
    match fs::remove_file(&copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HostError::os("remove", &copy)(error)),
        _ => {
            fs::copy(program, &copy).map(|_| copy).map_err(HostError::os("copy the agent's program", program))
        }
    }
}

/// Errs if VMs on the host's files would see what is to be hidden from them.
pub(crate) fn check_hidden(store: &Store, options: &LocalOptions) -> Result<(), OpenError> {
    let hidden = options.hidden.iter().map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.clone()));
    let shared = host_files::shared();
    match hidden.chain([store.root().to_owned()]).find_map(|dir| host_files::shared_with(&shared, &dir)) {
        Some((dir, shared)) => Err(OpenError::Shared { dir, shared }),
        None => Ok(()),
    }
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
