//! What machines of a stemcell boot: its kernel, a small archive to start from, and its root file system as a disk.
//!
//! All machines of a stemcell share the disk, which nobody writes to. Made when the first of them needs it: a cloud that only
//! makes containers pays nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpi_api::CpiErrorKind;
use cpi_host::records::{self, Durability};
use cpi_host::{HostError, Scope};
use model::StemcellCid;
use serde::{Deserialize, Serialize};
use stemcell::{Initrd, StemcellError};

use crate::cloud::Cloud;

/// What a machine needs before it has its root, and what shows it its settings.
const DRIVERS: [&str; 6] = ["virtio_pci", "virtio_blk", "virtio_net", "ext4", "overlay", "qemu_fw_cfg"];

/// What a machine boots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BootFiles {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// The disk with the stemcell's root file system.
    pub base: PathBuf,
}

/// Makes what machines of a stemcell boot, unless it is there.
pub(super) fn prepare(cloud: &Cloud, scope: &Scope, cid: &StemcellCid) -> Result<BootFiles, HostError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let (stemcell, dir) = (cloud.store.stemcell_dir(cid), cloud.store.stemcell_dir(cid).join("machine"));
    if let Some(files) = records::read(&dir.join("files.json"))? {
        return Ok(files);
    }
    let rootfs = stemcell.join("rootfs");
    let (kernel, version) = kernel(&rootfs)?;
    // A maker that died left no record, and perhaps half a disk.
    cloud.store.discard(&dir)?;
    fs::create_dir_all(&dir).map_err(HostError::os("create", &dir))?;
    let files = BootFiles { kernel, initrd: dir.join("initrd"), base: dir.join("base.img") };
    let initrd = Initrd {
        modules: rootfs.join("lib/modules").join(version),
        busybox: rootfs.join("bin/busybox"),
        drivers: &DRIVERS,
        init: include_str!("init.sh"),
    };
    initrd.write(&files.initrd).map_err(of_stemcell)?;
    write_disk(&files.base, &rootfs)?;
    records::write(&dir.join("files.json"), &files, Durability::Synced)?;
    Ok(files)
}

/// A full disk is told as one, whoever has met it.
fn of_stemcell(error: StemcellError) -> HostError {
    match error {
        StemcellError::Os { doing, path, source } => HostError::Os { doing, path, source },
        StemcellError::Refused(message) => refuse(message),
    }
}

fn refuse(message: impl Into<String>) -> HostError {
    HostError::refused(CpiErrorKind::VmCreationFailed, message)
}

/// Returns the newest kernel in a root file system, and its version.
fn kernel(rootfs: &Path) -> Result<(PathBuf, String), HostError> {
    let entries = fs::read_dir(rootfs.join("boot")).into_iter().flatten().flatten();
    let versions =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()));
    let version = versions.max().ok_or_else(|| {
        refuse("the stemcell has no kernel, so no machine can boot it: `dctl build-stemcell --debian` makes one that does")
    })?;
    Ok((rootfs.join("boot").join(format!("vmlinuz-{version}")), version))
}

/// Makes a disk of a folder.
fn write_disk(to: &Path, rootfs: &Path) -> Result<(), HostError> {
    let (bytes, files) = size_of(rootfs)?;
    let mib = bytes / (1 << 20);
    let output = Command::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-O",
            "^has_journal",
            "-N",
            &(files + files / 8 + 256).to_string(),
            "-d",
        ])
        .arg(rootfs)
        .arg(to)
        .arg(format!("{}M", mib + mib / 4 + 16))
        .output()
        .map_err(HostError::os("run", "mkfs.ext4"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let kind = if said.contains("No space left") { CpiErrorKind::NoDiskSpace } else { CpiErrorKind::Other };
    Err(HostError::refused(kind, format!("the stemcell's disk can't be made: {}", said.trim())))
}

/// Returns how much is in a folder: bytes in whole blocks, and files.
fn size_of(folder: &Path) -> Result<(u64, u64), HostError> {
    let (mut bytes, mut files, mut open) = (0, 0, vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).map_err(HostError::os("list", &dir))?;
        for entry in entries {
            let entry = entry.map_err(HostError::os("list", &dir))?;
            let metadata = entry.metadata().map_err(HostError::os("look at", entry.path()))?;
            bytes += metadata.blocks() * 512;
            files += 1;
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok((bytes, files))
}

#[cfg(test)]
mod tests {
    use std::io;

    use cpi_host::CallError as _;

    use super::*;

    #[test]
    fn a_full_disk_is_told_as_one() {
        let full = io::ErrorKind::StorageFull.into();
        let full = StemcellError::Os { doing: "write", path: "initrd".into(), source: full };
        for (error, kind) in [
            (full, CpiErrorKind::NoDiskSpace),
            (StemcellError::Refused("no driver".into()), CpiErrorKind::VmCreationFailed),
        ] {
            assert_eq!(of_stemcell(error).into_cpi("create_vm", CpiErrorKind::Other).kind, kind);
        }
    }
}
