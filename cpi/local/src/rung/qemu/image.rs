//! What machines of a stemcell boot: its kernel, a small archive to start from, and its root file system as a disk.
//!
//! All machines of a stemcell share the disk, which nobody writes to. Made when the first of them needs it: a cloud that only
//! makes containers pays nothing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpi_api::CpiErrorKind;
use model::StemcellCid;
use serde::{Deserialize, Serialize};

use super::cpio::Cpio;
use crate::cloud::Cloud;
use crate::error::LocalError;
use crate::scope::Scope;
use crate::store::{Durability, read_json, write_json};

/// What a machine needs before it has its root, and what shows it its settings. Whatever is built into the kernel is not there
/// as a file.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_blk", "virtio_net", "ext4", "overlay", "qemu_fw_cfg"];

/// The first program.
const INIT: &str = include_str!("init.sh");

/// What a machine boots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BootFiles {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// The disk with the stemcell's root file system.
    pub base: PathBuf,
}

/// Makes what machines of a stemcell boot, unless it is there.
pub(super) fn prepare(cloud: &Cloud, scope: &Scope, cid: &StemcellCid) -> Result<BootFiles, LocalError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let (stemcell, dir) = (cloud.store.stemcell_dir(cid), cloud.store.stemcell_dir(cid).join("machine"));
    if let Some(files) = read_json(&dir.join("files.json"))? {
        return Ok(files);
    }
    let rootfs = stemcell.join("rootfs");
    let (kernel, version) = kernel(&rootfs)?;
    // A maker that died left no record, and perhaps half a disk.
    cloud.store.discard(&dir)?;
    fs::create_dir_all(&dir).map_err(LocalError::os("create", &dir))?;
    let files = BootFiles { kernel, initrd: dir.join("initrd"), base: dir.join("base.img") };
    write_initrd(&files.initrd, &rootfs, &version)?;
    write_disk(&files.base, &rootfs)?;
    write_json(&dir.join("files.json"), &files, Durability::Synced)?;
    Ok(files)
}

fn refuse(message: impl Into<String>) -> LocalError {
    LocalError::refused(CpiErrorKind::VmCreationFailed, message)
}

/// Returns the newest kernel in a root file system, and its version.
fn kernel(rootfs: &Path) -> Result<(PathBuf, String), LocalError> {
    let entries = fs::read_dir(rootfs.join("boot")).into_iter().flatten().flatten();
    let versions =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()));
    let version = versions.max().ok_or_else(|| {
        refuse("the stemcell has no kernel, so no machine can boot it: `directord build-stemcell --debian` makes one that does")
    })?;
    Ok((rootfs.join("boot").join(format!("vmlinuz-{version}")), version))
}

fn write_initrd(to: &Path, rootfs: &Path, version: &str) -> Result<(), LocalError> {
    let folder = rootfs.join("lib/modules").join(version);
    let table_path = folder.join("modules.dep");
    let table = fs::read_to_string(&table_path).map_err(LocalError::os("read", &table_path))?;
    let order = in_order(&table, &MODULES);
    let busybox_path = rootfs.join("bin/busybox");
    let busybox = fs::read(&busybox_path).map_err(LocalError::os("read", &busybox_path))?;
    let written = || -> Result<(), LocalError> {
        let failed = || LocalError::os("write", to);
        let mut cpio = Cpio::new(BufWriter::new(File::create(to).map_err(failed())?));
        for directory in ["bin", "dev", "modules"] {
            cpio.directory(directory).map_err(failed())?;
        }
        cpio.file("bin/busybox", &busybox).map_err(failed())?;
        cpio.file("init", INIT.as_bytes()).map_err(failed())?;
        let mut names = String::new();
        for module in &order {
            let (path, name) = (folder.join(module), module.rsplit('/').next().unwrap_or(module));
            let content = fs::read(&path).map_err(LocalError::os("read", &path))?;
            cpio.file(&format!("modules/{name}"), &content).map_err(failed())?;
            names.push_str(&format!("{name}\n"));
        }
        cpio.file("modules/order", names.as_bytes()).map_err(failed())?;
        let out = cpio.finish().map_err(failed())?;
        out.into_inner().map(drop).map_err(|error| failed()(error.into_error()))
    };
    written()
}

/// Returns the files of some modules and of all that they need, each after what it needs, by the text of a `modules.dep`.
fn in_order(table: &str, wanted: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for module in wanted {
        let line = table.lines().find(|line| {
            let file = line.split(':').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            file.split(".ko").next().unwrap_or_default().replace('-', "_") == *module
        });
        let Some((own, needed)) = line.and_then(|line| line.split_once(':')) else { continue };
        // What is needed first stands last.
        for file in needed.split_ascii_whitespace().rev().chain([own]) {
            if known.insert(file) {
                order.push(file.to_owned());
            }
        }
    }
    order
}

/// Makes a disk of a folder.
fn write_disk(to: &Path, rootfs: &Path) -> Result<(), LocalError> {
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
        .map_err(LocalError::os("run", "mkfs.ext4"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let kind = if said.contains("No space left") { CpiErrorKind::NoDiskSpace } else { CpiErrorKind::Other };
    Err(LocalError::refused(kind, format!("the stemcell's disk can't be made: {}", said.trim())))
}

/// Returns how much is in a folder: bytes in whole blocks, and files.
fn size_of(folder: &Path) -> Result<(u64, u64), LocalError> {
    let (mut bytes, mut files, mut open) = (0, 0, vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).map_err(LocalError::os("list", &dir))?;
        for entry in entries {
            let entry = entry.map_err(LocalError::os("list", &dir))?;
            let metadata = entry.metadata().map_err(LocalError::os("look at", entry.path()))?;
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
    use super::*;

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let table = "kernel/a/virtio_pci.ko: kernel/a/modern.ko kernel/a/virtio.ko kernel/a/virtio_ring.ko\n\
                     kernel/b/virtio_blk.ko.xz: kernel/a/virtio.ko kernel/a/virtio_ring.ko\n\
                     kernel/a/virtio_ring.ko:\n\
                     kernel/a/virtio.ko: kernel/a/virtio_ring.ko\n\
                     kernel/c/qemu-fw-cfg.ko:\n";
        let order = in_order(table, &["virtio_pci", "virtio_blk", "ext4", "qemu_fw_cfg"]);
        let wanted = [
            "kernel/a/virtio_ring.ko",
            "kernel/a/virtio.ko",
            "kernel/a/modern.ko",
            "kernel/a/virtio_pci.ko",
            "kernel/b/virtio_blk.ko.xz",
            "kernel/c/qemu-fw-cfg.ko",
        ];
        assert_eq!(order, wanted);
    }
}
