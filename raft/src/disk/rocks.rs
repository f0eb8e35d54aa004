//! RocksDB as a database of ours.

use std::path::Path;
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{Change, Database, DatabaseKind, DiskError, DiskScan, Durability, Family, Reader};
use crate::Direction;

/// Memory for entries of the log that are not yet in a file. Large: entries are short-lived, and what is purged before it
/// is flushed never costs a compaction.
const LOG_BUFFER_BYTES: usize = 64 << 20;
/// Memory for rows of the state that are not yet in a file, per family.
const STATE_BUFFER_BYTES: usize = 16 << 20;
/// Memory for blocks of the state that were read lately.
const BLOCK_CACHE_BYTES: usize = 32 << 20;

/// A RocksDB; our families are its column families.
pub(super) struct RocksDatabase {
    db: DB,
    /// Made once: making the usual options costs as much as some reads.
    read: ReadOptions,
}

impl RocksDatabase {
    pub(super) fn open(dir: &Path, kind: DatabaseKind) -> Result<Self, rocksdb::Error> {
        let db = DB::open_cf_descriptors(&options(kind), dir, families(kind))?;
        Ok(Self { db, read: ReadOptions::default() })
    }

    pub(super) fn peek(dir: &Path, kind: DatabaseKind) -> Result<Self, rocksdb::Error> {
        let db = DB::open_cf_descriptors_read_only(&options(kind), dir, families(kind), false)?;
        Ok(Self { db, read: ReadOptions::default() })
    }

    fn family(&self, name: Family) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family is opened with the database")
    }
}

impl Reader for RocksDatabase {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        let found = self.db.get_pinned_cf_opt(self.family(family), key, &self.read)?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, family: Family, start: &[u8], end: Option<&[u8]>, direction: Direction) -> DiskScan<'_> {
        match scan_options(start, end, direction) {
            Some((options, mode)) => pairs(self.db.iterator_cf_opt(self.family(family), options, mode)),
            None => Box::new(std::iter::empty()),
        }
    }
}

impl Database for RocksDatabase {
    fn write(&self, changes: Vec<Change>, durability: Durability) -> Result<(), DiskError> {
        let mut batch = WriteBatch::default();
        for change in changes {
            match change {
                Change::Put(family, key, value) => batch.put_cf(self.family(family), key, value),
                Change::Delete(family, key) => batch.delete_cf(self.family(family), key),
                Change::DeleteRange(family, start, end) => {
                    batch.delete_range_cf(self.family(family), start, end);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        Ok(self.db.write_opt(batch, &options)?)
    }

    fn sync(&self) -> Result<(), DiskError> {
        Ok(self.db.flush_wal(true)?)
    }

    fn pin(self: Arc<Self>) -> Arc<dyn Reader> {
        Arc::new(pinned::Pinned::take(self))
    }

    fn checkpoint(&self, to: &Path) -> Result<(), DiskError> {
        Ok(Checkpoint::new(&self.db)?.create_checkpoint(to)?)
    }
}

mod pinned {
    //! The only unsafe code of the crate: a snapshot and its database in one value.
    //!
    //! `rocksdb::Snapshot<'a>` borrows the database; we need to hand both out together.
    //! Proof: (1) the reference behind `'static` points into the heap block of the `Arc<RocksDatabase>` in the same
    //! struct, which neither moves nor is mutably borrowed while the `Arc` lives; (2) fields are dropped in the order of
    //! declaration, so the snapshot goes before the `Arc`; (3) the snapshot never leaves this module with the
    //! lifetime `'static`: the methods borrow from `&self`.
    #![allow(unsafe_code)]

    use std::sync::Arc;

    use rocksdb::Snapshot;

    use super::{DiskError, DiskScan, Family, Reader, RocksDatabase, pairs, scan_options};
    use crate::Direction;

    pub(super) struct Pinned {
        snapshot: Snapshot<'static>,
        db: Arc<RocksDatabase>,
    }

    impl Pinned {
        pub(super) fn take(db: Arc<RocksDatabase>) -> Self {
            let snapshot = db.db.snapshot();
            // SAFETY: see the module's proof.
            let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
            Self { snapshot, db }
        }
    }

    impl Reader for Pinned {
        fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
            Ok(self.snapshot.get_cf(self.db.family(family), key)?)
        }

        fn scan(
            &self,
            family: Family,
            start: &[u8],
            end: Option<&[u8]>,
            direction: Direction,
        ) -> DiskScan<'_> {
            match scan_options(start, end, direction) {
                Some((options, mode)) => {
                    pairs(self.snapshot.iterator_cf_opt(self.db.family(family), options, mode))
                }
                None => Box::new(std::iter::empty()),
            }
        }
    }
}

fn pairs<'a>(
    iterator: impl Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>> + 'a,
) -> DiskScan<'a> {
    Box::new(iterator.map(|pair| {
        let (key, value) = pair?;
        Ok((key.into_vec(), value.into_vec()))
    }))
}

/// Returns how to iterate over `start <= key < end`, or `None` if that is nothing.
fn scan_options(
    start: &[u8],
    end: Option<&[u8]>,
    direction: Direction,
) -> Option<(ReadOptions, IteratorMode<'static>)> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(start);
    if let Some(end) = end {
        if end <= start {
            return None;
        }
        options.set_iterate_upper_bound(end);
    }
    let mode = match direction {
        Direction::Forward => IteratorMode::Start,
        Direction::Reverse => IteratorMode::End,
    };
    Some((options, mode))
}

fn options(kind: DatabaseKind) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail is what a crash in the middle of an unacknowledged write leaves; damage before it is an error.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // One thread writes: it need not be careful of others.
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    // No diary of what it does while it runs. On a full disk that file, `LOG`, can't be written either, and a RocksDB that
    // was built with its assertions, as Debian's is, then dies amid reporting that a write has failed: nobody would be
    // told why the replica has ended. What it says when it is opened stays.
    options.set_log_level(LogLevel::Fatal);
    options.set_stats_dump_period_sec(0);
    options.set_max_total_wal_size(match kind {
        DatabaseKind::Log => 256 << 20,
        DatabaseKind::State => 64 << 20,
    });
    options
}

fn families(kind: DatabaseKind) -> Vec<ColumnFamilyDescriptor> {
    let of = match kind {
        DatabaseKind::Log => log_family(),
        DatabaseKind::State => state_family(),
    };
    kind.families().iter().map(|name| ColumnFamilyDescriptor::new(*name, of.clone())).collect()
}

fn log_family() -> Options {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(LOG_BUFFER_BYTES);
    options
}

fn state_family() -> Options {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES).expect("a cache of a fixed, small size");
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&cache);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(STATE_BUFFER_BYTES);
    // Most reads while entries are applied are of rows that were written lately, or that there are not.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.1);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_runs_keeps_no_diary() {
        let dir = tempfile::tempdir().unwrap();
        let database = RocksDatabase::open(dir.path(), DatabaseKind::Log).unwrap();
        database.write(vec![Change::Put("meta", vec![1], vec![1])], Durability::Synced).unwrap();
        // What RocksDB would tell most of.
        database.db.flush_cf(database.family("meta")).unwrap();
        drop(database);
        let diary = std::fs::read_to_string(dir.path().join("LOG")).unwrap();
        assert!(!diary.contains("EVENT_LOG") && !diary.contains("Flush"), "{diary}");
    }
}
