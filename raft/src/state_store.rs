//! The state on disk: which generation of it counts, and its snapshots.
//!
//! ```text
//! state/current      the number of the generation that counts and its CRC-32, replaced atomically
//! state/<n>/         a generation: one RocksDB
//! snapshots/<index>-<term>-<n>/   the latest snapshot; other names are unfinished ones
//! ```
//!
//! Installing a snapshot builds the next generation beside the current one, then switches `state/current`: a crash
//! leaves either the old state or the new one, and what is unfinished is removed at the next start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use known_bugs::Bug;
use openraft::EntryPayload;
use openraft::storage::ApplyResponder;
use tokio::sync::watch;

use crate::disk::{self, Disk, DiskError};
use crate::error::StartError;
use crate::fatal::Fatal;
use crate::hot_rows::HotRows;
use crate::snapshot::{Snapshot, SnapshotDir};
use crate::state_db::StateDb;
use crate::type_config::{Answer, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::{Application, StateBatch, StateView};

pub(crate) const CURRENT: &str = "current";

/// The table that [`Bug::AnswersForgottenAtSnapshot`] forgets.
const ANSWERS: u8 = 8;

/// Whether entries may be missing between those that are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// Never in a real log.
    Refused,
    /// openraft's conformance suite invents logs with holes.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the suite only"))]
    Allowed,
}

/// The state of one replica. Every method that touches the disk blocks.
pub(crate) struct StateStore {
    disk: Arc<dyn Disk>,
    states: PathBuf,
    snapshots: PathBuf,
    application: Arc<dyn Application>,
    fatal: Fatal,
    current: RwLock<Arc<StateDb>>,
    snapshot: Mutex<Option<Snapshot>>,
    /// Held while the state changes, and while a checkpoint is taken: a checkpoint then is one position exactly.
    changing: Mutex<HotRows>,
    /// Names unfinished directories.
    next_temporary: AtomicU64,
    applied: watch::Sender<u64>,
}

