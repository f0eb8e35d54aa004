//! VMs with namespaces of their own for everything.

use std::fs;
use std::path::{Path, PathBuf};

use cpi_host::{HostError, Scope};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::cloud::Cloud;
use crate::helper::{AGENT_INSIDE, InsideSpec, Realm, VCAP};
use crate::record::{StemcellKind, VmRecord};
use crate::store::create_for_all;
use crate::{LocalOptions, cgroup, image, netns, settings, vm};

/// Major number of loop devices, for ever.
const LOOP_MAJOR: u64 = 7;

/// Directories of the host that a VM on the host's files does not see, beside what the options name.
const HIDDEN: [&str; 6] = ["/root", "/home", "/tmp", "/var/tmp", "/var/lib/docker", "/mnt"];

/// Gives a VM that waits for `go` its network and limits.
pub(super) fn equip(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<(), HostError> {
    netns::wire(cloud, vm, scope)?;
    cgroup::confine(cloud, vm)
}

/// Takes back what [`equip`] gave, once the VM's processes are gone. Idempotent.
pub(super) fn unequip(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<(), HostError> {
    cgroup::release(cloud, vm, scope)?;
    netns::close_lab(cloud, vm, scope)
}

/// Returns what surrounds the agent in such a VM.
pub(super) fn inside(cloud: &Cloud, vm: &VmRecord) -> Result<InsideSpec, HostError> {
    let dir = cloud.store.vm_dir(&vm.cid);
    let kind = cloud.store.stemcell(&vm.stemcell)?.map(|stemcell| stemcell.kind);
    let on_host_files = kind == Some(StemcellKind::Host);
    let lower = match on_host_files {
        true => PathBuf::from("/"),
        false => cloud.store.stemcell_dir(&vm.stemcell).join("rootfs"),
    };
    let mut hidden = Vec::new();
    if on_host_files {
        hidden.extend(HIDDEN.map(PathBuf::from));
        hidden.extend(cloud.options.hidden.clone());
        hidden.push(cloud.store.root().to_owned());
    }
    let spec = InsideSpec {
        hostname: vm.agent.to_string(),
        realm: Realm::Host,
        lower,
        shared: Vec::new(),
        upper: dir.join("upper"),
        work: dir.join("work"),
        mount_point: dir.join("root"),
        binds: vec![
            (vm::base_dir(cloud, vm), VCAP.into()),
            (cloud.options.dagent.clone(), AGENT_INSIDE.into()),
        ],
        hidden,
        endpoints: cloud.endpoints_path(),
        publish: vm.publish.clone(),
        address: vm.addresses.first().copied(),
        resolver: settings::resolver(&vm::base_dir(cloud, vm))?.map(|resolver| resolver.ip()),
    };
    for folder in [&spec.upper, &spec.work, &spec.mount_point] {
        create_for_all(folder).map_err(HostError::os("create", folder))?;
    }
    Ok(spec)
}

/// Puts a loop device into a VM's sight and returns its path there. Idempotent.
///
/// A mount made by the host now would not be seen inside, so the VM gets the device itself and mounts it.
pub(crate) fn show_device(vm: &VmRecord, name: &str, number: u32) -> Result<String, HostError> {
    let inside = format!("/dev/{}", cpi_host::records::file_name(name));
    hide_device(vm, name)?;
    let path = device_path(vm, name);
    let device = makedev(LOOP_MAJOR, u64::from(number));
    mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, device)
        .map_err(HostError::os("create", &path))?;
    Ok(inside)
}

/// Takes a device out of a VM's sight. Idempotent, and nothing to do if the VM is off.
pub(crate) fn hide_device(vm: &VmRecord, name: &str) -> Result<(), HostError> {
    let path = device_path(vm, name);
    match fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // The process ended while we looked through it.
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
        Err(error) => Err(HostError::os("remove", &path)(error)),
    }
}

fn device_path(vm: &VmRecord, name: &str) -> PathBuf {
    // Through the first process's root. A number that is somebody else's by now must not become a path.
    let init = vm.processes.map(|p| p.init).filter(|init| init.is_alive());
    let pid = init.map_or_else(|| "none".to_owned(), |init| init.pid.to_string());
    Path::new("/proc").join(pid).join("root/dev").join(cpi_host::records::file_name(name))
}

/// Makes a process with namespaces and a root of its own below `options.root`, once.
pub(super) fn probe(options: &LocalOptions) -> Result<String, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root: loop devices and cgroups are its alone".into());
    }
    image::probe()?;
    super::made_once(options, "probe")?;
    Ok("made a process with namespaces, an overlay root and a network cable of its own".into())
}
