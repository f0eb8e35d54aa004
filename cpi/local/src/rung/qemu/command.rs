//! What a machine is made of, as QEMU's arguments.

use std::net::IpAddr;
use std::path::PathBuf;

use cpi_api::CpiErrorKind;
use cpi_host::HostError;
use serde_json::json;

use super::canary::Accelerator;
use super::image::BootFiles;
use super::{OWN_DISK, PROGRAM, qmp};
use crate::cloud::Cloud;
use crate::helper::{LaunchSpec, MachineSpec};
use crate::network::hardware_address;
use crate::process::fnv;
use crate::record::VmRecord;

/// Memory of a machine if nobody says, in MiB.
const MEMORY_MIB: u64 = 512;
/// Disks that a machine can have at once, beside its own.
pub(super) const SLOTS: usize = 8;
/// What the firmware shows a machine: its settings, as a file in the VM's folder.
const SETTINGS: &str = "name=opt/bosh/settings.json,file=vcap/bosh/settings.json";

/// Returns how to start a machine; QEMU works in the VM's folder.
pub(super) fn launch_spec(
    cloud: &Cloud,
    vm: &VmRecord,
    boot: &BootFiles,
    accelerator: Accelerator,
    lab: PathBuf,
) -> Result<LaunchSpec, HostError> {
    let missing = || HostError::refused(CpiErrorKind::VmCreationFailed, "the VM has no address");
    let (address, proxy) = vm.addresses.first().copied().zip(vm.proxy).ok_or_else(missing)?;
    let dir = cloud.store.vm_dir(&vm.cid);
    let machine = MachineSpec {
        program: PROGRAM.into(),
        args: arguments(vm, boot, accelerator, &cable(cloud, vm), address),
        dir: dir.clone(),
        lab,
        proxy,
        endpoints: cloud.endpoints_path(),
        publish: vm.publish.clone(),
        address,
    };
    Ok(LaunchSpec::of_machine(cloud.helper_args(), dir.join("console.log"), machine))
}

/// Returns the name of a machine's end of its cable, in the network that all VMs are wired to.
pub(super) fn cable(cloud: &Cloud, vm: &VmRecord) -> String {
    // Fifteen characters at most; one network has one cloud's VMs.
    let digest = fnv(cloud.store.vm_dir(&vm.cid).as_os_str().as_encoded_bytes());
    format!("q{:013x}", digest & 0xf_ffff_ffff_ffff)
}

fn arguments(
    vm: &VmRecord,
    boot: &BootFiles,
    accelerator: Accelerator,
    cable: &str,
    address: IpAddr,
) -> Vec<String> {
    let memory_mib = vm.limits.memory_mib.unwrap_or(MEMORY_MIB);
    let processors = vm.limits.cpu.map_or(1, |cpu| cpu.ceil().max(1.0) as u64);
    let base = json!({ "driver": "raw", "node-name": "base", "read-only": true,
        "file": { "driver": "file", "filename": boot.base } });
    let own = json!({ "driver": "raw", "node-name": "own", "discard": "unmap",
        "file": { "driver": "file", "filename": OWN_DISK } });
    let mut arguments = plain(&[
        // Nothing that is not asked for here.
        "-nodefaults -no-user-config -display none -machine q35",
        "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        accelerator.arguments(),
    ]);
    arguments.extend(plain(&[
        &format!("-m {memory_mib} -smp {processors}"),
        // It stands still until it is wired.
        &format!("-S -qmp unix:{},server=on,wait=off", qmp::SOCKET),
        "-chardev file,id=console,path=console.log,append=on -serial chardev:console",
        "-object rng-random,id=chance,filename=/dev/urandom -device virtio-rng-pci,rng=chance",
        "-device virtio-blk-pci,drive=base,serial=base -device virtio-blk-pci,drive=own,serial=own",
        &format!("-netdev tap,id=net,ifname={cable},script=no,downscript=no"),
        &format!("-device virtio-net-pci,netdev=net,romfile=,mac={}", mac(address)),
        &format!("-fw_cfg {SETTINGS}"),
    ]));
    for slot in 0..SLOTS {
        let number = slot + 1;
        arguments.extend(plain(&[&format!(
            "-device pcie-root-port,id=slot{slot},chassis={number},slot={number}"
        )]));
    }
    // These may hold blanks.
    arguments.extend(["-blockdev".into(), base.to_string(), "-blockdev".into(), own.to_string()]);
    arguments.extend(["-kernel".into(), boot.kernel.display().to_string()]);
    arguments.extend(["-initrd".into(), boot.initrd.display().to_string()]);
    let line = format!(
        "console=ttyS0 net.ifnames=0 panic=-1 modprobe.blacklist=kvm_amd,kvm_intel systemd.hostname={}",
        vm.agent
    );
    arguments.extend(["-append".into(), line, "-name".into(), vm.cid.to_string().replace(',', ",,")]);
    arguments
}

fn plain(lines: &[&str]) -> Vec<String> {
    lines.iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect()
}

/// Returns a machine's hardware address as QEMU writes it.
fn mac(address: IpAddr) -> String {
    hardware_address(address).map(|byte| format!("{byte:02x}")).join(":")
}
