//! VMs that are machines: a kernel of their own, by QEMU.
//!
//! ```text
//! stemcells/CID/machine/   initrd, base.img: made from the root file system when the first machine needs them
//! vms/CID/                 own.img (what the machine writes), qmp (QEMU's socket), console.log
//! ```
//! A machine is wired to the same bridge as containers, and its disks are the same files: both kinds of VMs live in one cloud,
//! and disks move between them. Who a machine is it finds in a file that the firmware shows (`fw_cfg`). It has no way to the
//! directors but through its keeper ([`crate::helper`]), which opens connections for it.
//!
//! Read next: [`command`] for what a machine is made of, [`image`] for what it boots.

mod canary;
mod command;
mod image;
mod plug;
mod qmp;

use std::process::Command;

use cpi_api::CpiErrorKind;
use cpi_host::{HostError, Scope};
use serde_json::json;

use crate::LocalOptions;
use crate::cloud::Cloud;
use crate::helper::LaunchSpec;
use crate::limits::Limits;
use crate::record::VmRecord;
use crate::{cgroup, netns};
use qmp::Qmp;

pub(crate) use plug::{plug, unplug};

/// The program.
const PROGRAM: &str = "qemu-system-x86_64";
/// A machine's own disk, below its folder.
const OWN_DISK: &str = "own.img";
/// How large it is if nobody says, in MiB. It takes what is written.
const OWN_DISK_MIB: u64 = 8192;

/// Makes what a new machine has for itself alone.
pub(crate) fn furnish(
    cloud: &Cloud,
    scope: &Scope,
    vm: &VmRecord,
    disk_mib: Option<u64>,
) -> Result<(), HostError> {
    image::prepare(cloud, scope, &vm.stemcell)?;
    let own = cloud.store.vm_dir(&vm.cid).join(OWN_DISK);
    crate::image::create(&own, disk_mib.unwrap_or(OWN_DISK_MIB))
}

/// Makes the network that a machine is wired to and returns how to start it.
pub(crate) fn prepare(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<LaunchSpec, HostError> {
    let boot = image::prepare(cloud, scope, &vm.stemcell)?;
    let accelerator = canary::accelerator(cloud, scope, &boot)?;
    let lab = netns::prepare(cloud, vm, scope)?;
    command::launch_spec(cloud, vm, &boot, accelerator, lab)
}

/// Waits for QEMU, which has just been started and stands still, wires the machine, and lets it run.
pub(crate) fn run(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<(), HostError> {
    let Some(processes) = vm.processes else { return Ok(()) };
    let dir = cloud.store.vm_dir(&vm.cid);
    let mut qmp = scope.wait_for("QEMU to answer", || match Qmp::connect(&dir) {
        Ok(qmp) => Ok(Some(qmp)),
        Err(_) if processes.init.is_alive() => Ok(None),
        Err(_) => {
            let message = format!("QEMU ended at once; see {}", dir.join("console.log").display());
            Err(HostError::refused(CpiErrorKind::VmCreationFailed, message))
        }
    })?;
    netns::plug_in(cloud, &command::cable(cloud, vm), scope)?;
    // Its memory is what it was given; that of QEMU itself is on top, and must not end the machine.
    let limits = Limits { cpu: vm.limits.cpu, ..Limits::default() };
    cgroup::confine(cloud, &VmRecord { limits, ..vm.clone() })?;
    qmp.ask("cont", &json!({})).map(drop)
}

/// Returns whether machines can be made here, and how fast they will be as far as that is known.
pub(super) fn probe(options: &LocalOptions) -> Result<String, String> {
    super::namespaces::probe(options)?;
    let version = version()?;
    Ok(format!("{version}; {}", canary::known(&options.root)))
}

/// Returns what QEMU says of itself.
fn version() -> Result<String, String> {
    let output = Command::new(PROGRAM).arg("--version").output();
    let output = output.map_err(|error| format!("{PROGRAM}: {error} (apt-get install qemu-system-x86)"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().next() {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => Err(format!("{PROGRAM} does not run")),
    }
}
