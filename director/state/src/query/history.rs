//! What happened: audit events, changes for watchers, and leaks.

use model::*;

use super::State;
use crate::command::Outcome;
use crate::kv::Direction;
use crate::records::*;
use crate::tables::*;

/// Which audit events to list; every field that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this task.
    pub task: Option<TaskId>,
    /// Of this deployment.
    pub deployment: Option<DeploymentName>,
    /// Of this instance (`group/uuid`).
    pub instance: Option<String>,
    /// By this user.
    pub user: Option<UserName>,
    /// With this action.
    pub action: Option<String>,
    /// On this type of object.
    pub object_type: Option<String>,
    /// On this object.
    pub object_name: Option<String>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
}

impl EventFilter {
    fn takes(&self, event: &Event) -> bool {
        fn same<T: PartialEq>(wanted: &Option<T>, has: Option<&T>) -> bool {
            wanted.as_ref().is_none_or(|wanted| has == Some(wanted))
        }
        same(&self.task, event.task.as_ref())
            && same(&self.deployment, event.deployment.as_ref())
            && same(&self.instance, event.instance.as_ref())
            && same(&self.user, Some(&event.user))
            && same(&self.action, Some(&event.action))
            && same(&self.object_type, Some(&event.object_type))
            && same(&self.object_name, event.object_name.as_ref())
            && self.from.is_none_or(|from| event.at >= from)
            && self.until.is_none_or(|until| event.at < until)
    }
}

/// Changes since a revision that is too long ago: start over from a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes are known from revision {oldest} on only")]
pub struct Compacted {
    /// The oldest revision whose changes are known.
    pub oldest: Revision,
}

impl State<'_> {
    /// Returns audit events, newest first.
    pub fn events(&self, filter: &EventFilter, before: Option<EventId>, limit: usize) -> Vec<Event> {
        let rows = EVENTS.rows_before(self.kv, &before.unwrap_or(EventId(u64::MAX))).map(|(_, event)| event);
        rows.filter(|event| filter.takes(event)).take(limit).collect()
    }

    /// Returns an audit event.
    pub fn event(&self, id: EventId) -> Option<Event> {
        EVENTS.get(self.kv, &id)
    }

    /// Returns the changes after `revision`, in order: whole revisions, at least one, and no further one once there
    /// are `limit` changes.
    pub fn changes_since(&self, revision: Revision, limit: usize) -> Result<Vec<Change>, Compacted> {
        let oldest = CHANGES_FROM.get(self.kv, &()).unwrap_or_default();
        let after = Revision(revision.0.saturating_add(1));
        if after < oldest {
            return Err(Compacted { oldest });
        }
        let mut changes = Vec::new();
        for (revision, rows) in CHANGES.rows_from(self.kv, &after) {
            if !changes.is_empty() && changes.len() >= limit {
                break;
            }
            changes.extend(rows.into_iter().map(|row| Change {
                revision,
                table: crate::tables::name(row.0).into(),
                key: row.1,
                deleted: row.2,
            }));
        }
        Ok(changes)
    }

    /// Returns what was answered to a request, as long as that is remembered.
    pub fn answer(&self, request: &RequestId) -> Option<Outcome> {
        ANSWERS.get(self.kv, request)
    }

    /// Returns what may still appear, although whoever asked for it was told nothing and looked for it in vain.
    pub fn latecomers(&self) -> Vec<Latecomer> {
        LATECOMERS.rows(self.kv, Direction::Forward).map(|(_, row)| row).collect()
    }

    /// Returns what may still appear under this id.
    pub fn latecomer(&self, sought: &Sought) -> Option<Latecomer> {
        LATECOMERS.get(self.kv, sought)
    }

    /// Returns what may exist out there without anybody knowing its id. Beside it, on the list that operators see, is what
    /// may still appear: [`Self::latecomers`].
    pub fn leaks(&self) -> Vec<Leak> {
        LEAKS.rows(self.kv, Direction::Forward).map(|(_, leak)| leak).collect()
    }
}
