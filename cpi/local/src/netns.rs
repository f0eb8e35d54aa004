//! Acting in another network namespace, and the "lab": the one that all VMs of a cloud are wired to.
//!
//! A namespace belongs to a thread. Each deed gets a thread of its own that ends with it, so that no thread of a pool
//! is ever left in the wrong place. The lab exists while there are VMs: no private address is ever used on the host.
//! Without root on the host there is another way to it, see [`crate::rung`]; what happens in it is the same.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;

use cpi_host::{HostError, Scope};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::cloud::Cloud;
use crate::netlink::Netlink;
use crate::network::hardware_address;
use crate::outbound;
use crate::process::ProcessId;
use crate::record::{Link, VmRecord};
use crate::rung::Rung;

/// The bridge in the lab.
const BRIDGE: &str = "br0";
/// A VM's end of its cable.
const INSIDE: &str = "eth0";

/// Runs `deed` in the network namespace that `namespace` is a handle of.
pub(crate) fn within<T: Send>(
    namespace: &File,
    deed: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let visit = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            deed()
        });
        visit.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// Wires a VM whose first process waits to the lab, making that if need be.
pub(crate) fn wire(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<(), HostError> {
    let Some(processes) = vm.processes else { return Ok(()) };
    let (inside_path, inside) = network_of(&processes.init)?;
    {
        let _lock = cloud.store.lock("lab.lock", scope)?;
        let (lab_path, lab) = open_lab(cloud)?;
        within(&lab, || lay_cable(&vm.links, &processes.init))
            .map_err(HostError::os("wire a VM to", &lab_path))?;
        outbound::open(cloud, &lab)?;
    }
    within(&inside, || configure(&vm.links)).map_err(HostError::os("configure", &inside_path))
}

/// Wires a VM to the lab that this thread is in.
pub(crate) fn wire_from_lab(links: &[Link], init: &ProcessId) -> Result<(), HostError> {
    let (inside_path, inside) = network_of(init)?;
    lay_cable(links, init).map_err(HostError::os("wire a VM to", "the lab"))?;
    within(&inside, || configure(links)).map_err(HostError::os("configure", &inside_path))
}

fn network_of(init: &ProcessId) -> Result<(PathBuf, File), HostError> {
    let path = PathBuf::from(format!("/proc/{}/ns/net", init.pid));
    let network = File::open(&path).map_err(HostError::os("open", &path))?;
    Ok((path, network))
}

/// Lays a cable from the bridge to a VM. In the lab.
fn lay_cable(links: &[Link], init: &ProcessId) -> io::Result<()> {
    // Fifteen characters at most. Unique per boot: the cable of the boot before may still be on its way out.
    let cable = format!("v{:x}-{:x}", init.pid, init.born_ticks & 0xff_ffff);
    bridge_for(links)?.cable(&cable, BRIDGE, INSIDE, init.pid)
}

/// Makes the lab ready for a VM that brings its own end of a cable, and returns where it is.
pub(crate) fn prepare(cloud: &Cloud, vm: &VmRecord, scope: &Scope) -> Result<PathBuf, HostError> {
    let _lock = cloud.store.lock("lab.lock", scope)?;
    let (path, lab) = open_lab(cloud)?;
    within(&lab, || bridge_for(&vm.links).map(drop)).map_err(HostError::os("prepare", &path))?;
    outbound::open(cloud, &lab)?;
    Ok(path)
}

/// Plugs a cable's end, which is in the lab, into the bridge.
pub(crate) fn plug_in(cloud: &Cloud, cable: &str, scope: &Scope) -> Result<(), HostError> {
    let _lock = cloud.store.lock("lab.lock", scope)?;
    let (path, lab) = open_lab(cloud)?;
    within(&lab, || Netlink::open()?.join(cable, BRIDGE)).map_err(HostError::os("wire a VM to", &path))
}

/// Makes the bridge with the gateways of a VM. In the lab.
fn bridge_for(links: &[Link]) -> io::Result<Netlink> {
    let lab = Netlink::open()?;
    lab.bridge(BRIDGE)?;
    for link in links {
        if let Some(gateway) = link.gateway {
            lab.address(BRIDGE, gateway, link.prefix_bits)?;
        }
    }
    Ok(lab)
}

fn configure(links: &[Link]) -> io::Result<()> {
    let netlink = Netlink::open()?;
    netlink.link_up("lo")?;
    if let Some(link) = links.first() {
        netlink.hardware_address(INSIDE, hardware_address(link.ip))?;
    }
    netlink.link_up(INSIDE)?;
    for link in links {
        netlink.address(INSIDE, link.ip, link.prefix_bits)?;
    }
    let default = links.iter().find(|link| link.is_default).and_then(|link| link.gateway);
    default.map_or(Ok(()), |gateway: IpAddr| netlink.default_route(INSIDE, gateway))
}

/// Removes the lab if no other VM than `leaving` needs it. Idempotent.
pub(crate) fn close_lab(cloud: &Cloud, leaving: &VmRecord, scope: &Scope) -> Result<(), HostError> {
    let _lock = cloud.store.lock("lab.lock", scope)?;
    // Records of VMs that are being made count: they claim the lab before they use it.
    let is_wired = |vm: &VmRecord| matches!(vm.rung, Rung::Namespaces | Rung::Qemu);
    if cloud.store.vms()?.iter().any(|vm| vm.cid != leaving.cid && is_wired(vm)) {
        return Ok(());
    }
    let path = lab_path(cloud);
    if path.exists() {
        outbound::close(cloud)?;
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        fs::remove_file(&path).map_err(HostError::os("remove", &path))?;
    }
    Ok(())
}

pub(crate) fn lab_path(cloud: &Cloud) -> PathBuf {
    cloud.store.root().join("lab.net")
}

/// Opens the lab's namespace. The caller holds the lab's lock.
fn open_lab(cloud: &Cloud) -> Result<(PathBuf, File), HostError> {
    let path = lab_path(cloud);
    if !is_namespace(&path) {
        // After a reboot of the machine the file is there and the mount is not.
        File::create(&path).map_err(HostError::os("create", &path))?;
        make_lab(&path).map_err(HostError::os("mount a network namespace at", &path))?;
    }
    let lab = File::open(&path).map_err(HostError::os("open", &path))?;
    Ok((path, lab))
}

fn make_lab(path: &Path) -> io::Result<()> {
    thread::scope(|scope| {
        let maker = scope.spawn(|| -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // The mount keeps the namespace when this thread, its only inhabitant, has ended.
            mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Netlink::open()?.link_up("lo")
        });
        maker.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

fn is_namespace(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    nix::sys::statfs::fstatfs(&file).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}
