//! Tasks, events and locks.

use proto::v1::events_client::EventsClient;
use proto::v1::follow_task_request::Kind as Output;
use proto::v1::locks_client::LocksClient;
use proto::v1::tasks_client::TasksClient;
use proto::v1::*;
use serde_json::{Value, json};

use super::deployments::parse_json;
use super::{ALL, Context, pages};
use crate::args::{ListEvents, ListTasks, ShowTask};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Format, Listing, Record, column};
use crate::error::Error;
use crate::follow::{self, Until};

const TASKS: &[Column] = &[
    column("ID", "id"),
    column("State", "state"),
    column("Started at", "started_at"),
    column("Finished at", "finished_at"),
    column("User", "user"),
    column("Deployment", "deployment"),
    column("Description", "description"),
    column("Result", "result"),
    column("Waits for", "waits_for"),
    column("", "queued_at"),
    column("", "error"),
    column("", "context_id"),
    column("", "epoch"),
];

fn cells(task: Task) -> [Cell; 13] {
    let failed = !task.error_message.is_empty() || task.error_code != 0;
    // People look for the reason where the result would be.
    let shown = if failed { task.error_message.clone() } else { task.result.clone() };
    let error =
        if failed { json!({ "code": task.error_code, "message": task.error_message }) } else { Value::Null };
    let result = if task.result.is_empty() { Value::Null } else { json!(task.result) };
    let waits_for = Cell::Both(or_dash(follow::join(&task.waits_for)), json!(task.waits_for));
    [
        Cell::Number(task.id),
        Cell::State(task.state),
        Cell::Time(task.started_at_unix_ms),
        Cell::Time(task.finished_at_unix_ms),
        task.user.into(),
        task.deployment.into(),
        task.description.into(),
        Cell::Both(or_dash(shown), result),
        waits_for,
        Cell::Time(task.queued_at_unix_ms),
        Cell::Both(String::new(), error),
        task.context_id.into(),
        Cell::nonzero(task.epoch),
    ]
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

/// Returns a task as one thing.
pub(super) fn record(task: Task) -> Record {
    Record::new(TASKS.iter().copied().zip(cells(task)))
}

pub(super) async fn list(context: &mut Context<'_>, args: ListTasks) -> Result<(), Error> {
    let max = args.recent.map_or(ALL, |max| max as usize);
    let found = pages(max, async |page| {
        let request = ListTasksRequest {
            current: args.recent.is_none(),
            deployment: context.deployment_or_all(),
            page: Some(page),
        };
        let answer = call!(context.fleet, TasksClient.list(request)).await?;
        Ok((answer.tasks, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("tasks", TASKS, found.rows, cells);
    context.console.list(&listing.as_of(found.revision))
}

pub(super) async fn show(context: &mut Context<'_>, args: ShowTask) -> Result<(), Error> {
    let until = if args.no_follow { Until::Now } else { Until::TaskEnds };
    let choice = args.output;
    let raw = match (choice.debug, choice.cpi, choice.result, choice.event) {
        (true, ..) => Some(Output::Debug),
        (_, true, ..) => Some(Output::Cpi),
        (_, _, true, _) => Some(Output::Result),
        (.., true) => Some(Output::Event),
        _ => None,
    };
    if choice.steps {
        return steps(context, args.id).await;
    }
    if let Some(output) = raw {
        let task = follow::copy(&context.fleet, context.console, args.id, output, until).await?;
        return follow::judge(task).map(drop);
    }
    let task = match until {
        Until::TaskEnds => follow::to_the_end(&context.fleet, context.console, args.id).await?,
        Until::Now => {
            let task = follow::so_far(&context.fleet, context.console, args.id).await?;
            context.console.note(&format!("Task {} {}", task.id, task.state))?;
            task
        }
    };
    if context.console.format == Format::Programs {
        context.console.record(&record(task.clone()))?;
    }
    follow::judge(task).map(drop)
}

const STEPS: &[Column] = &[
    column("Unit", "unit"),
    column("Stage", "stage"),
    column("Of", "label"),
    column("Unit state", "unit_state"),
    column("Step", "step"),
    column("Attempts", "attempts"),
    column("Epoch", "epoch"),
    column("Outcome", "outcome"),
    column("Error", "error"),
];

async fn steps(context: &mut Context<'_>, id: u64) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = GetTaskStepsRequest { id, page: Some(page) };
        let answer = call!(context.fleet, TasksClient.steps(request)).await?;
        Ok((answer.units, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let mut listing = Listing::new("steps", STEPS).as_of(found.revision);
    for unit in found.rows {
        for step in unit.steps {
            listing.row([
                Cell::Number(unit.no.into()),
                unit.stage.clone().into(),
                unit.label.clone().into(),
                Cell::State(unit.state.clone()),
                step.name.into(),
                Cell::Number(step.attempts.into()),
                Cell::nonzero(step.epoch),
                Cell::State(step.outcome),
                step.error.into(),
            ]);
        }
    }
    context.console.list(&listing)
}

pub(super) async fn cancel(context: &mut Context<'_>, id: u64) -> Result<(), Error> {
    let request = CancelTaskRequest { request_id: request_id(), id };
    let answer = call!(context.fleet, TasksClient.cancel(request)).await?;
    context
        .console
        .say(&format!("Task {id} is {}.", answer.state), &json!({ "id": id, "state": answer.state }))
}

const EVENTS: &[Column] = &[
    column("ID", "id"),
    column("", "parent"),
    column("Time", "at"),
    column("User", "user"),
    column("Action", "action"),
    column("Object type", "object_type"),
    column("Object name", "object_name"),
    column("Task", "task"),
    column("Deployment", "deployment"),
    column("Instance", "instance"),
    column("Context", "context"),
    column("Error", "error"),
];

pub(super) async fn events(context: &mut Context<'_>, args: ListEvents) -> Result<(), Error> {
    let found = pages(args.max, async |page| {
        let request = ListEventsRequest {
            deployment: context.deployment_or_all(),
            task: args.task,
            instance: args.instance.clone(),
            page: Some(page),
        };
        let answer = call!(context.fleet, EventsClient.list(request)).await?;
        Ok((answer.events, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let mut listing = Listing::new("events", EVENTS).as_of(found.revision);
    for event in found.rows {
        let about = parse_json(&event.context_json, "an event's context")?;
        let is_empty = about.is_null() || about.as_object().is_some_and(serde_json::Map::is_empty);
        let shown = if is_empty { "-".into() } else { about.to_string() };
        listing.row([
            Cell::Number(event.id),
            Cell::nonzero(event.parent),
            Cell::Time(event.at_unix_ms),
            event.user.into(),
            event.action.into(),
            event.object_type.into(),
            event.object_name.into(),
            Cell::nonzero(event.task),
            event.deployment.into(),
            event.instance.into(),
            Cell::Both(shown, about),
            event.error.into(),
        ]);
    }
    context.console.list(&listing)
}

const LOCKS: &[Column] = &[
    column("Lock", "name"),
    column("Held by task", "holder"),
    column("Since", "held_since"),
    column("Waiting tasks", "waiters"),
];

pub(super) async fn locks(context: &mut Context<'_>) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let answer = call!(context.fleet, LocksClient.list(ListLocksRequest { page: Some(page) })).await?;
        Ok((answer.locks, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("locks", LOCKS, found.rows, |lock| {
        [
            lock.name.into(),
            Cell::nonzero(lock.holder),
            Cell::Time(lock.held_since_unix_ms),
            Cell::Both(or_dash(follow::join(&lock.waiters)), json!(lock.waiters)),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}
