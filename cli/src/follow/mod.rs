//! Following a task to its end, whatever happens to the directors meanwhile.
//!
//! Invariant: every byte of the output is shown once and in order. A stream that breaks is opened again, on another
//! replica if need be, at the byte that was reached; what a replica sends twice is dropped, and a gap is never
//! printed over. Not here: what lines look like ([`transcript`]) and where they go ([`display`]).

mod cursor;
mod display;
mod transcript;

use std::time::Duration;

use proto::v1::follow_task_request::Kind as Output;
use proto::v1::tasks_client::TasksClient;
use proto::v1::{FollowTaskRequest, GetTaskRequest, Task, TaskOutput};
use tonic::{Code, Status, Streaming};

pub use cursor::{Cursor, Gap};
pub use display::{Lines, Raw, Sink};
pub use transcript::{Piece, Transcript};

use crate::call;
use crate::client::{ANSWER_BYTES_MAX, Fleet, Kind, failure_kind, refused};
use crate::console::{Console, Format, rfc3339};
use crate::error::Error;

/// How often we ask for whom a silent task waits.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Whether to stay until the task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Stay.
    TaskEnds,
    /// Show what there is.
    Now,
}

/// Follows a task's event log on the console and ends as the task does: an error if it did not end well.
pub async fn to_the_end(fleet: &Fleet, console: &mut Console, id: u64) -> Result<Task, Error> {
    console.note(&format!("Task {id}\n"))?;
    let screen = console.screen;
    let mut lines = Lines::new(id, console.progress_out(), screen);
    let followed = watched(fleet, id, Output::Event, Until::TaskEnds, &mut lines).await;
    lines.finish()?;
    let task = followed?;
    console.note(&summary(&task))?;
    judge(task)
}

/// Waits for a task's end without showing anything; an error if it did not end well.
pub async fn quietly(fleet: &Fleet, id: u64) -> Result<Task, Error> {
    let mut nowhere = std::io::sink();
    judge(watched(fleet, id, Output::Event, Until::TaskEnds, &mut Raw::new(&mut nowhere)).await?)
}

/// Copies one of a task's outputs, byte for byte; an error if the task has ended badly.
pub async fn copy(
    fleet: &Fleet,
    console: &mut Console,
    id: u64,
    output: Output,
    until: Until,
) -> Result<Task, Error> {
    let mut raw = Raw::new(&mut *console.out);
    watched(fleet, id, output, until, &mut raw).await
}

/// Renders what a task's event log holds now, without waiting.
pub async fn so_far(fleet: &Fleet, console: &mut Console, id: u64) -> Result<Task, Error> {
    let mut lines = Lines::new(id, console.progress_out(), crate::console::Screen::Plain);
    let task = watched(fleet, id, Output::Event, Until::Now, &mut lines).await;
    lines.finish()?;
    task
}

/// Returns one of a task's outputs as it is now.
pub async fn read(fleet: &Fleet, id: u64, output: Output) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    follow(fleet, id, output, Until::Now, &mut Raw::new(&mut bytes)).await?;
    Ok(bytes)
}

/// Returns the task if it ended well, or has not ended; the error it is otherwise.
pub fn judge(task: Task) -> Result<Task, Error> {
    match task.state.as_str() {
        "error" | "cancelled" | "timeout" => Err(Error::TaskFailed {
            id: task.id,
            state: task.state,
            code: task.error_code,
            message: task.error_message,
        }),
        _ => Ok(task),
    }
}

/// Follows until the end or Ctrl-C, which only stops the watching.
async fn watched(
    fleet: &Fleet,
    id: u64,
    output: Output,
    until: Until,
    sink: &mut dyn Sink,
) -> Result<Task, Error> {
    tokio::select! {
        followed = follow(fleet, id, output, until, sink) => followed,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(Error::Detached { id })
        }
    }
}

