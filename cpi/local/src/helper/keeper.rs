//! The keeper of a machine: starts QEMU where the machine's cable is, opens connections for its agent, waits for the end.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cpi_host::HostError;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use super::{
    HelperError, LaunchSpec, MachineSpec, Started, leave_starter, own_id, proxy, relay, say, spawn_helper,
    wait_for_go,
};
use crate::netns::within;
use crate::process::ProcessId;

/// Keeps a machine until its end.
pub(super) fn run(spec: &LaunchSpec, spec_path: &Path) -> Result<(), HelperError> {
    let machine = spec.machine.as_ref().ok_or(HelperError::NoSpec)?;
    let lab = open_lab(machine)?;
    let listener = within(&lab, || TcpListener::bind(machine.proxy));
    let listener = listener.map_err(HostError::os("listen at", machine.proxy.to_string()))?;
    let mut qemu = spawn_helper(&spec.helper_args, "machine", spec_path)?;
    let gone = || HostError::os("look up process", qemu.id().to_string())(nix::errno::Errno::ESRCH);
    let init = ProcessId::of(qemu.id() as i32).ok_or_else(gone)?;
    say(&Started { supervisor: own_id()?, init }.to_line());
    leave_starter();
    proxy::start(listener, machine.endpoints.clone());
    let lab = Arc::new(lab);
    for publish in &machine.publish {
        relay::publish(publish.host_port, &lab, SocketAddr::from((machine.address, publish.port)));
    }
    qemu.wait().map_err(HostError::os("wait for", spec_path))?;
    Ok(())
}

/// Becomes QEMU, once somebody says go.
pub(super) fn become_machine(spec: &LaunchSpec) -> Result<(), HelperError> {
    let machine = spec.machine.as_ref().ok_or(HelperError::NoSpec)?;
    // Without its keeper a machine can't reach a director: better gone, and noticed, than a hermit.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(HostError::os("follow the keeper of", &spec.console))?;
    let lab = open_lab(machine)?;
    setns(&lab, CloneFlags::CLONE_NEWNET).map_err(HostError::os("enter", &machine.lab))?;
    wait_for_go()?;
    let console = io::stderr().as_fd().try_clone_to_owned().map_err(HostError::os("share", &spec.console))?;
    let error = Command::new(&machine.program)
        .args(&machine.args)
        .current_dir(&machine.dir)
        .stdin(Stdio::null())
        .stdout(console)
        .exec();
    Err(HostError::os("run", &machine.program)(error).into())
}

fn open_lab(machine: &MachineSpec) -> Result<File, HostError> {
    File::open(&machine.lab).map_err(HostError::os("open", &machine.lab))
}