impl StateStore {
    /// Opens the state below `data_dir`, creating it when absent, and clears away what a crash left unfinished.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        data_dir: &Path,
        application: Arc<dyn Application>,
        fatal: Fatal,
    ) -> Result<Arc<Self>, StartError> {
        let (states, snapshots) = (data_dir.join("state"), data_dir.join("snapshots"));
        let prepared = prepare(&*disk, &states, &snapshots);
        let generation = prepared.map_err(|source| StartError::DataDir { path: states.clone(), source })?;
        let dir = states.join(generation.to_string());
        let damaged = |source| StartError::Database { database: "state", path: dir.clone(), source };
        let db = StateDb::open(&disk, &dir, fatal.clone()).map_err(damaged)?;
        let snapshot = latest_snapshot(&disk, &snapshots)
            .map_err(|source| StartError::DataDir { path: snapshots.clone(), source })?;
        let applied = watch::Sender::new(db.applied().map_or(0, |id| id.index));
        Ok(Arc::new(Self {
            disk,
            states,
            snapshots,
            application,
            fatal,
            current: RwLock::new(Arc::new(db)),
            snapshot: Mutex::new(snapshot),
            changing: Mutex::default(),
            next_temporary: AtomicU64::new(0),
            applied,
        }))
    }

    /// Returns whether there is a state below `data_dir`, whatever its condition.
    pub(crate) fn is_there(disk: &dyn Disk, data_dir: &Path) -> bool {
        disk.exists(&data_dir.join("state").join(CURRENT))
    }

    fn db(&self) -> Arc<StateDb> {
        self.current.read().expect("no code panics while it replaces the state").clone()
    }

    /// Returns a view of the state as it is now.
    pub(crate) fn view(&self) -> StateView {
        StateView::take(&self.db())
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Returns a receiver that follows the index of the last applied entry.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Returns the position and the membership of the state.
    pub(crate) fn position(&self) -> (Option<LogId>, StoredMembership) {
        let db = self.db();
        (db.applied(), db.membership())
    }

    /// Applies `entries`, in order and as one write; then answers those who wait.
    pub(crate) fn apply(
        &self,
        entries: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>,
        gaps: Gaps,
    ) -> io::Result<()> {
        let Some(last) = entries.last().map(|(entry, _)| entry.log_id) else { return Ok(()) };
        let mut changing = self.changing.lock().expect("a panic while the state changes ends the replica");
        let db = self.db();
        let mut before = db.applied().map(|id| id.index);
        let mut batch = StateBatch::new(&db, &mut changing);
        let mut membership = None;
        let mut answers = Vec::with_capacity(entries.len());
        for (entry, responder) in entries {
            let (index, term) = (entry.log_id.index, **entry.log_id.committed_leader_id());
            // A skipped entry would make this replica differ from the others for ever, and silently.
            if let Some(before) = before.replace(index)
                && before + 1 != index
                && gaps == Gaps::Refused
            {
                let error = format!("entry {index} does not follow entry {before}");
                return Err(self.fatal.report("applying entries", error));
            }
            let answer = match entry.payload {
                EntryPayload::Blank => Answer::default(),
                EntryPayload::Normal(bytes) => {
                    Answer(self.application.apply(&mut batch, index, term, &bytes.0))
                }
                EntryPayload::Membership(changed) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), changed));
                    Answer::default()
                }
            };
            if let Some(responder) = responder {
                answers.push((responder, answer));
            }
        }
        let writes = batch.into_writes();
        let written = db.write(&writes, &last, membership.as_ref());
        written.map_err(|error| self.fatal.report("writing the state", error))?;
        writes.iter().for_each(|(key, value)| changing.written(key, value.as_deref()));
        drop(changing);
        self.moved(last.index);
        answers.into_iter().for_each(|(responder, answer)| responder.send(answer));
        Ok(())
    }

    /// Tells everybody how far the state is.
    fn moved(&self, index: u64) {
        // Before the answers: whoever has an answer finds it in the state.
        self.applied.send_replace(index);
        self.application.applied(index);
    }

    /// Puts everything that was applied on the disk.
    pub(crate) async fn sync(self: &Arc<Self>) -> io::Result<()> {
        let store = self.clone();
        let synced = disk::run(&*self.disk, move || {
            let synced = store.db().db().sync();
            synced.map_err(|error| store.fatal.report("syncing the state", error))
        });
        synced.await.map_err(io::Error::other)?
    }

    /// Returns a new, empty directory for a snapshot that is on its way; it goes when the value does.
    pub(crate) fn temporary_snapshot(&self) -> io::Result<SnapshotDir> {
        let dir = self.temporary_path();
        self.disk.create_dir(&dir)?;
        Ok(SnapshotDir::temporary(self.disk.clone(), dir))
    }

    fn temporary_path(&self) -> PathBuf {
        self.snapshots.join(format!("unfinished-{}", self.next_temporary.fetch_add(1, Ordering::Relaxed)))
    }

    /// Returns a name that sorts by position and that nobody uses: a replaced snapshot may still be on its way to a peer.
    fn finished_path(&self, last: Option<&LogId>) -> PathBuf {
        let (index, term) = last.map_or((0, 0), |last| (last.index, **last.committed_leader_id()));
        let path = |n: u64| self.snapshots.join(format!("{index:020}-{term}-{n}"));
        (0..).map(path).find(|path| !self.disk.exists(path)).expect("fewer than 2^64 snapshots exist")
    }

    /// Takes a snapshot of the state.
    pub(crate) fn build_snapshot(&self) -> io::Result<Snapshot> {
        let taken = self.checkpoint().map_err(|error| self.fatal.report("taking a snapshot", error))?;
        self.adopt_snapshot(taken)
    }

    fn checkpoint(&self) -> Result<Snapshot, DiskError> {
        let dir = self.temporary_path();
        let guard = SnapshotDir::temporary(self.disk.clone(), dir.clone());
        let changing = self.changing.lock().map_err(|_| "the state is in an unknown condition")?;
        let db = self.db();
        db.db().checkpoint(&dir)?;
        let meta = SnapshotMeta { last_log_id: db.applied(), last_membership: db.membership() };
        drop(changing);
        self.disk.sync_files(&dir)?;
        Ok(Snapshot { meta, snapshot: guard })
    }

    /// Makes `taken` the snapshot that peers are sent.
    fn adopt_snapshot(&self, taken: Snapshot) -> io::Result<Snapshot> {
        let mut latest = self.snapshot.lock().expect("no code panics while it replaces the snapshot");
        if let Some(same) = latest.as_ref().filter(|latest| latest.meta.last_log_id == taken.meta.last_log_id)
        {
            return Ok(same.clone());
        }
        let path = self.finished_path(taken.meta.last_log_id.as_ref());
        self.disk.rename(taken.snapshot.path(), &path)?;
        self.disk.sync_dir(&self.snapshots)?;
        let kept = SnapshotDir::temporary(self.disk.clone(), path);
        kept.keep();
        let adopted = Snapshot { meta: taken.meta, snapshot: kept };
        if let Some(previous) = latest.replace(adopted.clone()) {
            previous.snapshot.release();
        }
        Ok(adopted)
    }

    /// Returns the latest snapshot.
    pub(crate) fn latest_snapshot(&self) -> Option<Snapshot> {
        self.snapshot.lock().expect("no code panics while it replaces the snapshot").clone()
    }

    /// Replaces the state by `received`.
    pub(crate) fn install_snapshot(&self, meta: &SnapshotMeta, received: &SnapshotDir) -> io::Result<()> {
        self.switch_to(meta, received).map_err(|error| self.fatal.report("installing a snapshot", error))?;
        self.adopt_snapshot(Snapshot { meta: meta.clone(), snapshot: received.clone() })?;
        self.moved(meta.last_log_id.map_or(0, |id| id.index));
        Ok(())
    }

    fn switch_to(&self, meta: &SnapshotMeta, received: &SnapshotDir) -> Result<(), DiskError> {
        let mut changing = self.changing.lock().map_err(|_| "the state is in an unknown condition")?;
        let generation = read_current(&*self.disk, &self.states)? + 1;
        let dir = self.states.join(generation.to_string());
        self.disk.remove_dir(&dir)?;
        received.copy_to(&dir)?;
        let next = StateDb::open(&self.disk, &dir, self.fatal.clone())?;
        if known_bugs::is(Bug::AnswersForgottenAtSnapshot) {
            next.forget_table(ANSWERS)?;
        }
        if next.applied() != meta.last_log_id {
            let found = next.applied().map_or(0, |id| id.index);
            return Err(format!("its content ends at entry {found}, not where its header says").into());
        }
        self.disk.sync_dir(&self.states)?;
        // From here on the new generation counts.
        write_current(&*self.disk, &self.states, generation)?;
        let mut current = self.current.write().map_err(|_| "the state is in an unknown condition")?;
        std::mem::replace(&mut *current, Arc::new(next)).retire();
        *changing = HotRows::default();
        Ok(())
    }
}

