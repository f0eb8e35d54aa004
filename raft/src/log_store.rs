//! The Raft log as openraft wants it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::Stream;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use tokio::sync::oneshot;

use crate::disk::{self, Disk};
use crate::error::StartError;
use crate::fatal::Fatal;
use crate::log_cache::LogCache;
use crate::log_db::{Expected, LogDb, LogReadError};
use crate::log_writer::{LogThread, Write};
use crate::state_store::StateStore;
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// Entries that one replication message, or one step of the state machine, carries at most.
const CHUNK_BYTES: usize = 1 << 20;

/// The log of one replica. Reads come from memory as far as possible; writes go to the writer thread.
pub(crate) struct LogStore {
    reader: LogReader,
    writer: LogThread,
    state: Arc<StateStore>,
}

/// Reads the log; clones read the same one.
#[derive(Clone)]
pub(crate) struct LogReader {
    db: Arc<LogDb>,
    disk: Arc<dyn Disk>,
    cache: Arc<Mutex<LogCache>>,
    /// What was saved last; saves a read of the database for every replication message.
    vote: Arc<Mutex<Option<Vote>>>,
    fatal: Fatal,
}

impl LogStore {
    /// Opens the log in `dir`.
    pub(crate) fn open_db(
        disk: &dyn Disk,
        dir: &Path,
        node_id: u64,
        expected: Expected,
    ) -> Result<LogDb, StartError> {
        LogDb::open(disk, dir, node_id, expected)
    }

    /// Starts the writer of `db`. `state` is synced before entries are purged.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        db: LogDb,
        state: Arc<StateStore>,
        fatal: Fatal,
    ) -> io::Result<Self> {
        let db = Arc::new(db);
        let vote = db.vote().map_err(io::Error::other)?;
        let cache = Arc::new(Mutex::new(LogCache::default()));
        let writer = LogThread::start(&*disk, db.clone(), cache.clone(), fatal.clone())?;
        let reader = LogReader { db, disk, cache, vote: Arc::new(Mutex::new(vote)), fatal };
        Ok(Self { reader, writer, state })
    }

    async fn send(&self, write: Write) -> io::Result<()> {
        self.writer.send(write).await
    }

    async fn send_and_wait(
        &self,
        write: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Write,
    ) -> io::Result<()> {
        let (done, waiting) = oneshot::channel();
        self.send(write(done)).await?;
        waiting.await.map_err(|_| io::Error::other("the log writer has stopped"))?
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        // What was appended must count here, also while it is being written.
        let cached = self.reader.with_cache(|cache| cache.last());
        self.reader
            .blocking("reading the state of the log", move |db| {
                let last_purged_log_id = db.purged()?;
                let last_log_id = cached.map_or_else(|| db.last(), |last| Ok(Some(last)))?;
                Ok(LogState { last_purged_log_id, last_log_id })
            })
            .await
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.send_and_wait(|done| Write::Vote { vote, done }).await?;
        *self.reader.vote.lock().expect("no code panics while it holds the vote") = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.send(Write::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.reader.blocking("reading the committed position", LogDb::committed).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.reader.with_cache(|cache| cache.append(&entries));
        self.send(Write::Append { entries, done: callback }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first = last.map_or(0, |last| last.index + 1);
        self.reader.with_cache(|cache| cache.truncate(first));
        self.send_and_wait(|done| Write::Truncate { first, done }).await
    }

    async fn purge(&mut self, last: LogId) -> Result<(), io::Error> {
        // The state is not synced as it is written; what the log forgets, it must have on the disk.
        self.state.sync().await?;
        self.send_and_wait(|done| Write::Purge { last, done }).await?;
        self.reader.with_cache(|cache| cache.purge(last.index));
        Ok(())
    }
}

impl LogReader {
    fn with_cache<T>(&self, work: impl FnOnce(&mut LogCache) -> T) -> T {
        work(&mut self.cache.lock().expect("no code panics while it holds the cache"))
    }

    /// Reads the database on a blocking thread. A log that cannot be read ends the replica.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&LogDb) -> Result<T, LogReadError> + Send + 'static,
    ) -> io::Result<T> {
        let db = self.db.clone();
        match disk::run(&*self.disk, move || read(&db)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.fatal.report(operation, error)),
            Err(lost) => Err(io::Error::other(lost)),
        }
    }

    /// Returns entries from `start` on, before `end`; not more once `max_bytes` are reached.
    async fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        // One look at the cache: an entry that leaves it afterwards was read here, one that left before is stored.
        let (first, cached) = self.with_cache(|cache| (cache.first(), cache.read(start, end, max_bytes)));
        if start >= first {
            return Ok(cached);
        }
        let until = end.min(first);
        let mut entries =
            self.blocking("reading the log", move |db| db.read(start, until, max_bytes)).await?;
        // Only a read without a limit goes on in the cache; the others may return less.
        if max_bytes == usize::MAX {
            entries.extend(cached);
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, CHUNK_BYTES).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let state = (self.clone(), start, end, Vec::new().into_iter());
        futures::stream::try_unfold(state, |(reader, mut next, end, mut chunk)| async move {
            if chunk.len() == 0 && next < end {
                chunk = reader.read(next, end, CHUNK_BYTES).await?.into_iter();
                // Beyond the end. A hole in the middle shows when the state machine is given what follows it.
                if chunk.len() == 0 {
                    return Ok(None);
                }
            }
            Ok(chunk.next().map(|entry| {
                next = entry.log_id.index + 1;
                (entry, (reader, next, end, chunk))
            }))
        })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.vote.lock().expect("no code panics while it holds the vote"))
    }
}

/// Returns `range` as a start and an exclusive end.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}
