//! The one writer of the log, a thread of its own: group commit.
//!
//! Everything that waits when it looks becomes one write with one fsync, and is acknowledged in order. So the number of
//! fsyncs follows the disk and not the number of proposals, and no async thread ever waits for the disk.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use known_bugs::Bug;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use crate::disk::{Disk, Durability, Writer};
use crate::fatal::Fatal;
use crate::log_cache::LogCache;
use crate::log_db::{LogBatch, LogDb};
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// Writes that wait for the thread. openraft merges entries before that, so a full queue means a stuck disk.
const QUEUE_MAX: usize = 1024;

/// One write. They are carried out in order.
pub(crate) enum Write {
    Append {
        entries: Vec<Entry>,
        done: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Only a hint for the next start: not synced, nobody waits.
    Committed(Option<LogId>),
    Truncate {
        first: u64,
        done: oneshot::Sender<io::Result<()>>,
    },
    Purge {
        last: LogId,
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// Who is told once a write is on the disk.
enum Waiter {
    Appended(IOFlushed<TypeConfig>),
    Other(oneshot::Sender<io::Result<()>>),
}

/// The way to the writer. What was sent before it is dropped is written when the drop returns.
pub(crate) struct LogThread {
    /// There until the drop.
    inbox: Option<mpsc::Sender<Write>>,
    /// Dropped after the inbox: it ends when nobody can send any more.
    writer: Option<Box<dyn Writer>>,
}

impl LogThread {
    /// Starts the writer where `disk` has it work.
    pub(crate) fn start(
        disk: &dyn Disk,
        db: Arc<LogDb>,
        cache: Arc<Mutex<LogCache>>,
        fatal: Fatal,
    ) -> io::Result<Self> {
        let (sender, inbox) = mpsc::channel(QUEUE_MAX);
        let writer = disk.start_writer(LogWork { writer: LogWriter { db, cache, fatal }, inbox })?;
        Ok(Self { inbox: Some(sender), writer: Some(writer) })
    }

    /// Hands a write in, once there is room for it.
    pub(crate) async fn send(&self, write: Write) -> io::Result<()> {
        let stopped = || io::Error::other("the log writer has stopped");
        self.inbox.as_ref().ok_or_else(stopped)?.send(write).await.map_err(|_| stopped())
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.inbox = None;
        self.writer = None;
    }
}

/// What the writer of a log has to do. A disk decides where.
pub struct LogWork {
    writer: LogWriter,
    inbox: mpsc::Receiver<Write>,
}

impl LogWork {
    /// Writes until nobody can send any more, or until a write fails: after that nothing is acknowledged.
    pub fn run_blocking(mut self) {
        let mut writes = Vec::with_capacity(QUEUE_MAX);
        while self.inbox.blocking_recv_many(&mut writes, QUEUE_MAX) > 0 {
            if let Err(error) = self.writer.write(&mut writes) {
                while let Some(write) = self.inbox.blocking_recv() {
                    write.refuse(&error);
                }
                return;
            }
        }
    }

    /// As [`LogWork::run_blocking`], where nothing really blocks; waits before each write for as long as a disk would take.
    pub async fn run<F: Future<Output = ()>>(mut self, disk_time: impl Fn() -> F) {
        let mut writes = Vec::new();
        while self.inbox.recv_many(&mut writes, QUEUE_MAX).await > 0 {
            disk_time().await;
            if let Err(error) = self.writer.write(&mut writes) {
                while let Some(write) = self.inbox.recv().await {
                    write.refuse(&error);
                }
                return;
            }
        }
    }
}

/// Writes what it is given.
struct LogWriter {
    db: Arc<LogDb>,
    cache: Arc<Mutex<LogCache>>,
    fatal: Fatal,
}

impl LogWriter {
    fn write(&self, writes: &mut Vec<Write>) -> io::Result<()> {
        let mut batch = LogBatch::default();
        let mut durability = Durability::Buffered;
        let mut stored = None;
        let mut waiters = Vec::with_capacity(writes.len());
        for write in writes.drain(..) {
            match write {
                Write::Committed(id) => {
                    batch.put_committed(id.as_ref());
                    continue;
                }
                Write::Append { entries, done } => {
                    entries.iter().for_each(|entry| batch.put_entry(entry));
                    stored = entries.last().map(|entry| entry.log_id.index).or(stored);
                    waiters.push(Waiter::Appended(done));
                }
                Write::Vote { vote, done } => {
                    batch.put_vote(&vote);
                    waiters.push(Waiter::Other(done));
                }
                Write::Truncate { first, done } => {
                    batch.truncate(first);
                    stored = first.checked_sub(1);
                    waiters.push(Waiter::Other(done));
                }
                Write::Purge { last, done } => {
                    batch.purge(&last);
                    waiters.push(Waiter::Other(done));
                }
            }
            durability = Durability::Synced;
        }
        if known_bugs::is(Bug::AckBeforeFsync) {
            durability = Durability::Buffered;
        }
        let begun = Instant::now();
        match self.db.write(batch, durability) {
            Ok(()) => {
                if durability == Durability::Synced {
                    crate::metrics::synced(begun.elapsed());
                }
                if let Some(index) = stored {
                    self.cache.lock().expect("no code panics while it holds the cache").stored(index);
                }
                waiters.into_iter().for_each(|waiter| waiter.tell(Ok(())));
                Ok(())
            }
            Err(error) => {
                let error = self.fatal.report("writing and syncing the log", error);
                waiters.into_iter().for_each(|waiter| waiter.tell(Err(again(&error))));
                Err(error)
            }
        }
    }
}

impl Write {
    /// Tells whoever waits that it was not written.
    fn refuse(self, error: &io::Error) {
        match self {
            Self::Committed(_) => {}
            Self::Append { done, .. } => Waiter::Appended(done).tell(Err(again(error))),
            Self::Vote { done, .. } | Self::Truncate { done, .. } | Self::Purge { done, .. } => {
                Waiter::Other(done).tell(Err(again(error)));
            }
        }
    }
}

impl Waiter {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Appended(done) => done.io_completed(result),
            // Who waited may have given up; the write counts all the same.
            Self::Other(done) => drop(done.send(result)),
        }
    }
}

/// `io::Error` cannot be cloned.
fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
