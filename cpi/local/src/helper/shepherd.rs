//! The supervisor of a VM that has an inside: makes the namespaces, carries connections in and out, waits for the end.
//!
//! Three threads, since a network is a thread's own, and whoever has become root of a user namespace can't go back to the
//! host's: the *carrier* stays in the host's network, the *host* makes the VM's namespaces and is its first process's parent,
//! and the main thread is in the lab, where that is below a user namespace: so whoever looks for the lab finds it here.

use std::fs::{self, File};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{self, Sender};
use std::thread;

use cpi_api::CpiErrorKind;
use cpi_host::HostError;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::relay::Relay;
use super::{
    HelperError, LabSpec, LaunchSpec, Realm, Started, leave_starter, own_id, realm, say, spawn_helper,
};
use crate::netlink::Netlink;
use crate::netns;
use crate::process::ProcessId;

/// Everything but the mounts, which the first process inside makes its own: we keep the host's.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);

/// Runs a VM until its end.
pub(super) fn run(spec: &LaunchSpec, spec_path: &Path) -> Result<(), HelperError> {
    let lab = spec.lab.as_ref();
    let network = lab.map(become_root).transpose()?;
    let carrier = carrier()?;
    if let Some(network) = network {
        move_into(network)?;
    }
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let host = scope.spawn(|| host(spec, spec_path, tell));
        if let Ok((relay, first)) = told.recv()
            && let Err(error) = introduce(lab, relay, first, &carrier)
        {
            // It waits for a word that nobody will say.
            let _ = kill(first, Signal::SIGKILL);
            let _ = host.join();
            return Err(error);
        }
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes the VM's namespaces and its first process in them, and waits for its end. A thread of its own: what it makes from now
/// on is in there, but for threads, which it can't make.
fn host(spec: &LaunchSpec, spec_path: &Path, tell: Sender<(Relay, Pid)>) -> Result<(), HelperError> {
    unshare(NAMESPACES).map_err(HostError::os("make namespaces for", spec_path))?;
    // While we are in there: the agent finds the directors from its first breath.
    let relay = Relay::prepare(spec)?;
    // It ends with this thread, should we be killed.
    let mut first: Child = spawn_helper(&spec.helper_args, "init", spec_path)?;
    let _ = tell.send((relay, Pid::from_raw(first.id() as i32)));
    first.wait().map_err(HostError::os("wait for", spec_path))?;
    Ok(())
}

/// Wires the VM where nobody else can, makes it known to whoever started us, and begins to carry.
fn introduce(
    lab: Option<&LabSpec>,
    relay: Relay,
    first: Pid,
    carrier: &Sender<Relay>,
) -> Result<(), HelperError> {
    let gone = || HostError::os("look up process", first.to_string())(nix::errno::Errno::ESRCH);
    let init = ProcessId::of(first.as_raw()).ok_or_else(gone)?;
    if let Some(lab) = lab {
        netns::wire_from_lab(&lab.links, &init)?;
    }
    say(&Started { supervisor: own_id()?, init }.to_line());
    leave_starter();
    let gone = |_| HostError::refused(CpiErrorKind::Other, "the thread that carries connections has ended");
    Ok(carrier.send(relay).map_err(gone)?)
}

/// Starts the thread that carries connections: in the network where we are now.
fn carrier() -> Result<Sender<Relay>, HostError> {
    let (tell, told) = mpsc::channel::<Relay>();
    let carry = move || {
        if let Ok(relay) = told.recv()
            && let Err(error) = relay.start()
        {
            eprintln!("local-vm: {}", cpi_host::Chain(&error));
            // The VM's first process ends with us: a VM that reaches nobody is better gone, and noticed.
            std::process::exit(1);
        }
    };
    thread::Builder::new()
        .spawn(carry)
        .map(|_| tell)
        .map_err(HostError::os("start a thread for", "the relay"))
}

/// Becomes root of the lab's user namespace, or of a new one. Returns the lab's network, if there is one.
fn become_root(lab: &LabSpec) -> Result<Option<File>, HostError> {
    let Some(entrance) = &lab.entrance else { return realm::found().map(|()| None) };
    // Opened before: afterwards they are beyond us.
    let network = File::open(&entrance.other).map_err(HostError::os("open", &entrance.other))?;
    realm::enter(&entrance.users)?;
    Ok(Some(network))
}

/// Moves this thread into the lab's network, or into a new one.
fn move_into(network: Option<File>) -> Result<(), HostError> {
    let Some(network) = network else {
        unshare(CloneFlags::CLONE_NEWNET).map_err(HostError::os("make a network for", "the lab"))?;
        let up = Netlink::open().and_then(|netlink| netlink.link_up("lo"));
        return up.map_err(HostError::os("switch on the loopback of", "the lab"));
    };
    setns(&network, CloneFlags::CLONE_NEWNET).map_err(HostError::os("enter the network of", "the lab"))
}

/// Does once, below `scratch`, what a VM takes.
pub(super) fn probe(scratch: &Path, realm: Realm) -> Result<(), HelperError> {
    let inside = match realm {
        Realm::Host => "probe-inside",
        Realm::UserNamespace => {
            realm::found()?;
            "probe-realm-inside"
        }
    };
    unshare(NAMESPACES).map_err(HostError::os("make namespaces for", scratch))?;
    let wire = || {
        let netlink = Netlink::open()?;
        netlink.link_up("lo")?;
        netlink.bridge("br0")?;
        netlink.cable("probe0", "br0", "probe1", std::process::id() as i32)
    };
    wire().map_err(HostError::os("make a network cable for", scratch))?;
    let child = spawn_helper(&super::first_args(), inside, scratch)?;
    waitpid(Pid::from_raw(child.id() as i32), None).map_err(HostError::os("wait for", scratch))?;
    if realm == Realm::UserNamespace {
        // An overlay leaves directories that only root can look into, and whoever has made `scratch` is none.
        let work = scratch.join("work");
        fs::remove_dir_all(&work).map_err(HostError::os("remove", &work))?;
    }
    Ok(())
}
