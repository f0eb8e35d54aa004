//! The log database: entries by index, and what Raft must remember about itself.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode, ReadOptions, WriteBatch,
    WriteOptions,
};

use crate::codec::{self, DecodeError};
use crate::error::StartError;
use crate::type_config::{Entry, LogId, Vote};

const LOGS: &str = "logs";
const META: &str = "meta";
const NODE_ID: &[u8] = b"node_id";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// Memory for entries that are not yet in a file. Large: entries are short-lived, and what is purged before it
/// is flushed never costs a compaction.
const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// A failed read of the log database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogReadError {
    #[error("RocksDB: {0}")]
    Rocks(#[from] rocksdb::Error),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("the key of a log entry is not an index")]
    Key,
}

/// Whether a write must be on the disk before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Fsync before returning.
    Synced,
    /// Whenever the operating system likes.
    Buffered,
}

/// The log database.
pub(crate) struct LogDb {
    db: DB,
}

/// Changes to the log database that become visible, and durable, together.
#[derive(Default)]
pub(crate) struct LogBatch {
    batch: WriteBatch,
}

impl LogDb {
    /// Opens the database in `dir` for replica `node_id`, creating it when absent.
    pub(crate) fn open(dir: &Path, node_id: u64) -> Result<Self, StartError> {
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Database {
            database: "log",
            path: dir.to_owned(),
            source,
        };
        let db =
            DB::open_cf_descriptors(&db_options(), dir, column_families()).map_err(|e| damaged(e.into()))?;
        let log = Self { db };
        match log.meta(NODE_ID).map_err(|e| damaged(e.into()))? {
            None => {
                let mut batch = LogBatch::default();
                batch.batch.put_cf(log.cf(META), NODE_ID, node_id.to_be_bytes());
                log.write(batch, Durability::Synced).map_err(|e| damaged(e.into()))?;
            }
            Some(raw) => {
                let raw = <[u8; 8]>::try_from(raw).map_err(|_| damaged("the node id is malformed".into()))?;
                let found = u64::from_be_bytes(raw);
                if found != node_id {
                    let path = dir.parent().map_or_else(PathBuf::new, Path::to_owned);
                    return Err(StartError::OtherNode { path, expected: node_id, found });
                }
            }
        }
        // Whatever cannot be read now could not be read later either; now there is somebody to tell.
        log.vote().map_err(|e| damaged(e.into()))?;
        log.committed().map_err(|e| damaged(e.into()))?;
        log.last().map_err(|e| damaged(e.into()))?;
        Ok(log)
    }

    fn cf(&self, name: &'static str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every column family is opened with the database")
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LogReadError> {
        Ok(self.db.get_cf(self.cf(META), key)?)
    }

    pub(crate) fn vote(&self) -> Result<Option<Vote>, LogReadError> {
        Ok(self.meta(VOTE)?.map(|raw| codec::decode_vote(&raw)).transpose()?)
    }

    pub(crate) fn committed(&self) -> Result<Option<LogId>, LogReadError> {
        Ok(self.meta(COMMITTED)?.map(|raw| codec::decode_log_id(&raw)).transpose()?)
    }

    pub(crate) fn purged(&self) -> Result<Option<LogId>, LogReadError> {
        Ok(self.meta(PURGED)?.map(|raw| codec::decode_log_id(&raw)).transpose()?)
    }

    /// Returns the id of the last entry, or of the last purged one if there is no entry left.
    pub(crate) fn last(&self) -> Result<Option<LogId>, LogReadError> {
        match self.db.iterator_cf(self.cf(LOGS), IteratorMode::End).next().transpose()? {
            Some((_, raw)) => Ok(Some(codec::decode_entry(raw.into_vec().into())?.log_id)),
            None => self.purged(),
        }
    }

    /// Returns the entries from `start` up to, without, `end`; at least one if there is one, and not more once
    /// `max_bytes` are reached.
    pub(crate) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Entry>, LogReadError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start.to_be_bytes());
        options.set_iterate_upper_bound(end.to_be_bytes());
        let mut entries = Vec::new();
        let mut bytes = 0;
        for pair in self.db.iterator_cf_opt(self.cf(LOGS), options, IteratorMode::Start) {
            let (key, raw) = pair?;
            bytes += raw.len();
            let entry = codec::decode_entry(Bytes::from(raw.into_vec()))?;
            if key.as_ref() != entry.log_id.index.to_be_bytes() {
                return Err(LogReadError::Key);
            }
            entries.push(entry);
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(entries)
    }

    /// Carries out `batch` at once.
    pub(crate) fn write(&self, batch: LogBatch, durability: Durability) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.db.write_opt(batch.batch, &options)
    }

    pub(crate) fn put_entry(&self, batch: &mut LogBatch, entry: &Entry) {
        batch.batch.put_cf(self.cf(LOGS), entry.log_id.index.to_be_bytes(), codec::encode_entry(entry));
    }

    pub(crate) fn put_vote(&self, batch: &mut LogBatch, vote: &Vote) {
        batch.batch.put_cf(self.cf(META), VOTE, codec::encode_vote(vote));
    }

    pub(crate) fn put_committed(&self, batch: &mut LogBatch, committed: Option<&LogId>) {
        match committed {
            Some(id) => batch.batch.put_cf(self.cf(META), COMMITTED, codec::encode_log_id(id)),
            None => batch.batch.delete_cf(self.cf(META), COMMITTED),
        }
    }

    /// Removes all entries from `first` on.
    pub(crate) fn truncate(&self, batch: &mut LogBatch, first: u64) {
        batch.batch.delete_range_cf(self.cf(LOGS), first.to_be_bytes(), u64::MAX.to_be_bytes());
    }

    /// Removes all entries up to `last`, and remembers that.
    pub(crate) fn purge(&self, batch: &mut LogBatch, last: &LogId) {
        batch.batch.delete_range_cf(self.cf(LOGS), 0u64.to_be_bytes(), (last.index + 1).to_be_bytes());
        batch.batch.put_cf(self.cf(META), PURGED, codec::encode_log_id(last));
    }
}

fn db_options() -> rocksdb::Options {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail is what a crash in the middle of an unacknowledged write leaves; damage before it is an error.
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    // One thread writes: it need not be careful of others.
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_total_wal_size(256 << 20);
    options
}

fn column_families() -> Vec<ColumnFamilyDescriptor> {
    [LOGS, META]
        .map(|name| {
            let mut options = rocksdb::Options::default();
            options.set_compression_type(DBCompressionType::Lz4);
            options.set_write_buffer_size(WRITE_BUFFER_BYTES);
            ColumnFamilyDescriptor::new(name, options)
        })
        .into()
}
