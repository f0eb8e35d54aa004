//! Snapshots: copies of disks as they once were. They belong to the cloud, and outlive disks and VMs.
//!
//! What is mounted is written out first. Where nobody writes to the disk (jobs are stopped before an update) the copy is the
//! disk. Where somebody does it is a moment of it if the file system can share blocks between files; if it can't, copying
//! takes time, and what is written meanwhile is in the copy or not: then it is only promised that its file system is whole.
//! Order of locks: the snapshot's, then the disk's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpi_api::{CpiErrorKind, SnapshotDisk};
use cpi_host::{HostError, Scope};
use model::SnapshotCid;

use crate::cloud::Cloud;
use crate::disk;
use crate::helper::Errand;
use crate::record::{DiskKind, DiskRecord, SnapshotRecord};
use crate::rung::Rung;
use crate::store::snapshot_cid;
use crate::{image, mounts};

/// The major number of loop devices.
const LOOP_MAJOR: u32 = 7;

/// Takes a snapshot; one that is there already is the answer too.
pub(crate) fn take(cloud: &Cloud, scope: &Scope, request: SnapshotDisk) -> Result<SnapshotCid, HostError> {
    let cid = snapshot_cid(&request.snapshot_id);
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if cloud.store.snapshot(&cid)?.is_some() {
        return Ok(cid);
    }
    let dir = cloud.store.snapshot_dir(&cid);
    let disk = match copy_disk(cloud, scope, &request, &dir) {
        Ok(disk) => disk,
        Err(error) => {
            cloud.store.discard(&dir)?;
            lock.retire();
            return Err(error);
        }
    };
    let SnapshotDisk { snapshot_id: id, disk: of, metadata } = request;
    // The record comes last: what has one is whole.
    let record = SnapshotRecord { cid: cid.clone(), id, disk: of, kind: disk.kind, metadata };
    cloud.store.put_snapshot(&record)?;
    Ok(cid)
}

/// Returns whether the snapshot is there. Waits for whoever is taking it; removes what a dead one left half-made.
pub(crate) fn exists(cloud: &Cloud, scope: &Scope, cid: &SnapshotCid) -> Result<bool, HostError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let exists = cloud.store.snapshot(cid)?.is_some();
    if !exists {
        cloud.store.discard(&cloud.store.snapshot_dir(cid))?;
        lock.retire();
    }
    Ok(exists)
}

/// Removes a snapshot.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &SnapshotCid) -> Result<(), HostError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    cloud.store.discard(&cloud.store.snapshot_dir(cid))?;
    lock.retire();
    Ok(())
}

/// Copies the content of the disk into the folder. Nobody attaches, detaches or resizes it meanwhile.
fn copy_disk(
    cloud: &Cloud,
    scope: &Scope,
    request: &SnapshotDisk,
    dir: &Path,
) -> Result<DiskRecord, HostError> {
    let _lock = cloud.store.lock_object(request.disk.as_str(), scope)?;
    let disk = disk::existing(cloud, &request.disk)?;
    // A taker that died left no record, and perhaps half a copy.
    cloud.store.discard(dir)?;
    fs::create_dir_all(dir).map_err(HostError::os("create", dir))?;
    let (content, copy) = (disk::content(cloud, &disk), dir.join(disk::content_name(disk.kind)));
    match disk.kind {
        DiskKind::Image => {
            write_out(cloud, &disk, &content)?;
            image::copy(&content, &copy)?;
        }
        // What users of a VM wrote there is theirs: only root of a namespace with their ids can copy it.
        DiskKind::Directory if cloud.rung == Rung::UserNamespaces => {
            Errand::Copy { from: content, to: copy }.run(&cloud.options.helper)?;
        }
        DiskKind::Directory => copy_directory(&content, &copy)?,
    }
    Ok(disk)
}

/// Copies a directory, with owners and everything.
pub(crate) fn copy_directory(content: &Path, copy: &Path) -> Result<(), HostError> {
    // It ends with us: whoever comes after us makes the copy anew, and must not meet it.
    let mut cp = Command::new("setpriv");
    cp.args(["--pdeathsig", "KILL", "cp", "-a", "--reflink=auto"]).arg(content).arg(copy);
    let output = cp.env("LC_ALL", "C").output().map_err(HostError::os("run", "setpriv and cp"))?;
    // What is on the disk may vanish while it is copied: a copy without it is one of a moment later.
    let said = String::from_utf8_lossy(&output.stderr);
    let vanished = |line: &str| line.ends_with(": No such file or directory");
    if !output.status.success() && !said.lines().all(vanished) {
        let full = said.contains("No space left");
        let kind = if full { CpiErrorKind::NoDiskSpace } else { CpiErrorKind::Other };
        let message = format!("the copy of {} failed: {}", content.display(), said.trim());
        return Err(HostError::refused(kind, message));
    }
    let copied = File::open(copy).map_err(HostError::os("open", copy))?;
    nix::unistd::syncfs(&copied).map_err(HostError::os("sync", copy))
}

/// Has the kernel write out what the disk's file system holds back, wherever it is mounted in its VM.
fn write_out(cloud: &Cloud, disk: &DiskRecord, content: &Path) -> Result<(), HostError> {
    let Some(cid) = &disk.attached_to else { return Ok(()) };
    // The VM's lock is not ours, and it may go at any moment: a file system that is not mounted any more is written out.
    let Some(processes) = cloud.store.vm(cid)?.and_then(|vm| vm.processes) else { return Ok(()) };
    let inside = PathBuf::from(format!("/proc/{}", processes.init.pid));
    let Ok(mounts) = fs::read_to_string(inside.join("mountinfo")) else { return Ok(()) };
    for number in image::loop_numbers(content)? {
        for mount_point in mount_points(&mounts, number) {
            let path = inside.join("root").join(mount_point.strip_prefix("/").unwrap_or(&mount_point));
            let Ok(mounted) = File::open(&path) else { continue };
            nix::unistd::syncfs(&mounted).map_err(HostError::os("sync", &path))?;
        }
    }
    Ok(())
}

/// Returns where the loop device of this number is mounted, by the text of a `mountinfo`.
fn mount_points(table: &str, number: u32) -> Vec<PathBuf> {
    let device = format!("{LOOP_MAJOR}:{number}");
    let mounts = mounts::parse(table).into_iter();
    mounts.filter(|mount| mount.device == device).map(|mount| mount.place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_device_is_found_wherever_it_is_mounted() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
                      40 22 7:3 / /var/vcap/store rw,relatime shared:1 - ext4 /dev/disk rw\n\
                      41 22 7:31 / /other rw - ext4 /dev/x rw\n\
                      42 22 7:3 / /with\\040blank rw - ext4 /dev/disk rw\n";
        assert_eq!(mount_points(mounts, 3), ["/var/vcap/store", "/with blank"].map(PathBuf::from));
        assert_eq!(mount_points(mounts, 4), Vec::<PathBuf>::new());
    }
}
