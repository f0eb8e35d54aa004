//! Loop devices: a file that behaves like a disk.
//!
//! The three requests that the kernel knows only by number, and nothing else that is unsafe.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

mod raw {
    // <linux/loop.h>. These numbers are older than the `_IO` macros: the argument is a plain integer, never a pointer.
    nix::ioctl_write_int_bad!(set_fd, 0x4C00);
    nix::ioctl_write_int_bad!(clear_fd, 0x4C01);
    nix::ioctl_write_int_bad!(get_free, 0x4C82);
}

/// Returns the number of a loop device that was free just now, making one if need be.
pub(crate) fn free_number(control: &File) -> io::Result<u32> {
    // SAFETY: `control` is open for the call; the kernel takes an integer it ignores, and touches none of our memory.
    let number = unsafe { raw::get_free(control.as_raw_fd(), 0) }?;
    u32::try_from(number).map_err(io::Error::other)
}

/// Puts `file` behind `device`; `EBUSY` if another file is there already.
pub(crate) fn bind(device: &File, file: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open for the call; the kernel takes its own reference to the file.
    unsafe { raw::set_fd(device.as_raw_fd(), file.as_raw_fd()) }?;
    Ok(())
}

/// Takes the file away from `device`, at once or when the last user closes it.
pub(crate) fn unbind(device: &File) -> io::Result<()> {
    // SAFETY: `device` is open for the call; the kernel takes an integer it ignores, and touches none of our memory.
    unsafe { raw::clear_fd(device.as_raw_fd(), 0) }?;
    Ok(())
}
