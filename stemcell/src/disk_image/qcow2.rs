//! A disk as QEMU's "qcow2" has it: without what is empty. The oldest version, which everybody reads, and nothing optional.
//!
//! ```text
//! header │ table of counts │ counts │ table of tables │ tables │ clusters that hold something
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// A cluster is the unit of everything.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of a table, and counts, in a cluster.
const ENTRIES: u64 = CLUSTER / 8;
const COUNTS: u64 = CLUSTER / 2;
/// Says that a cluster is in use once, and may be written in place.
const ONCE: u64 = 1 << 63;
/// Bytes of a header.
const HEADER: u32 = 72;

/// Writes a disk anew.
pub(crate) fn write(to: &Path, raw: &Path) -> io::Result<()> {
    let mut disk = File::open(raw)?;
    let size = disk.metadata()?.len();
    let held = held(&mut disk, size)?;
    let places = Places::of(size, held.len() as u64)?;
    let mut out = BufWriter::new(File::create(to)?);
    out.write_all(&places.header(size))?;
    pad(&mut out)?;
    // Counts, by a table with one entry for each cluster of them: every cluster of the file is in use once.
    numbers(&mut out, (0..places.count_clusters).map(|n| (places.counts + n) << CLUSTER_BITS))?;
    for _ in 0..places.clusters {
        out.write_all(&1u16.to_be_bytes())?;
    }
    pad(&mut out)?;
    numbers(&mut out, (0..places.tables).map(|n| ((places.first_table + n) << CLUSTER_BITS) | ONCE))?;
    let mut next = held.iter().zip(places.first_data..).peekable();
    let entries =
        (0..places.tables * ENTRIES).map(|cluster| match next.next_if(|(held, _)| **held == cluster) {
            Some((_, place)) => (place << CLUSTER_BITS) | ONCE,
            None => 0,
        });
    numbers(&mut out, entries)?;
    let mut cluster_of = vec![0; CLUSTER as usize];
    for cluster in held {
        read_cluster(&mut disk, cluster, size, &mut cluster_of)?;
        out.write_all(&cluster_of)?;
    }
    out.into_inner()?.sync_all()
}

/// Where everything is, in clusters from the beginning of the file; and how much of it there is.
struct Places {
    clusters: u64,
    counts: u64,
    count_clusters: u64,
    table_of_tables: u64,
    first_table: u64,
    tables: u64,
    first_data: u64,
}

impl Places {
    fn of(size: u64, data: u64) -> io::Result<Self> {
        let tables = size.div_ceil(CLUSTER).div_ceil(ENTRIES);
        let mut count_clusters = 1;
        // Header, table of counts, table of tables; the counts count themselves.
        let all = |count_clusters| 3 + count_clusters + tables + data;
        while all(count_clusters) > count_clusters * COUNTS {
            count_clusters += 1;
        }
        if tables > ENTRIES || count_clusters > ENTRIES {
            return Err(io::Error::other(format!("a disk of {size} bytes is too large")));
        }
        let counts = 2;
        let table_of_tables = counts + count_clusters;
        let first_table = table_of_tables + 1;
        let (clusters, first_data) = (all(count_clusters), first_table + tables);
        Ok(Self { clusters, counts, count_clusters, table_of_tables, first_table, tables, first_data })
    }

    fn header(&self, size: u64) -> Vec<u8> {
        let mut header = b"QFI\xfb\x00\x00\x00\x02".to_vec();
        // No disk behind it: where its name is, how long.
        header.extend([0; 12]);
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(size.to_be_bytes());
        // Not encrypted.
        header.extend([0; 4]);
        header.extend((self.tables as u32).to_be_bytes());
        header.extend((self.table_of_tables << CLUSTER_BITS).to_be_bytes());
        header.extend(CLUSTER.to_be_bytes());
        header.extend(1u32.to_be_bytes());
        // No snapshots: how many, where.
        header.extend([0; 12]);
        debug_assert_eq!(header.len(), HEADER as usize, "what the format says");
        header
    }
}

/// Returns which clusters of a disk hold something.
fn held(disk: &mut File, size: u64) -> io::Result<Vec<u64>> {
    let (empty, mut cluster_of) = (vec![0; CLUSTER as usize], vec![0; CLUSTER as usize]);
    let mut held = Vec::new();
    for cluster in 0..size.div_ceil(CLUSTER) {
        read_cluster(disk, cluster, size, &mut cluster_of)?;
        if cluster_of != empty {
            held.push(cluster);
        }
    }
    Ok(held)
}