/// Creates the directories, removes what is unfinished, and returns the generation that counts.
fn prepare(disk: &dyn Disk, states: &Path, snapshots: &Path) -> io::Result<u64> {
    disk.create_dir_all(states)?;
    disk.create_dir_all(snapshots)?;
    if !disk.exists(&states.join(CURRENT)) {
        begin(disk, states)?;
    }
    let generation = read_current(disk, states)?;
    if !disk.exists(&states.join(generation.to_string())) {
        let text = format!("generation {generation}, which `{CURRENT}` names, is gone");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    for entry in disk.list(states)? {
        if entry.is_dir && entry.name != generation.to_string() {
            let dir = states.join(&entry.name);
            tracing::info!(dir = %dir.display(), "removing a state that was replaced or never finished");
            disk.remove_dir(&dir)?;
        }
    }
    Ok(generation)
}

/// Lays out the first generation, which is empty. Where there is another one, or something in it, the number is lost.
fn begin(disk: &dyn Disk, states: &Path) -> io::Result<()> {
    for entry in disk.list(states)? {
        let dir = states.join(&entry.name);
        if entry.is_dir && (entry.name != "1" || !disk.list(&dir)?.is_empty()) {
            let text = format!("`{CURRENT}` is gone, which says which generation counts");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    disk.create_dir_all(&states.join("1"))?;
    write_current(disk, states, 1)
}

/// Makes `generation` the one that counts: afterwards, and after a crash, it is that or the one before.
pub(crate) fn write_current(disk: &dyn Disk, states: &Path, generation: u64) -> io::Result<()> {
    let number = generation.to_string();
    let text = format!("{number} {:08x}\n", crc32fast::hash(number.as_bytes()));
    disk.replace(&states.join(CURRENT), text.as_bytes())
}

/// Returns the generation that counts. Taken for another one, a damaged number would have the right one removed.
pub(crate) fn read_current(disk: &dyn Disk, states: &Path) -> io::Result<u64> {
    let raw = disk.read(&states.join(CURRENT), 0, 64)?;
    let text = String::from_utf8_lossy(&raw);
    let mut words = text.split_whitespace();
    let (number, sum) = (words.next(), words.next());
    let sound = match (number, sum) {
        (Some(number), Some(sum)) => u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(number.as_bytes())),
        // As it was written before there was a sum.
        (Some(_), None) => true,
        _ => false,
    };
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, format!("`{CURRENT}` is damaged: it says {text:?}"));
    number.filter(|_| sound).and_then(|number| number.parse().ok()).ok_or_else(damaged)
}

/// Returns the newest sound snapshot and removes everything else beside it.
fn latest_snapshot(disk: &Arc<dyn Disk>, snapshots: &Path) -> io::Result<Option<Snapshot>> {
    let mut latest: Option<Snapshot> = None;
    for entry in disk.list(snapshots)?.into_iter().rev() {
        let finished = entry.name.starts_with(|first: char| first.is_ascii_digit());
        // Removed with this value, unless it is the one to keep.
        let dir = SnapshotDir::temporary(disk.clone(), snapshots.join(&entry.name));
        if !finished || latest.is_some() {
            continue;
        }
        match dir.check().and_then(|()| dir.meta()) {
            Ok(meta) => {
                dir.keep();
                latest = Some(Snapshot { meta, snapshot: dir });
            }
            // No loss: the next one is taken from the state.
            Err(error) => {
                tracing::warn!(%error, dir = %dir.path().display(), "removing an unreadable snapshot")
            }
        }
    }
    Ok(latest)
}
