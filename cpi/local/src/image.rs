//! Disks that are files with an ext4 file system, offered as loop devices.
//!
//! Invariant: a file is behind one loop device at most. Two would each have a cache of their own, and the file system
//! would not survive it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpi_api::CpiErrorKind;
use cpi_host::{HostError, Scope};
use nix::errno::Errno;

use crate::loop_device;

/// Makes a sparse file with an empty file system.
pub(crate) fn create(image: &Path, size_mib: u64) -> Result<(), HostError> {
    let file = File::create_new(image).map_err(HostError::os("create", image))?;
    file.set_len(size_mib * 1024 * 1024).map_err(HostError::os("size", image))?;
    // Tables and journal are zero in a new sparse file: writing them would only fill it.
    let options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
    run("mkfs.ext4", &options, image)?;
    file.sync_all().map_err(HostError::os("sync", image))
}

/// Grows the file and the file system in it. Twice is fine.
pub(crate) fn grow(image: &Path, size_mib: u64) -> Result<(), HostError> {
    let file = File::options().write(true).open(image).map_err(HostError::os("open", image))?;
    file.set_len(size_mib * 1024 * 1024).map_err(HostError::os("size", image))?;
    run("e2fsck", &["-f", "-p"], image)?;
    run("resize2fs", &[], image)?;
    file.sync_all().map_err(HostError::os("sync", image))
}

/// Puts the file behind a loop device, unless it is; returns the device's number.
pub(crate) fn offer(image: &Path, scope: &Scope) -> Result<u32, HostError> {
    let file = File::options().read(true).write(true).open(image).map_err(HostError::os("open", image))?;
    let control_path = Path::new("/dev/loop-control");
    let control = File::open(control_path).map_err(HostError::os("open", control_path))?;
    scope.wait_for("a free loop device", || {
        if let Some((number, _)) = devices_of(image)?.first() {
            return Ok(Some(*number));
        }
        let number = loop_device::free_number(&control).map_err(HostError::os("ask", control_path))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device =
            File::options().read(true).write(true).open(&path).map_err(HostError::os("open", &path))?;
        match loop_device::bind(&device, &file) {
            Ok(()) => Ok(Some(number)),
            // Somebody else was quicker: the next one then.
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(None),
            Err(error) => Err(HostError::os("bind", &path)(error)),
        }
    })
}

/// Copies the file to `copy`, sharing blocks with it where the file system can, and mends the file system in the copy: it is
/// whole then, or there is no copy. `image` may be in use.
pub(crate) fn copy(image: &Path, copy: &Path) -> Result<(), HostError> {
    run("cp", &["--reflink=auto", "--sparse=always", &image.to_string_lossy()], copy)?;
    run("e2fsck", &["-f", "-p"], copy)?;
    File::open(copy).and_then(|file| file.sync_all()).map_err(HostError::os("sync", copy))
}

/// Returns the numbers of the loop devices that the file is behind.
pub(crate) fn loop_numbers(image: &Path) -> Result<Vec<u32>, HostError> {
    Ok(devices_of(image)?.into_iter().map(|(number, _)| number).collect())
}

/// Takes the file from behind its loop device and waits until nobody uses that any more.
pub(crate) fn free(image: &Path, scope: &Scope) -> Result<(), HostError> {
    for (_, path) in devices_of(image)? {
        let device = File::open(&path).map_err(HostError::os("open", &path))?;
        match loop_device::unbind(&device) {
            Ok(()) => {}
            // It has lost the file between our look and now.
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {}
            Err(error) => return Err(HostError::os("unbind", &path)(error)),
        }
    }
    let what = format!("the last user of {}", image.display());
    scope.wait_for(&what, || Ok(devices_of(image)?.is_empty().then_some(())))
}

/// Returns the loop devices that a file is behind: number and path.
fn devices_of(image: &Path) -> Result<Vec<(u32, PathBuf)>, HostError> {
    let blocks = Path::new("/sys/block");
    let entries = fs::read_dir(blocks).map_err(HostError::os("list", blocks))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|n| n.strip_prefix("loop")?.parse().ok()) else { continue };
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim_end()) == image {
            found.push((number, PathBuf::from(format!("/dev/loop{number}"))));
        }
    }
    Ok(found)
}

fn run(program: &str, options: &[&str], image: &Path) -> Result<(), HostError> {
    let output = Command::new(program).args(options).arg(image).output();
    let output = output.map_err(HostError::os("run", program))?;
    // e2fsck's 1 means that it found something and mended it.
    if output.status.success() || program == "e2fsck" && output.status.code() == Some(1) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let kind = if said.contains("No space left") { CpiErrorKind::NoDiskSpace } else { CpiErrorKind::Other };
    Err(HostError::refused(kind, format!("{program} of {} failed: {}", image.display(), said.trim())))
}

/// Returns why disks of this kind can't be made here, if so.
pub(crate) fn probe() -> Result<(), String> {
    let control =
        fs::metadata("/dev/loop-control").map_err(|error: io::Error| format!("/dev/loop-control: {error}"));
    control?;
    let mkfs = Command::new("mkfs.ext4").arg("-V").output().map_err(|error| format!("mkfs.ext4: {error}"))?;
    if mkfs.status.success() { Ok(()) } else { Err("mkfs.ext4 does not run".into()) }
}