/// Brings every byte of a task's output to `sink`, over as many streams as it takes.
pub async fn follow(
    fleet: &Fleet,
    id: u64,
    output: Output,
    until: Until,
    sink: &mut dyn Sink,
) -> Result<Task, Error> {
    let mut cursor = Cursor::default();
    let mut waiting = Waiting { id, started: until == Until::Now, told: Vec::new() };
    let mut patience = fleet.patience().reopening();
    loop {
        let request = FollowTaskRequest {
            id,
            kind: output.into(),
            offset: cursor.offset(),
            no_wait: until == Until::Now,
        };
        let mut stream = fleet
            .open("TasksClient.follow", async |link| {
                let client = TasksClient::new(link).max_decoding_message_size(ANSWER_BYTES_MAX);
                { client }.follow(request).await
            })
            .await?;
        patience.opened();
        let broken = loop {
            let message = match next(fleet, &mut stream, &mut waiting, sink).await? {
                Ok(Some(message)) => message,
                // A polite end without a last message: the replica is shutting down.
                Ok(None) => break Status::new(Code::Unavailable, "the director ended the stream"),
                Err(status) => break status,
            };
            match cursor.take(message.offset, &message.data) {
                Ok(fresh) => sink.bytes(fresh)?,
                Err(gap) => break Status::new(Code::Unavailable, gap.to_string()),
            }
            if let Some(task) = message.task {
                return Ok(task);
            }
            patience.news();
        };
        if failure_kind(&broken) == Kind::Final {
            return Err(refused("TasksClient.follow", &broken));
        }
        let Some(wait) = patience.broken() else {
            return Err(fleet.lost("TasksClient.follow", &broken));
        };
        fleet.move_on();
        tokio::time::sleep(wait).await;
    }
}

/// Waits for the next message; a task that has not begun is asked meanwhile for whom it waits.
async fn next(
    fleet: &Fleet,
    stream: &mut Streaming<TaskOutput>,
    waiting: &mut Waiting,
    sink: &mut dyn Sink,
) -> Result<Result<Option<TaskOutput>, Status>, Error> {
    loop {
        if waiting.started {
            return Ok(stream.message().await);
        }
        // Giving up on `message` loses nothing: what has arrived stays in the stream.
        match tokio::time::timeout(ASK_EVERY, stream.message()).await {
            Ok(message) => {
                waiting.started = true;
                return Ok(message);
            }
            Err(_) => waiting.ask(fleet, sink).await?,
        }
    }
}

/// What we know about a task that has not begun.
struct Waiting {
    id: u64,
    started: bool,
    told: Vec<u64>,
}

impl Waiting {
    async fn ask(&mut self, fleet: &Fleet, sink: &mut dyn Sink) -> Result<(), Error> {
        let task = call!(fleet, TasksClient.get(GetTaskRequest { id: self.id })).await?;
        self.started = task.state != "queued";
        if self.started || task.waits_for == self.told {
            return Ok(());
        }
        self.told = task.waits_for;
        if self.told.is_empty() {
            return Ok(());
        }
        let (noun, ids) = (if self.told.len() == 1 { "task" } else { "tasks" }, join(&self.told));
        sink.notice(&format!("Task {} | Waiting for {noun} {ids}", self.id))?;
        Ok(())
    }
}

/// Returns numbers with commas.
pub fn join(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the last lines about an ended task, as `bosh` writes them, and the one that says how it ended.
fn summary(task: &Task) -> String {
    let (id, mut text) = (task.id, String::new());
    let begun = if task.started_at_unix_ms == 0 { task.queued_at_unix_ms } else { task.started_at_unix_ms };
    if let (Some(started), Some(finished)) = (rfc3339(begun), rfc3339(task.finished_at_unix_ms)) {
        let seconds = (task.finished_at_unix_ms / 1000 - begun / 1000).max(0);
        let duration = transcript::duration(seconds);
        text = format!(
            "\nTask {id} Started  {started}\nTask {id} Finished {finished}\nTask {id} Duration {duration}\n"
        );
    }
    format!("{text}Task {id} {}", task.state)
}

/// Starts nothing: prints a task that was started, for `--detach` and for programs.
pub fn started(console: &mut Console, id: u64) -> Result<(), Error> {
    match console.format {
        Format::People => console.note(&format!("Task {id} started; `dctl task {id}` follows it.")),
        Format::Programs => console.say("", &serde_json::json!({ "id": id })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: &str) -> Task {
        Task {
            id: 3,
            state: state.into(),
            started_at_unix_ms: 1_795_337_711_400,
            finished_at_unix_ms: 1_795_337_719_300,
            ..Task::default()
        }
    }

    #[test]
    fn the_last_line_says_how_it_ended() {
        expect_test::expect![[r#"

            Task 3 Started  2026-11-22T08:55:11Z
            Task 3 Finished 2026-11-22T08:55:19Z
            Task 3 Duration 00:00:08
            Task 3 done"#]]
        .assert_eq(&summary(&task("done")));
        assert_eq!(
            summary(&Task { id: 4, state: "cancelled".into(), ..Task::default() }),
            "Task 4 cancelled"
        );
    }

    #[test]
    fn only_a_bad_end_is_an_error() {
        assert!(judge(task("done")).is_ok() && judge(task("processing")).is_ok());
        for state in ["error", "cancelled", "timeout"] {
            assert!(matches!(judge(task(state)), Err(Error::TaskFailed { id: 3, .. })), "{state}");
        }
    }
}
