//! The way from the machine to a port of a VM that has a network of its own.
//!
//! No address of such a VM is one of the host's, so no route leads there: whoever wants to talk to it enters its network first,
//! by way of one of its processes. That works from wherever those can be seen; the cloud's own mounts need not be.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cpi_api::CpiErrorKind;
use cpi_host::HostError;

use crate::LocalOptions;
use crate::helper::{Entrance, Errand};
use crate::netns::within;
use crate::network::has_own_network;
use crate::process::ProcessId;
use crate::rung::Rung;
use crate::store::Store;

/// How long a VM may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is carried at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Carries our standard input and output to a port of a VM of the cloud in `root`, until the VM closes the connection.
/// Needs to be the cloud's user, and blocks.
pub fn reach_vm(root: &Path, vm: SocketAddr) -> Result<(), HostError> {
    let helper = LocalOptions::new(root, "").helper;
    let (rung, init) = first_process(root, &helper, vm.ip())?;
    let path = PathBuf::from(format!("/proc/{}/ns/net", init.pid));
    if rung == Rung::UserNamespaces {
        let network = Entrance { users: path.with_file_name("user"), other: path };
        let status = Errand::Reach { network, address: vm }.command(&helper)?.status();
        let status = status.map_err(HostError::os("start helper", "errand"))?;
        let failed = || HostError::refused(CpiErrorKind::Other, format!("failed to reach {vm}: {status}"));
        return if status.success() { Ok(()) } else { Err(failed()) };
    }
    let network = File::open(&path).map_err(HostError::os("open the network of a VM at", &path))?;
    carry_to(&network, vm)
}

/// Carries our standard input and output to a port of the VM whose network this is.
pub(crate) fn carry_to(network: &File, vm: SocketAddr) -> Result<(), HostError> {
    let connection = within(network, || TcpStream::connect_timeout(&vm, CONNECT_TIMEOUT));
    let connection = connection.map_err(HostError::os("reach", vm.to_string()))?;
    carry(&connection).map_err(HostError::os("carry a connection to", vm.to_string()))
}

/// Returns the first process of the VM that has an address, and how the VM is isolated.
fn first_process(root: &Path, helper: &[OsString], address: IpAddr) -> Result<(Rung, ProcessId), HostError> {
    let refuse = |why: String| HostError::refused(CpiErrorKind::VmNotFound, why);
    if !root.join("vms").is_dir() {
        return Err(refuse(format!("there is no local cloud in `{}`", root.display())));
    }
    let all = Store::open(root, helper)?.vms()?;
    let vm = all.into_iter().find(|vm| has_own_network(vm.rung) && vm.addresses.contains(&address));
    let vm = vm.ok_or_else(|| refuse(format!("no VM of `{}` has the address {address}", root.display())))?;
    // A number that is somebody else's by now must not become a way.
    let init = vm.processes.map(|processes| processes.init).filter(|init| init.is_alive());
    let init = init.ok_or_else(|| refuse(format!("VM `{}` does not run", vm.cid)))?;
    Ok((vm.rung, init))
}

fn carry(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    // Not through the library's buffers: what a line is says the other side.
    let (mut input, mut output) = (own(io::stdin())?, own(io::stdout())?);
    let mut to_vm = connection.try_clone()?;
    let send = move || {
        let ended = copy(&mut input, &mut to_vm);
        let _ = to_vm.shutdown(if ended.is_ok() { Shutdown::Write } else { Shutdown::Both });
    };
    // It ends with the process: nobody waits for input that may never come.
    thread::Builder::new().spawn(send)?;
    let mut from_vm = connection;
    copy(&mut from_vm, &mut output)
}

/// Copies through memory. The library's `copy` has the kernel move what goes into a pipe, which then is locked while nothing
/// comes: whoever wants to read from it waits, too.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn own(stream: impl AsFd) -> io::Result<File> {
    let descriptor: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    Ok(File::from(descriptor))
}
