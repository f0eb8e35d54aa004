//! Event lines, byte for byte as BOSH writes them: its CLI panics on a line of another shape, and takes lines for the
//! same work only if stage, task and tags are equal.

use model::task::{OutputKind, TaskError};
use model::*;
use serde::Serialize;

use super::output;
use super::task::working;
use super::tx::Tx;
use crate::command::{Outcome, PrepareLine, Refusal};
use crate::records::LineState;
use crate::tables::PREPARE_LINES;

/// What the lines of one piece of work have in common.
pub(super) struct Heading<'a> {
    pub stage: &'a str,
    pub tags: &'a [String],
    pub total: u32,
    pub task: &'a str,
    pub index: u32,
}

/// Where that piece of work is.
pub(super) enum At<'a> {
    Started,
    InProgress { percent: u8, status: &'a str },
    Finished,
    Failed { error: &'a str },
}

#[derive(Serialize)]
struct Line<'a> {
    time: i64,
    stage: &'a str,
    tags: &'a [String],
    total: u32,
    task: &'a str,
    index: u32,
    state: &'static str,
    progress: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Facts<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Facts<'a> {
    Status(&'a str),
    Error(&'a str),
}

#[derive(Serialize)]
struct Notice<'a> {
    time: i64,
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Failure<'a> {
    time: i64,
    error: &'a TaskError,
}

/// Writes a line of progress.
pub(super) fn progress(tx: &mut Tx<'_>, task: TaskId, heading: &Heading<'_>, at: At<'_>) {
    let (state, progress, data) = match at {
        At::Started => ("started", 0, None),
        At::InProgress { percent, status } => ("in_progress", percent, Some(Facts::Status(status))),
        At::Finished => ("finished", 100, None),
        At::Failed { error } => ("failed", 100, Some(Facts::Error(error))),
    };
    let Heading { stage, tags, total, task: label, index } = *heading;
    write(
        tx,
        task,
        &Line { time: tx.at.seconds(), stage, tags, total, task: label, index, state, progress, data },
    );
}

/// Writes a warning.
pub(super) fn warning(tx: &mut Tx<'_>, task: TaskId, message: &str) {
    write(tx, task, &Notice { time: tx.at.seconds(), kind: "warning", message });
}

/// Writes the error that ends a task.
pub(super) fn failure(tx: &mut Tx<'_>, task: TaskId, error: &TaskError) {
    write(tx, task, &Failure { time: tx.at.seconds(), error });
}

/// `TaskLine`.
pub(super) fn prepare(tx: &mut Tx<'_>, by: (TaskId, Epoch), line: &PrepareLine) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?.id;
    let key = (task, line.stage.clone(), line.task.clone(), line.state);
    if tx.has(&PREPARE_LINES, &key) {
        return Ok(Outcome::Done);
    }
    tx.put(&PREPARE_LINES, &key, &());
    let at = match line.state {
        LineState::Started => At::Started,
        LineState::Finished => At::Finished,
        LineState::Failed => At::Failed { error: line.error.as_deref().unwrap_or("unknown") },
    };
    let heading =
        Heading { stage: &line.stage, tags: &[], total: line.total, task: &line.task, index: line.index };
    progress(tx, task, &heading, at);
    Ok(Outcome::Done)
}

fn write<T: Serialize>(tx: &mut Tx<'_>, task: TaskId, line: &T) {
    let mut text = serde_json::to_string(line).expect("a line has only texts and numbers");
    text.push('\n');
    output::append(tx, task, OutputKind::Event, text);
}
