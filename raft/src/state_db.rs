//! One generation of the state database.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode,
};
use rocksdb::{ReadOptions, WriteBatch};

use crate::codec;
use crate::fatal::Fatal;
use crate::state_batch::Writes;
use crate::type_config::{LogId, StoredMembership};
use crate::{Direction, Scan};

/// The owner's keys and values.
const DATA: &str = "data";
/// Ours: what was applied last, and the membership.
const META: &str = "meta";
const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";

/// Memory for blocks of the state that were read lately.
const BLOCK_CACHE_BYTES: usize = 32 << 20;
/// Memory for writes that are not yet in a file, per column family.
const WRITE_BUFFER_BYTES: usize = 16 << 20;

/// One generation of the state database: a directory that a snapshot can replace as a whole.
pub(crate) struct StateDb {
    db: DB,
    /// Made once: making the usual options costs as much as some reads.
    read: ReadOptions,
    dir: PathBuf,
    fatal: Fatal,
    /// Set once another generation took over: the directory goes when the last view of it does.
    retired: AtomicBool,
}

impl StateDb {
    /// Opens the generation in `dir`, creating it when absent.
    pub(crate) fn open(dir: &Path, fatal: Fatal) -> Result<Self, rocksdb::Error> {
        let db = DB::open_cf_descriptors(&db_options(), dir, column_families())?;
        Ok(Self {
            db,
            read: ReadOptions::default(),
            dir: dir.to_owned(),
            fatal,
            retired: AtomicBool::new(false),
        })
    }

    /// Reads the position and the membership of the generation in `dir` without changing it.
    pub(crate) fn peek(
        dir: &Path,
    ) -> Result<(Option<LogId>, StoredMembership), Box<dyn std::error::Error + Send + Sync>> {
        let db = DB::open_cf_descriptors_read_only(&db_options(), dir, column_families(), false)?;
        let meta = db.cf_handle(META).ok_or("the column family `meta` is missing")?;
        let applied = db.get_cf(meta, APPLIED)?.map(|raw| codec::decode_log_id(&raw)).transpose()?;
        let membership =
            db.get_cf(meta, MEMBERSHIP)?.map(|raw| codec::decode_stored_membership(&raw)).transpose()?;
        Ok((applied, membership.unwrap_or_default()))
    }

    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    /// Marks this generation as replaced.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    fn cf(&self, name: &'static str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every column family is opened with the database")
    }

    /// Returns the position of the last applied entry.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.meta(self.db.get_cf(self.cf(META), APPLIED), codec::decode_log_id)
    }

    /// Returns the last applied membership.
    pub(crate) fn membership(&self) -> StoredMembership {
        self.meta(self.db.get_cf(self.cf(META), MEMBERSHIP), codec::decode_stored_membership)
            .unwrap_or_default()
    }

    fn meta<T>(
        &self,
        raw: Result<Option<Vec<u8>>, rocksdb::Error>,
        decode: impl Fn(&[u8]) -> Result<T, codec::DecodeError>,
    ) -> Option<T> {
        let raw = raw.unwrap_or_else(|error| self.fatal.stop("reading the position of the state", error))?;
        match decode(&raw) {
            Ok(value) => Some(value),
            Err(error) => self.fatal.stop("decoding the position of the state", error),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let found = self.db.get_pinned_cf_opt(self.cf(DATA), key, &self.read);
        let found = found.unwrap_or_else(|error| self.fatal.stop("reading the state", error));
        found.map(|value| value.to_vec())
    }

    pub(crate) fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Scan<'_> {
        let (options, mode) = match scan_options(start, end, direction) {
            Some(found) => found,
            None => return Box::new(std::iter::empty()),
        };
        self.pairs(self.db.iterator_cf_opt(self.cf(DATA), options, mode))
    }

    fn pairs<'a>(
        &'a self,
        iterator: impl Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>> + 'a,
    ) -> Scan<'a> {
        Box::new(iterator.map(|pair| match pair {
            Ok((key, value)) => (key.into_vec(), value.into_vec()),
            Err(error) => self.fatal.stop("scanning the state", error),
        }))
    }

    /// Writes what a batch of entries changed, and the position it leads to, at once. Not synced: the log is the
    /// durable copy and is replayed from the position that survived.
    pub(crate) fn write(
        &self,
        writes: &Writes,
        applied: &LogId,
        membership: Option<&StoredMembership>,
    ) -> Result<(), rocksdb::Error> {
        let (data, meta) = (self.cf(DATA), self.cf(META));
        let mut batch = WriteBatch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.put_cf(data, key, value),
                None => batch.delete_cf(data, key),
            }
        }
        batch.put_cf(meta, APPLIED, codec::encode_log_id(applied));
        if let Some(membership) = membership {
            batch.put_cf(meta, MEMBERSHIP, codec::encode_stored_membership(membership));
        }
        self.db.write(batch)
    }
}

