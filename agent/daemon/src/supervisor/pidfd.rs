//! A process handle that the runtime can wait on: readable once the process is dead.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Opens a handle on a process.
pub(super) fn open(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    // SAFETY: the runtime needs the descriptor to stay open, and to be the same one, for as long as it is registered.
    // `OwnedFd` always returns its one descriptor and closes it only when dropped; `AsyncFd` owns it and deregisters
    // it before it drops it.
    unsafe { Ok(AsyncFd::register_with_interest(handle, Interest::READABLE)?) }
}
