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

/// Records in one entry: far below the entry's size limit even if each carries a long error.
const BATCH_MAX: usize = 128;

struct Request {
    records: Vec<StepRecord>,
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
        let closed = || Interrupted::Log(state::log::LogError::Stopping);
        self.inbox.send(Request { records, done }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

async fn write(log: Arc<dyn CommandLog>, task: TaskId, fence: Fence, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.recv().await {
        let mut batch = vec![first];
        let mut size = batch[0].records.len();
        while size < BATCH_MAX {
            let Ok(next) = requests.try_recv() else { break };
            size += next.records.len();
            batch.push(next);
        }
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
