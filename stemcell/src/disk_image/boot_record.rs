//! The first MiB of a disk: who is started, and where the partition is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::PARTITION_AT_MIB;

/// Bytes of a sector.
const SECTOR: usize = 512;
/// In GRUB's first sector: a jump that skips the repair of what some firmware gets wrong, which drive it has booted from.
/// GRUB's own installer removes it for hard disks.
const DRIVE_CHECK_SKIPPED_AT: usize = 0x66;
/// Do nothing, twice.
const NOTHING: [u8; 2] = [0x90, 0x90];
/// Where the disk's signature is, then the table.
const SIGNATURE_AT: usize = 440;
const TABLE_AT: usize = 446;
/// What ends a boot record.
const END: [u8; 2] = [0x55, 0xaa];
/// Bootable; Linux.
const ACTIVE: u8 = 0x80;
const LINUX: u8 = 0x83;
/// Cylinders, heads and sectors of where a partition begins that begins at 1 MiB, and of an end that can't be said so.
const FIRST_CYLINDER: [u8; 3] = [0x20, 0x21, 0x00];
const LAST_CYLINDER: [u8; 3] = [0xfe, 0xff, 0xff];

/// Writes them. GRUB's first sector looks for the core in the sectors behind it, unless somebody says otherwise.
pub(super) fn write(
    disk: &File,
    first_sector: &[u8],
    core: &[u8],
    disk_id: [u8; 4],
    partition_mib: u64,
) -> io::Result<()> {
    let record = record(first_sector, disk_id, partition_mib)?;
    let room = (PARTITION_AT_MIB as usize) << 20;
    if core.is_empty() || SECTOR + core.len() > room {
        return Err(io::Error::other(format!("the boot loader has {} bytes, for {room}", core.len())));
    }
    disk.write_all_at(&record, 0)?;
    disk.write_all_at(core, SECTOR as u64)
}

fn record(first_sector: &[u8], disk_id: [u8; 4], partition_mib: u64) -> io::Result<[u8; SECTOR]> {
    let not_one = |_| io::Error::other("the boot loader's first sector is none");
    let mut record: [u8; SECTOR] = first_sector.try_into().map_err(not_one)?;
    let sectors = |mib: u64| u32::try_from((mib << 20) / SECTOR as u64).map_err(io::Error::other);
    record[DRIVE_CHECK_SKIPPED_AT..DRIVE_CHECK_SKIPPED_AT + NOTHING.len()].copy_from_slice(&NOTHING);
    record[SIGNATURE_AT..TABLE_AT].fill(0);
    record[SIGNATURE_AT..SIGNATURE_AT + 4].copy_from_slice(&disk_id);
    let mut entry = vec![ACTIVE];
    entry.extend(FIRST_CYLINDER);
    entry.push(LINUX);
    entry.extend(LAST_CYLINDER);
    entry.extend(sectors(PARTITION_AT_MIB)?.to_le_bytes());
    entry.extend(sectors(partition_mib)?.to_le_bytes());
    record[TABLE_AT..].fill(0);
    record[TABLE_AT..TABLE_AT + entry.len()].copy_from_slice(&entry);
    record[SECTOR - END.len()..].copy_from_slice(&END);
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_keeps_the_code_and_has_one_partition() {
        let record = record(&[0xeb; 512], *b"abcd", 2047).unwrap();
        assert_eq!(record[..0x66], [0xeb; 0x66]);
        assert_eq!(record[0x66..0x69], [0x90, 0x90, 0xeb]);
        assert_eq!(record[0x69..440], [0xeb; 440 - 0x69]);
        assert_eq!(&record[440..446], b"abcd\0\0");
        let entry =
            [&[0x80, 0x20, 0x21, 0, 0x83, 0xfe, 0xff, 0xff][..], &[0, 8, 0, 0], &[0, 0xf8, 0x3f, 0]].concat();
        assert_eq!(record[446..462], entry);
        assert_eq!(record[462..510], [0; 48]);
        assert_eq!(record[510..], [0x55, 0xaa]);
    }

    #[test]
    fn a_boot_loader_that_has_no_room_is_refused() {
        let disk = tempfile::tempfile().unwrap();
        let error = write(&disk, &[0; 512], &vec![1; 1 << 20], [0; 4], 63).unwrap_err().to_string();
        assert_eq!(error, "the boot loader has 1048576 bytes, for 1048576");
        let error = write(&disk, &[0; 511], &[1; 512], [0; 4], 63).unwrap_err().to_string();
        assert_eq!(error, "the boot loader's first sector is none");
    }
}
