//! Disks of VMs that an ordinary user makes: directories, mounted in the VM and gone from it again while it runs.

use std::path::PathBuf;

use cpi_host::records::file_name;
use cpi_host::{HostError, Scope};
use model::DiskCid;

use crate::cloud::Cloud;
use crate::helper::{Entrance, Errand};
use crate::mounts;
use crate::record::VmRecord;

/// Where disks are in a VM. In memory there: a VM that was started again has none but those that it is given.
const DISKS: &str = "/run/disks";

/// Returns where a VM sees a disk.
pub(crate) fn place(cid: &DiskCid) -> PathBuf {
    PathBuf::from(DISKS).join(file_name(cid.as_str()))
}

/// Returns the directory that is a disk.
pub(crate) fn content(cloud: &Cloud, cid: &DiskCid) -> Result<PathBuf, HostError> {
    crate::disk::existing(cloud, cid).map(|disk| crate::disk::content(cloud, &disk))
}

/// Mounts a disk in a VM and returns where. Idempotent, and nothing to do if the VM is off: it has its disks when it starts.
pub(crate) fn show(cloud: &Cloud, vm: &VmRecord, cid: &DiskCid) -> Result<PathBuf, HostError> {
    let place = place(cid);
    if let Some(mounts) = mounts_of(vm) {
        let dir = content(cloud, cid)?;
        Errand::Show { mounts, dir, place: place.clone() }.run(&cloud.options.helper)?;
    }
    Ok(place)
}

/// Takes a disk out of a VM and waits until nothing there has it mounted. Idempotent.
pub(crate) fn hide(cloud: &Cloud, scope: &Scope, vm: &VmRecord, cid: &DiskCid) -> Result<(), HostError> {
    if let Some(mounts) = mounts_of(vm) {
        Errand::Hide { mounts, place: place(cid) }.run(&cloud.options.helper)?;
    }
    // Its agent has mounted it once more where jobs expect it. Until that is gone, too, the next VM would write beside this one.
    let dir = content(cloud, cid)?;
    let what = format!("VM `{}` to unmount disk `{cid}`", vm.cid);
    scope.wait_for(&what, || Ok((!mounts::is_mounted_anywhere(&dir)?).then_some(())))
}

/// Returns where a VM's mounts can be entered, if it runs.
fn mounts_of(vm: &VmRecord) -> Option<Entrance> {
    let init = vm.processes.map(|processes| processes.init).filter(|init| init.is_alive())?;
    let path = |kind: &str| PathBuf::from(format!("/proc/{}/ns/{kind}", init.pid));
    Some(Entrance { users: path("user"), other: path("mnt") })
}
