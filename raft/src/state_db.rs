//! One generation of the state database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use known_bugs::Bug;

use crate::codec;
use crate::disk::{Change, Database, DatabaseKind, Disk, DiskError, DiskScan, Durability, Family, Reader};
use crate::fatal::Fatal;
use crate::state_batch::Writes;
use crate::type_config::{LogId, StoredMembership};
use crate::{Direction, Scan};

/// The owner's keys and values.
const DATA: Family = "data";
/// Ours: what was applied last, and the membership.
const META: Family = "meta";
const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";

/// One generation of the state database: a directory that a snapshot can replace as a whole.
pub(crate) struct StateDb {
    db: Arc<dyn Database>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    fatal: Fatal,
    /// Set once another generation took over: the directory goes when the last view of it does.
    retired: AtomicBool,
}

impl StateDb {
    /// Opens the generation in `dir`, creating it when absent.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, fatal: Fatal) -> Result<Self, DiskError> {
        let db = disk.open(dir, DatabaseKind::State)?;
        Ok(Self { db, disk: disk.clone(), dir: dir.to_owned(), fatal, retired: AtomicBool::new(false) })
    }

    /// Reads the position and the membership of the generation in `dir` without changing it.
    pub(crate) fn peek(disk: &dyn Disk, dir: &Path) -> Result<(Option<LogId>, StoredMembership), DiskError> {
        let db = disk.peek(dir, DatabaseKind::State)?;
        let applied = db.get(META, APPLIED)?.map(|raw| codec::decode_log_id(&raw)).transpose()?;
        let membership =
            db.get(META, MEMBERSHIP)?.map(|raw| codec::decode_stored_membership(&raw)).transpose()?;
        Ok((applied, membership.unwrap_or_default()))
    }

    pub(crate) fn db(&self) -> &dyn Database {
        &*self.db
    }

    /// Marks this generation as replaced.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Returns the position of the last applied entry.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.meta(self.db.get(META, APPLIED), codec::decode_log_id)
    }

    /// Returns the last applied membership.
    pub(crate) fn membership(&self) -> StoredMembership {
        self.meta(self.db.get(META, MEMBERSHIP), codec::decode_stored_membership).unwrap_or_default()
    }

    fn meta<T>(
        &self,
        raw: Result<Option<Vec<u8>>, DiskError>,
        decode: impl Fn(&[u8]) -> Result<T, codec::DecodeError>,
    ) -> Option<T> {
        let raw = self.fatal.or_stop("reading the position of the state", raw)?;
        match decode(&raw) {
            Ok(value) => Some(value),
            Err(error) => self.fatal.stop("decoding the position of the state", error),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fatal.or_stop("reading the state", self.db.get(DATA, key))
    }

    pub(crate) fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Scan<'_> {
        self.pairs(self.db.scan(DATA, start, end, direction))
    }

    fn pairs<'a>(&'a self, scan: DiskScan<'a>) -> Scan<'a> {
        Box::new(scan.map(|pair| self.fatal.or_stop("scanning the state", pair)))
    }

    /// Removes every row whose key begins with `table`: what [`known_bugs::Bug::AnswersForgottenAtSnapshot`] does.
    pub(crate) fn forget_table(&self, table: u8) -> Result<(), DiskError> {
        self.db.write(vec![Change::DeleteRange(DATA, vec![table], vec![table + 1])], Durability::Buffered)
    }

    /// Writes what a batch of entries changed, and the position it leads to, at once. Not synced: the log is the
    /// durable copy and is replayed from the position that survived.
    pub(crate) fn write(
        &self,
        writes: &Writes,
        applied: &LogId,
        membership: Option<&StoredMembership>,
    ) -> Result<(), DiskError> {
        let mut changes: Vec<Change> = writes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => Change::Put(DATA, key.clone(), value.clone()),
                None => Change::Delete(DATA, key.clone()),
            })
            .collect();
        let position = Change::Put(META, APPLIED.into(), codec::encode_log_id(applied));
        if known_bugs::is(Bug::StateAndPositionApart) {
            self.db.write(vec![position.clone()], Durability::Buffered)?;
        }
        changes.push(position);
        if let Some(membership) = membership {
            changes.push(Change::Put(META, MEMBERSHIP.into(), codec::encode_stored_membership(membership)));
        }
        self.db.write(changes, Durability::Buffered)
    }
}

impl Drop for StateDb {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire) {
            // What remains after a crash here is removed at the next start.
            if let Err(error) = self.disk.remove_dir(&self.dir) {
                tracing::warn!(%error, dir = %self.dir.display(), "a replaced state database was not removed");
            }
        }
    }
}

/// A generation as it was at one moment; keeps it alive.
pub(crate) struct PinnedState {
    db: Arc<StateDb>,
    reader: Arc<dyn Reader>,
}

impl PinnedState {
    pub(crate) fn take(db: Arc<StateDb>) -> Self {
        let reader = db.db.clone().pin();
        Self { db, reader }
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        self.db.meta(self.reader.get(META, APPLIED), codec::decode_log_id)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.db.fatal.or_stop("reading the state", self.reader.get(DATA, key))
    }

    pub(crate) fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Scan<'_> {
        self.db.pairs(self.reader.scan(DATA, start, end, direction))
    }
}
