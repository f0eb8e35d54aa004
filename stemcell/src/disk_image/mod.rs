//! A disk that boots by itself, made of the archive of a Debian's root file system: what a cloud copies for each of its machines.
//!
//! ```text
//! sector 0        the master boot record: GRUB's first sector, a disk signature, one partition
//! sectors 1…      GRUB's core, which is all of GRUB that there is
//! 1 MiB…          the partition: ext4, with the root file system, `boot/grub/grub.cfg` and an archive to start from
//! ```
//! Nothing is mounted and no right is needed: the file system is filled by `debugfs`. The same archive gives the same bytes, for
//! whatever could be drawn by chance follows from the archive's digest.
//!
//! BIOS only. Read next: [`OwnFiles`] for what such a disk has that the archive has not.

mod boot_record;
mod ext4;
mod own_files;
pub(super) mod qcow2;
mod tree;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::StemcellError;

use ext4::FileSystem;
pub(super) use own_files::OwnFiles;
pub(super) use tree::RootArchive;
use tree::Tree;

/// Where the partition begins, in MiB: room for the boot loader's core, and as partitioning programs do it.
const PARTITION_AT_MIB: u64 = 1;
/// Disks are as large as a whole number of these, which some clouds ask for. Machines make them larger.
const DISK_MIB_STEP: u64 = 1024;
/// What there must be room for beside the files: a journal, tables, and what a first boot writes.
const SPARE_MIB: u64 = 512;

/// Writes a disk to a file that holds nothing where the disk is empty; returns its size in MiB.
pub(super) fn write(
    to: &Path,
    root: RootArchive<'_, impl Read>,
    own: &OwnFiles<'_>,
) -> Result<u64, StemcellError> {
    let scratch = tempfile::tempdir().map_err(StemcellError::os("make a scratch directory for", to))?;
    let mut tree = Tree::unpack(root, scratch.path().join("root"))?;
    let (disk_id, id) = ids(&tree.digest);
    own.add(&mut tree, &uuid(&id))?;
    let mib = (tree.bytes()? >> 20) + SPARE_MIB;
    let disk_mib = mib.next_multiple_of(DISK_MIB_STEP);
    let disk = File::create(to).map_err(StemcellError::os("create", to))?;
    disk.set_len(disk_mib << 20).map_err(StemcellError::os("make room in", to))?;
    let partition_mib = disk_mib - PARTITION_AT_MIB;
    FileSystem { disk: to, at_mib: PARTITION_AT_MIB, mib: partition_mib, uuid: uuid(&id) }
        .make(&tree, scratch.path())?;
    let loader = |part: &str| {
        let missing = "the root file system has no boot loader: `dctl build-stemcell --debian` puts one in, \
                       earlier versions did not";
        tree.read(&format!("boot/grub/i386-pc/{part}")).map_err(|_| refuse(missing))
    };
    let (first_sector, core) = (loader("boot.img")?, loader("core.img")?);
    boot_record::write(&disk, &first_sector, &core, disk_id, partition_mib)
        .map_err(StemcellError::os("make bootable", to))?;
    disk.sync_all().map_err(StemcellError::os("write", to))?;
    Ok(disk_mib)
}

/// Returns what a disk and its file system are told from others by: the same for the same root file system.
fn ids(digest: &[u8; 32]) -> ([u8; 4], [u8; 16]) {
    let (mut disk, mut id) = ([0; 4], [0; 16]);
    disk.copy_from_slice(&digest[16..20]);
    id.copy_from_slice(&digest[..16]);
    // Version 8, "made by whoever makes it".
    id[6] = (id[6] & 0x0f) | 0x80;
    id[8] = (id[8] & 0x3f) | 0x80;
    (disk, id)
}

fn uuid(id: &[u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn refuse(message: impl Into<String>) -> StemcellError {
    StemcellError::refused(message)
}
