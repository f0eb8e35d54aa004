//! The journal of a task's steps: intents and outcomes on their way into the log.
//!
//! Units run side by side, and each record must be committed before its deed; so records that wait at the same time
//! travel in one entry, as log entries share one fsync.

use std::sync::Arc;

use model::TaskId;
use owned_tasks::{OnExit, OwnedTasks};
use state::command::{Command, StepRecord};
use state::log::{CommandLog, Proposal};
use tokio::sync::{mpsc, oneshot};

use crate::error::Interrupted;
use crate::lease::Fence;

/// Records that may wait. A unit waits for its own, so this bounds how many units of a task can run at once.
const INBOX_MAX: usize = 256;

/// Records in one entry: none should hold up the others for long.
const BATCH_MAX: usize = 128;

/// Bytes in one entry: what many units have to tell at once, as after a change of leader, travels in several.
const BATCH_BYTES_MAX: usize = 512 << 10;

struct Request {
    records: Vec<StepRecord>,
    bytes: usize,
    done: oneshot::Sender<Result<(), Interrupted>>,
}

/// The way into the log for one task's records. Clones share it.
#[derive(Clone)]
pub struct Journal {
    inbox: mpsc::Sender<Request>,
}

impl Journal {
    /// Starts the journal of `task`; it ends when all its handles are gone.
    pub fn start(tasks: &OwnedTasks, log: Arc<dyn CommandLog>, task: TaskId, fence: Fence) -> Self {
        let (inbox, requests) = mpsc::channel(INBOX_MAX);
        tasks.spawn("journal", OnExit::Ignore, move |_| write(log, task, fence, requests));
        Self { inbox }
    }