impl Drop for StateDb {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire) {
            // What remains after a crash here is removed at the next start.
            if let Err(error) = std::fs::remove_dir_all(&self.dir) {
                tracing::warn!(%error, dir = %self.dir.display(), "a replaced state database was not removed");
            }
        }
    }
}

/// A RocksDB snapshot that keeps its database alive.
pub(crate) use pinned::PinnedSnapshot;

mod pinned {
    //! The only unsafe code of the crate: a snapshot and its database in one value.
    //!
    //! `rocksdb::Snapshot<'a>` borrows the database; we need to hand both out together.
    //! Proof: (1) the reference behind `'static` points into the heap block of the `Arc<StateDb>` in the same struct,
    //! which neither moves nor is mutably borrowed while the `Arc` lives; (2) fields are dropped in the order of
    //! declaration, so the snapshot goes before the `Arc`; (3) the snapshot never leaves this module with the
    //! lifetime `'static`: the methods borrow from `&self`.
    #![allow(unsafe_code)]

    use std::sync::Arc;

    use rocksdb::Snapshot;

    use super::{APPLIED, DATA, META, StateDb, scan_options};
    use crate::codec;
    use crate::type_config::LogId;
    use crate::{Direction, Scan};

    pub(crate) struct PinnedSnapshot {
        snapshot: Snapshot<'static>,
        db: Arc<StateDb>,
    }

    impl PinnedSnapshot {
        pub(crate) fn take(db: Arc<StateDb>) -> Self {
            let snapshot = db.db.snapshot();
            // SAFETY: see the module's proof.
            let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
            Self { snapshot, db }
        }

        pub(crate) fn applied(&self) -> Option<LogId> {
            self.db.meta(self.snapshot.get_cf(self.db.cf(META), APPLIED), codec::decode_log_id)
        }

        pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
            let found = self.snapshot.get_cf(self.db.cf(DATA), key);
            found.unwrap_or_else(|error| self.db.fatal.stop("reading the state", error))
        }

        pub(crate) fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Scan<'_> {
            let (options, mode) = match scan_options(start, end, direction) {
                Some(found) => found,
                None => return Box::new(std::iter::empty()),
            };
            self.db.pairs(self.snapshot.iterator_cf_opt(self.db.cf(DATA), options, mode))
        }
    }
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

fn db_options() -> rocksdb::Options {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail of the write-ahead log is what a crash leaves; damage before it is an error.
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    // One thread writes: it need not be careful of others.
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_total_wal_size(64 << 20);
    options
}

fn column_families() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES).expect("a cache of a fixed, small size");
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&cache);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_format_version(5);
    [DATA, META]
        .map(|name| {
            let mut options = rocksdb::Options::default();
            options.set_block_based_table_factory(&blocks);
            options.set_compression_type(DBCompressionType::Lz4);
            options.set_write_buffer_size(WRITE_BUFFER_BYTES);
            // Most reads while entries are applied are of rows that were written lately, or that there are not.
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.1);
            ColumnFamilyDescriptor::new(name, options)
        })
        .into()
}
