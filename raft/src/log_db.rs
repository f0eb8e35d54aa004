//! The log database: entries by index, and what Raft must remember about itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::Direction;
use crate::codec::{self, DecodeError};
use crate::disk::{Change, Database, DatabaseKind, Disk, DiskError, Durability, Family};
use crate::error::StartError;
use crate::type_config::{Entry, LogId, Vote};

pub(crate) const LOGS: Family = "logs";
const META: Family = "meta";
const NODE_ID: &[u8] = b"node_id";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// A failed read of the log database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogReadError {
    #[error("{0}")]
    Disk(DiskError),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("the key of a log entry is not its index")]
    Key,
    #[error("entry {index} is damaged: {source}")]
    Entry { index: u64, source: DecodeError },
    #[error("entry {expected} is missing: {found} follows its predecessor")]
    Missing { expected: u64, found: u64 },
}

impl From<DiskError> for LogReadError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// What a directory should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A log, or nothing yet.
    Any,
    /// A log that somebody has written to: one that begins anew would have forgotten whom it voted for.
    Old,
}

/// The log database.
pub(crate) struct LogDb {
    db: Arc<dyn Database>,
}

/// Changes to the log database that become visible, and durable, together.
#[derive(Default)]
pub(crate) struct LogBatch {
    changes: Vec<Change>,
}

impl LogDb {
    /// Opens the database in `dir` for replica `node_id`, creating it when absent.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        node_id: u64,
        expected: Expected,
    ) -> Result<Self, StartError> {
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Database {
            database: "log",
            path: dir.to_owned(),
            source,
        };
        let log = Self { db: disk.open(dir, DatabaseKind::Log).map_err(damaged)? };
        match log.meta(NODE_ID).map_err(|e| damaged(e.into()))? {
            None if expected == Expected::Old => {
                return Err(damaged(
                    "it is empty, and the state beside it is not: what it held is lost".into(),
                ));
            }
            None => {
                let mut batch = LogBatch::default();
                batch.put(META, NODE_ID, node_id.to_be_bytes().into());
                log.write(batch, Durability::Synced).map_err(damaged)?;
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

    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LogReadError> {
        Ok(self.db.get(META, key)?)
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
        match self.db.scan(LOGS, &[], None, Direction::Reverse).next().transpose()? {
            Some((_, raw)) => Ok(Some(codec::decode_entry(raw.into())?.log_id)),
            None => self.purged(),
        }
    }

    /// Returns the entries from `start` up to, without, `end`; at least one if there is one, and not more once
    /// `max_bytes` are reached.
    pub(crate) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Entry>, LogReadError> {
        let (start, end) = (start.to_be_bytes(), end.to_be_bytes());
        let mut entries = Vec::new();
        let mut bytes = 0;
        for pair in self.db.scan(LOGS, &start, Some(&end), Direction::Forward) {
            let (key, raw) = pair?;
            bytes += raw.len();
            let entry = codec::decode_entry(Bytes::from(raw))?;
            if key != entry.log_id.index.to_be_bytes() {
                return Err(LogReadError::Key);
            }
            entries.push(entry);
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(entries)
    }

    /// Reads every entry once.
    pub(crate) fn check(&self) -> Result<(), LogReadError> {
        let mut expected = self.purged()?.map(|purged| purged.index + 1);
        for pair in self.db.scan(LOGS, &[], None, Direction::Forward) {
            let (key, raw) = pair?;
            let index = u64::from_be_bytes(key.try_into().map_err(|_| LogReadError::Key)?);
            let entry =
                codec::decode_entry(raw.into()).map_err(|source| LogReadError::Entry { index, source })?;
            if entry.log_id.index != index {
                return Err(LogReadError::Key);
            }
            if let Some(expected) = expected.replace(index + 1).filter(|expected| *expected != index) {
                return Err(LogReadError::Missing { expected, found: index });
            }
        }
        Ok(())
    }

    /// Carries out `batch` at once.
    pub(crate) fn write(&self, batch: LogBatch, durability: Durability) -> Result<(), DiskError> {
        self.db.write(batch.changes, durability)
    }
}

impl LogBatch {
    fn put(&mut self, family: Family, key: &[u8], value: Vec<u8>) {
        self.changes.push(Change::Put(family, key.into(), value));
    }

    pub(crate) fn put_entry(&mut self, entry: &Entry) {
        self.put(LOGS, &entry.log_id.index.to_be_bytes(), codec::encode_entry(entry));
    }

    pub(crate) fn put_vote(&mut self, vote: &Vote) {
        self.put(META, VOTE, codec::encode_vote(vote));
    }

    pub(crate) fn put_committed(&mut self, committed: Option<&LogId>) {
        match committed {
            Some(id) => self.put(META, COMMITTED, codec::encode_log_id(id)),
            None => self.changes.push(Change::Delete(META, COMMITTED.into())),
        }
    }

    /// Removes all entries from `first` on.
    pub(crate) fn truncate(&mut self, first: u64) {
        self.delete_entries(first, u64::MAX);
    }

    /// Removes all entries up to `last`, and remembers that.
    pub(crate) fn purge(&mut self, last: &LogId) {
        self.delete_entries(0, last.index + 1);
        self.put(META, PURGED, codec::encode_log_id(last));
    }

    fn delete_entries(&mut self, start: u64, end: u64) {
        let (start, end) = (start.to_be_bytes().into(), end.to_be_bytes().into());
        self.changes.push(Change::DeleteRange(LOGS, start, end));
    }
}
