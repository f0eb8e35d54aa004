//! Reading everything that a replica has, to know whether it is what was written.
//!
//! Every record in the databases and in their logs has a checksum that RocksDB compares when it is read. So a damaged one is
//! never served; but it lies there unseen until somebody reads it. Here everything is read.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::Direction;
use crate::disk::{DatabaseKind, Disk, DiskError};
use crate::log_db::{Expected, LogDb};
use crate::state_db::StateDb;
use crate::state_store::{CURRENT, read_current};
use crate::type_config::LogId;

/// Something that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `log`, `state` or `snapshot`.
    pub what: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What was found: the file, the record.
    pub found: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} in `{}` is damaged: {}", self.what, self.path.display(), self.found)
    }
}

/// Reads all that the replica with its data in `data_dir` has; it must not run. Returns what is damaged.
pub fn examine(disk: &dyn Disk, data_dir: &Path, node_id: u64) -> Vec<Damage> {
    let (log, states, snapshots) = (data_dir.join("log"), data_dir.join("state"), data_dir.join("snapshots"));
    let mut damages = Vec::new();
    let mut note = |what, path: &Path, found: Result<(), DiskError>| {
        if let Err(error) = found {
            damages.push(Damage { what, path: path.to_owned(), found: chain(&*error) });
        }
    };
    note("log", &log, examine_log(disk, &log, node_id));
    note("state", &states, examine_state(disk, &states));
    // None yet is no damage.
    for entry in disk.list(&snapshots).unwrap_or_default() {
        if entry.is_dir && entry.name.starts_with(|first: char| first.is_ascii_digit()) {
            let dir = snapshots.join(entry.name);
            note("snapshot", &dir, read_database(disk, &dir, DatabaseKind::State));
        }
    }
    if damages.is_empty() {
        let terms = examine_terms(disk, data_dir, node_id);
        damages.extend(terms.err().map(|error| Damage { what: "log", path: log, found: chain(&*error) }));
    }
    damages
}

fn examine_log(disk: &dyn Disk, dir: &Path, node_id: u64) -> Result<(), DiskError> {
    if !disk.exists(dir) {
        return Err("it is gone".into());
    }
    let log = LogDb::open(disk, dir, node_id, Expected::Old)?;
    log.check()?;
    Ok(())
}

fn examine_state(disk: &dyn Disk, states: &Path) -> Result<(), DiskError> {
    if !disk.exists(&states.join(CURRENT)) {
        return Err("it is gone".into());
    }
    let generation = read_current(disk, states)?;
    let dir = states.join(generation.to_string());
    if !disk.exists(&dir) {
        return Err(format!("generation {generation}, which `{CURRENT}` names, is gone").into());
    }
    read_database(disk, &dir, DatabaseKind::State)
}

/// Looks whether what is sound by itself goes together.
fn examine_terms(disk: &dyn Disk, data_dir: &Path, node_id: u64) -> Result<(), DiskError> {
    let log = LogDb::open(disk, &data_dir.join("log"), node_id, Expected::Old)?;
    let states = data_dir.join("state");
    let state = states.join(read_current(disk, &states)?.to_string());
    agree(&log, StateDb::peek(disk, &state)?.0)
}

/// Reads every record of a database without changing it.
pub(crate) fn read_database(disk: &dyn Disk, dir: &Path, kind: DatabaseKind) -> Result<(), DiskError> {
    let database = disk.peek(dir, kind)?;
    for family in kind.families() {
        for row in database.scan(family, &[], None, Direction::Forward) {
            row?;
        }
    }
    Ok(())
}

/// Looks whether a log and the state beside it belong together: a replica accepts nothing of a term before its vote for
/// that term is on the disk. That a state may be ahead of its log is no damage: entries are applied once a majority has
/// them, and the replica itself need not be in it.
pub(crate) fn agree(log: &LogDb, applied: Option<LogId>) -> Result<(), DiskError> {
    let term = |id: LogId| **id.committed_leader_id();
    let entries = log.last()?.map(term).max(applied.map(term)).unwrap_or_default();
    let voted = log.vote()?.map_or(0, |vote| vote.leader_id.term);
    match voted < entries {
        true => Err(format!("it says that the last vote was in term {voted}, and has entries of term {entries}: a vote is lost").into()),
        false => Ok(()),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