/// Reads a cluster; the last one may end early.
fn read_cluster(disk: &mut File, cluster: u64, size: u64, into: &mut [u8]) -> io::Result<()> {
    let at = cluster << CLUSTER_BITS;
    let (there, missing) = into.split_at_mut(CLUSTER.min(size - at) as usize);
    disk.seek(SeekFrom::Start(at))?;
    missing.fill(0);
    disk.read_exact(there)
}

/// Writes numbers, and what is missing to whole clusters.
fn numbers(out: &mut BufWriter<File>, numbers: impl Iterator<Item = u64>) -> io::Result<()> {
    for number in numbers {
        out.write_all(&number.to_be_bytes())?;
    }
    pad(out)
}

fn pad(out: &mut BufWriter<File>) -> io::Result<()> {
    let at = out.stream_position()?;
    let missing = at.next_multiple_of(CLUSTER) - at;
    out.write_all(&vec![0; missing as usize])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    /// Returns a number of a disk.
    fn number(disk: &[u8], at: u64) -> u64 {
        let at = at as usize;
        u64::from_be_bytes(disk[at..at + 8].try_into().unwrap())
    }

    /// More than one table is for, and an end inside a cluster.
    const SIZE: u64 = (ENTRIES + 3) * CLUSTER - 512;

    #[test]
    fn the_header_is_as_the_format_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, path) = (dir.path().join("raw"), dir.path().join("qcow2"));
        File::create(&raw).unwrap().set_len(SIZE).unwrap();
        write(&path, &raw).unwrap();
        let disk = std::fs::read(path).unwrap();
        let header = [
            &b"QFI\xfb"[..],
            &[0, 0, 0, 2],
            // Nothing behind it: where its name is, how long.
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0],
            // Clusters of 64 KiB, and the size.
            &[0, 0, 0, 16],
            &[0, 0, 0, 0, 0x20, 0x02, 0xfe, 0x00],
            // Not encrypted.
            &[0, 0, 0, 0],
            // Two tables, named in the fourth cluster.
            &[0, 0, 0, 2],
            &[0, 0, 0, 0, 0, 3, 0, 0],
            // The table of counts is in the second cluster, and is one.
            &[0, 0, 0, 0, 0, 1, 0, 0],
            &[0, 0, 0, 1],
            // No snapshots: how many, where.
            &[0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(header.len(), 72);
        assert_eq!(disk[..72], header);
        assert!(disk[72..0x1_0000].iter().all(|byte| *byte == 0), "an extension follows the header");
        assert_eq!(disk[0x1_0000..0x1_0010], [0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(disk[0x3_0000..0x3_0010], [0x80, 0, 0, 0, 0, 4, 0, 0, 0x80, 0, 0, 0, 0, 5, 0, 0]);
        assert_eq!(disk.len(), 0x6_0000);
    }

    #[test]
    fn whoever_follows_the_tables_reads_the_same_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (raw_path, path) = (dir.path().join("raw"), dir.path().join("qcow2"));
        let size = SIZE;
        let raw = File::create(&raw_path).unwrap();
        raw.set_len(size).unwrap();
        for (at, text) in [
            (0, "first"),
            (5 * CLUSTER - 3, "on a border"),
            (ENTRIES * CLUSTER + 7, "beyond"),
            (size - 4, "last"),
        ] {
            raw.write_all_at(text.as_bytes(), at).unwrap();
        }
        write(&path, &raw_path).unwrap();
        let (raw, disk) = (std::fs::read(raw_path).unwrap(), std::fs::read(path).unwrap());
        let (tables, empty) = (number(&disk, 40), vec![0; CLUSTER as usize]);
        for (wanted, cluster) in raw.chunks(CLUSTER as usize).zip(0..) {
            let table = number(&disk, tables + cluster / ENTRIES * 8) & !ONCE;
            let found = match number(&disk, table + cluster % ENTRIES * 8) & !ONCE {
                0 => &empty,
                at => &disk[at as usize..][..CLUSTER as usize],
            };
            assert!(found[..wanted.len()] == *wanted, "cluster {cluster} is another");
        }
        let counts = number(&disk, number(&disk, 48)) as usize;
        let used = disk.len() / CLUSTER as usize;
        // Header, three tables of tables, their two, and five clusters that hold something.
        assert_eq!((disk.len() % CLUSTER as usize, used), (0, 11));
        let count = |n: usize| u16::from_be_bytes([disk[counts + 2 * n], disk[counts + 2 * n + 1]]);
        assert!((0..used).all(|n| count(n) == 1) && count(used) == 0, "every cluster is counted once");
    }
}