    /// Has the records committed and applied.
    pub async fn record(&self, records: Vec<StepRecord>) -> Result<(), Interrupted> {
        let (done, answer) = oneshot::channel();
        let bytes = records.iter().map(StepRecord::bytes).sum();
        let closed = || Interrupted::Log(state::log::LogError::Stopping);
        self.inbox.send(Request { records, bytes, done }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

async fn write(log: Arc<dyn CommandLog>, task: TaskId, fence: Fence, mut requests: mpsc::Receiver<Request>) {
    let mut left = None;
    loop {
        let first = match left.take() {
            Some(request) => request,
            None => match requests.recv().await {
                Some(request) => request,
                None => return,
            },
        };
        let batch = batch(first, &mut requests, &mut left);
        let all: Vec<StepRecord> = batch.iter().flat_map(|r| r.records.iter().cloned()).collect();
        match propose(&*log, task, &fence, all).await {
            // One record that does not fit must not take its neighbours down.
            Err(Interrupted::Refused(_)) if batch.len() > 1 => {
                for request in batch {
                    let answer = propose(&*log, task, &fence, request.records).await;
                    let _ = request.done.send(answer);
                }
            }
            answer => batch.into_iter().for_each(|r| {
                // A unit that was dropped does not wait any more.
                let _ = r.done.send(answer.clone());
            }),
        }
    }
}

/// Takes what waits and fits into one entry with `first`; the next one that does not fit is `left` for the next entry.
fn batch(first: Request, requests: &mut mpsc::Receiver<Request>, left: &mut Option<Request>) -> Vec<Request> {
    let (mut records, mut bytes) = (first.records.len(), first.bytes);
    let mut batch = vec![first];
    while records < BATCH_MAX {
        let Ok(next) = requests.try_recv() else { break };
        if bytes + next.bytes > BATCH_BYTES_MAX {
            *left = Some(next);
            break;
        }
        records += next.records.len();
        bytes += next.bytes;
        batch.push(next);
    }
    batch
}

/// Proposes until there is an answer or the right to act is lost. Repeating is safe: the state ignores a record that it
/// already has.
async fn propose(
    log: &dyn CommandLog,
    task: TaskId,
    fence: &Fence,
    records: Vec<StepRecord>,
) -> Result<(), Interrupted> {
    loop {
        fence.check()?;
        let command = Command::StepRecords { task, epoch: fence.epoch(), records: records.clone() };
        match log.propose(Proposal::own(command)).await {
            Ok(committed) => return Ok(committed.outcome.accepted().map(|_| ())?),
            Err(state::log::LogError::NoLeader(_)) => continue,
            Err(other) => return Err(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use futures::future::join_all;
    use model::step::StepOutcome;
    use model::{Epoch, Revision, StepNo, UnitNo};
    use state::command::{Outcome, StepEvent};
    use state::log::{BoxFuture, Committed, LogError, MemoryLog, View};
    use tokio::sync::Semaphore;
    use tokio::time::Instant;

    use super::*;
    use crate::lease::{Held, Lease};

    /// A log that takes nothing before it is told to, and keeps the sizes of what it took.
    struct Slow {
        gate: Semaphore,
        taken: Mutex<Vec<(usize, usize)>>,
    }

    impl CommandLog for Slow {
        fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Committed, LogError>> {
            Box::pin(async move {
                let _open = self.gate.acquire().await;
                let Command::StepRecords { records, .. } = proposal.command else { panic!("no records") };
                let bytes = records.iter().map(StepRecord::bytes).sum();
                self.taken.lock().unwrap().push((records.len(), bytes));
                Ok(Committed { revision: Revision(1), outcome: Outcome::Done })
            })
        }

        fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, LogError>> {
            Box::pin(async { Ok(Revision(1)) })
        }

        fn view(&self) -> View {
            MemoryLog::new().view()
        }

        fn revision(&self) -> Revision {
            Revision(1)
        }

        fn changed(&self, _after: Revision) -> BoxFuture<'_, Revision> {
            Box::pin(std::future::pending())
        }
    }

    struct Always;

    impl Lease for Always {
        fn held(&self) -> Option<Held> {
            Some(Held { epoch: Epoch(1), until: Instant::now() + Duration::from_secs(60) })
        }
    }

    /// Has as many units as there are texts record an errand's result of that text; returns what the entries held.
    async fn entries(texts: Vec<String>) -> Vec<(usize, usize)> {
        let log = Arc::new(Slow { gate: Semaphore::new(0), taken: Mutex::default() });
        let tasks = OwnedTasks::new();
        let journal = Journal::start(&tasks, log.clone(), TaskId(1), Fence::new(Arc::new(Always), Epoch(1)));
        let record = |(unit, text): (usize, String)| {
            let outcome = StepOutcome::ErrandRan { exit_code: 0, result_line: text };
            let step = StepNo { unit: UnitNo(unit as u32), index: 0 };
            journal.record(vec![StepRecord { step, attempt: 1, event: StepEvent::Finished(outcome) }])
        };
        let recorded = join_all(texts.into_iter().enumerate().map(record));
        let open = async {
            // All wait by now: the first poll of each puts it into the queue.
            tokio::task::yield_now().await;
            log.gate.add_permits(Semaphore::MAX_PERMITS);
        };
        let (answers, ()) = tokio::join!(recorded, open);
        assert!(answers.iter().all(Result::is_ok));
        std::mem::take(&mut *log.taken.lock().unwrap())
    }

    #[tokio::test]
    async fn what_fits_into_an_entry_travels_together_and_no_more() {
        let large = entries(vec!["x".repeat(70 << 10); 32]).await;
        assert_eq!(large.iter().map(|(records, _)| records).sum::<usize>(), 32);
        assert!(large.iter().all(|(_, bytes)| *bytes <= BATCH_BYTES_MAX), "{large:?}");
        assert!(large.len() <= 7, "they travel together as far as they fit: {large:?}");
        let small = entries(vec!["x".to_owned(); 32]).await;
        assert!(small.len() <= 2, "{small:?}");
        // What is too large by itself is for the log to refuse; its neighbours have nothing to do with it.
        let uneven = entries(vec!["x".into(), "x".repeat(BATCH_BYTES_MAX), "x".into()]).await;
        assert_eq!(uneven.iter().map(|(records, _)| *records).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
