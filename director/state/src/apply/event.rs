//! Audit events, and leaks, which are reported by one.

use std::collections::BTreeMap;

use model::*;

use super::latecomer;
use super::tx::{Tx, invalid, not_found};
use crate::command::{NewEvent, Outcome, Refusal};
use crate::records::{Event, Leak};
use crate::rows::TaskRow;
use crate::tables::*;

/// Audit events kept.
const EVENTS_KEPT: u64 = 10_000;

/// Alerts kept, beside those: what agents say must not push out what people did.
const ALERTS_KEPT: u64 = 1000;

/// The type of object that makes an event an alert.
const ALERT: &str = "alert";

/// An audit event to write. The time is the entry's; the user is who asked for the task, or else for the entry.
#[derive(Default)]
pub(super) struct Audit<'a> {
    pub task: Option<&'a TaskRow>,
    pub parent: Option<EventId>,
    pub action: &'a str,
    pub object_type: &'a str,
    pub object_name: Option<String>,
    pub deployment: Option<DeploymentName>,
    pub instance: Option<String>,
    pub context: BTreeMap<String, serde_json::Value>,
    pub error: Option<String>,
}

/// Writes an audit event and returns its number.
pub(super) fn audit(tx: &mut Tx<'_>, audit: Audit<'_>) -> EventId {
    let user = audit.task.map_or(&tx.actor.user, |task| &task.user).clone();
    let deployment = audit.deployment.or_else(|| audit.task.and_then(|task| task.deployment.clone()));
    let event = Event {
        id: EventId(0),
        parent: audit.parent,
        at: tx.at,
        user,
        action: audit.action.into(),
        object_type: audit.object_type.into(),
        object_name: audit.object_name,
        deployment,
        instance: audit.instance,
        task: audit.task.map(|task| task.id),
        context: audit.context,
        error: audit.error,
    };
    file(tx, event)
}

/// `EventPut`: an operator's or a watcher's own event.
pub(super) fn put(tx: &mut Tx<'_>, new: &NewEvent) -> Result<Outcome, Refusal> {
    for (field, text) in [("action", &new.action), ("object_type", &new.object_type)] {
        if text.is_empty() {
            return Err(invalid("event", format!("it has no {field}")));
        }
    }
    let event = Event {
        id: EventId(0),
        parent: None,
        at: new.at.unwrap_or(tx.at),
        user: tx.actor.user.clone(),
        action: new.action.clone(),
        object_type: new.object_type.clone(),
        object_name: new.object_name.clone(),
        deployment: new.deployment.clone(),
        instance: new.instance.clone(),
        task: new.task,
        context: new.context.clone(),
        error: new.error.clone(),
    };
    file(tx, event);
    Ok(Outcome::Done)
}

/// `LeakPut`. The number in it is ours to give: that of the event that reports it.
pub(super) fn leak_put(tx: &mut Tx<'_>, leak: &Leak) -> Result<Outcome, Refusal> {
    let task = leak.task.and_then(|task| tx.get(&TASKS, &task));
    report_leak(tx, task.as_ref(), leak.task, &leak.what);
    Ok(Outcome::Done)
}

/// `LeakClear`.
pub(super) fn leak_clear(tx: &mut Tx<'_>, id: EventId) -> Result<Outcome, Refusal> {
    if latecomer::clear(tx, id) {
        return Ok(Outcome::Done);
    }
    let Some(leak) = tx.get(&LEAKS, &id) else { return Err(not_found("leak", id.to_string())) };
    tx.delete(&LEAKS, &id);
    let closing = Audit {
        parent: Some(id),
        action: "clear",
        object_type: "leak",
        object_name: Some(leak.what),
        ..Audit::default()
    };
    audit(tx, closing);
    Ok(Outcome::Done)
}

/// Writes down that something may exist out there.
pub(super) fn report_leak(tx: &mut Tx<'_>, row: Option<&TaskRow>, task: Option<TaskId>, what: &str) {
    let report = Audit {
        task: row,
        action: "report",
        object_type: "leak",
        object_name: Some(what.into()),
        ..Audit::default()
    };
    let id = audit(tx, report);
    tx.put(&LEAKS, &id, &Leak { id, what: what.into(), task, at: tx.at });
}

fn file(tx: &mut Tx<'_>, event: Event) -> EventId {
    let id = EventId(tx.next_number("events"));
    if event.object_type == ALERT {
        replace_alert(tx, id);
    } else if tx.next_number("events_of_audit") > EVENTS_KEPT {
        forget_oldest(tx, id);
    }
    tx.put(&EVENTS, &id, &Event { id, ..event });
    id
}

/// Gives an alert the place of the oldest one.
fn replace_alert(tx: &mut Tx<'_>, id: EventId) {
    let place = tx.next_number("events_of_alerts") % ALERTS_KEPT;
    if let Some(old) = tx.get(&ALERTS, &place) {
        tx.delete(&EVENTS, &old);
    }
    tx.put(&ALERTS, &place, &id);
}

/// Forgets the oldest event that is no alert. The numbers in between are those of alerts, or of what is forgotten.
fn forget_oldest(tx: &mut Tx<'_>, next: EventId) {
    while let oldest = EventId(tx.next_number("events_forgotten"))
        && oldest < next
    {
        if tx.get(&EVENTS, &oldest).is_some_and(|event| event.object_type != ALERT) {
            tx.delete(&EVENTS, &oldest);
            return;
        }
    }
}
