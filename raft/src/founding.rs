//! A cluster of one that does not begin with nothing: out of a backup, or out of what one replica of a lost cluster has.
//!
//! Both work on a data directory that nobody has open, without consensus: there is no majority to ask. That makes them the
//! two ways in which acknowledged entries can be lost, so they are for people to call, never for a program by itself.
//! The new cluster's terms begin above all that the old one can have led, so nobody who has heard of an old leader
//! obeys it any more, and nobody refuses the new one.

use std::path::Path;
use std::sync::Arc;

use openraft::{BasicNode, EntryPayload};

use crate::Pair;
use crate::disk::{Disk, DiskError, Durability};
use crate::error::FoundError;
use crate::fatal::Fatal;
use crate::log_db::{Expected, LogBatch, LogDb};
use crate::state_batch::Writes;
use crate::state_db::StateDb;
use crate::state_store;
use crate::type_config::{CommittedLeaderId, Entry, LogId, Membership, StoredMembership, Vote};

/// Terms that a lost cluster may have seen beyond those that are known: more than it has elections between a backup, or
/// the loss of a replica, and its end.
const TERMS_UNSEEN: u64 = 1_000_000;

/// Rows that are written at once.
const ROWS_AT_ONCE: usize = 1000;

/// Bytes that are written at once, roughly.
const BYTES_AT_ONCE: usize = 4 << 20;

/// The one member that a new cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its id.
    pub node_id: u64,
    /// Its peer address.
    pub address: String,
    /// The new cluster's terms begin here at the earliest. Meant for the time in milliseconds: no cluster has a thousand
    /// elections a second, so two that were made out of the same remains, one after the other, never share a term.
    pub term_min: u64,
}

impl Founder {
    /// Returns the term under which it founds the cluster.
    fn term(&self, last_seen: u64) -> u64 {
        last_seen.saturating_add(TERMS_UNSEEN).max(self.term_min)
    }

    fn membership(&self) -> Result<Membership, FoundError> {
        let nodes = [(self.node_id, BasicNode::new(&self.address))];
        let members = Membership::new(vec![[self.node_id].into()], std::collections::BTreeMap::from(nodes));
        members.map_err(|error| FoundError::Members(error.to_string()))
    }
}

/// Where a state was taken: the entry that it ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The entry's place in the log.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
}

/// Fills the new directory `data_dir` on `disk` for a cluster of one whose state is `rows`, as they were at `position`. Its log
/// goes on from there. A directory without the last of `rows` is worthless: build it beside its place.
pub fn found<E: std::error::Error + Send + Sync + 'static>(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    founder: &Founder,
    position: Position,
    rows: impl Iterator<Item = Result<Pair, E>>,
) -> Result<u64, FoundError> {
    let members = founder.membership()?;
    if position.index == 0 {
        return Err(FoundError::Nothing);
    }
    let io = |source| FoundError::DataDir { path: data_dir.to_owned(), source };
    disk.create_dir_all(&data_dir.join("state")).map_err(io)?;
    let last = LogId::new(CommittedLeaderId::new(position.term), position.index);
    let members = StoredMembership::new(Some(last), members);
    let state = data_dir.join("state").join("1");
    let written = write_state(disk, &state, &last, &members, rows)?;
    disk.sync_files(&state).map_err(io)?;
    let log = LogDb::open(&**disk, &data_dir.join("log"), founder.node_id, Expected::Any)?;
    let mut batch = LogBatch::default();
    batch.purge(&last);
    batch.put_vote(&Vote::new(founder.term(position.term), founder.node_id));
    log.write(batch, Durability::Synced).map_err(FoundError::Write)?;
    state_store::write_current(&**disk, &data_dir.join("state"), 1).map_err(io)?;
    disk.sync_dir(&data_dir.join("state")).and_then(|()| disk.sync_dir(data_dir)).map_err(io)?;
    Ok(written)
}

fn write_state<E: std::error::Error + Send + Sync + 'static>(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    last: &LogId,
    members: &StoredMembership,
    rows: impl Iterator<Item = Result<Pair, E>>,
) -> Result<u64, FoundError> {
    // Nobody relies on this state yet: a failure is an error, not the end of a replica.
    let fatal = Fatal::new(Arc::new(|_| {}));
    let failed = |error: DiskError| FoundError::Write(error);
    let db = StateDb::open(disk, dir, fatal).map_err(failed)?;
    let (mut writes, mut bytes, mut count) = (Writes::new(), 0, 0);
    for row in rows {
        let (key, value) = row.map_err(|error| FoundError::Rows(Box::new(error)))?;
        bytes += key.len() + value.len();
        writes.insert(key, Some(value));
        count += 1;
        if writes.len() >= ROWS_AT_ONCE || bytes >= BYTES_AT_ONCE {
            db.write(&std::mem::take(&mut writes), last, Some(members)).map_err(failed)?;
            bytes = 0;
        }
    }
    db.write(&writes, last, Some(members)).map_err(failed)?;
    db.db().sync().map_err(failed)?;
    Ok(count)
}

/// What a replica that takes over has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The last entry in its log.
    pub last: Position,
    /// The last term it has heard of.
    pub term: u64,
}

/// Returns what the replica with its data in `data_dir` has. It must not run.
pub fn remains(disk: &dyn Disk, data_dir: &Path, node_id: u64) -> Result<Remains, FoundError> {
    remains_of(&open_log(disk, data_dir, node_id)?)
}

/// Makes the replica with its data in `data_dir` a cluster of one, with everything it has: what was committed, and what it
/// had been sent beyond that, since some of that may have been acknowledged. It must not run. Returns the term of the
/// entry that makes it one; entries of the lost majority that it was never sent are lost.
pub fn take_over(disk: &dyn Disk, data_dir: &Path, founder: &Founder) -> Result<u64, FoundError> {
    let members = founder.membership()?;
    let log = open_log(disk, data_dir, founder.node_id)?;
    let Remains { last, term } = remains_of(&log)?;
    let term = founder.term(term);
    let mut batch = LogBatch::default();
    let log_id = LogId::new(CommittedLeaderId::new(term), last.index + 1);
    // In the log and not in the state: what comes before it is applied first, in its order.
    batch.put_entry(&Entry { log_id, payload: EntryPayload::Membership(members) });
    batch.put_vote(&Vote::new(term, founder.node_id));
    log.write(batch, Durability::Synced).map_err(FoundError::Write)?;
    Ok(term)
}

fn open_log(disk: &dyn Disk, data_dir: &Path, node_id: u64) -> Result<LogDb, FoundError> {
    let dir = data_dir.join("log");
    // Opening makes what is not there: an empty log is nothing to go on from, and must not look like one.
    if !disk.exists(&dir) {
        return Err(FoundError::Nothing);
    }
    Ok(LogDb::open(disk, &dir, node_id, Expected::Old)?)
}

fn remains_of(log: &LogDb) -> Result<Remains, FoundError> {
    let unread = |error: crate::log_db::LogReadError| FoundError::Write(error.into());
    let last = log.last().map_err(unread)?.ok_or(FoundError::Nothing)?;
    let last = Position { index: last.index, term: **last.committed_leader_id() };
    let voted = log.vote().map_err(unread)?.map_or(0, |vote| vote.leader_id.term);
    Ok(Remains { last, term: voted.max(last.term) })
}
