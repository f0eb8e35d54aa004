//! What happened and what is held: events, locks, changes.

use std::cmp::Reverse;

use known_bugs::Bug;
use model::{ErrorCode, EventId, RequestId, Revision};
use state::State;
use state::command::{Command, NewEvent};
use state::query::{Compacted, EventFilter, LockView};
use state::records::{Change, Event};

use crate::{Caller, List, Page, Read, Right, Service, ServiceError};

/// Changes told at once, unless one revision has more.
const CHANGES_MAX: usize = 500;

/// Everything that has changed since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// In order; none in a bookmark.
    pub changes: Vec<Change>,
    /// Everything up to here has been told.
    pub reached: Revision,
}

impl Service {
    /// Lists audit events, newest first: all of them, whoever's they are.
    pub async fn events(
        &self,
        caller: &Caller,
        filter: EventFilter,
        page: &Page,
    ) -> Result<List<Event>, ServiceError> {
        caller.needs(Right::ReadOrTeam, "list events")?;
        self.list(Read::Linearizable, page, move |state, page| {
            let before: Option<Reverse<EventId>> = page.after()?;
            let events = state.events(&filter, before.map(|id| id.0), page.limit() + 1);
            page.cut(events, |event| Reverse(event.id))
        })
        .await
    }

    /// Fails unless the caller may see what can be asked for, and how: whoever has some business here.
    pub fn may_see_description(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Any, "see the description of the API")
    }

    /// Fails unless the caller may add audit events.
    pub fn may_add_events(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "add events")
    }

    /// Writes an audit event for something that was done elsewhere.
    pub async fn add_event(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        event: NewEvent,
    ) -> Result<(), ServiceError> {
        self.may_add_events(caller)?;
        for (field, text) in [("action", &event.action), ("object_type", &event.object_type)] {
            if text.is_empty() {
                let told = format!("'{field}' is needed: say what was done, and to what");
                return Err(ServiceError::told(ErrorCode::ValidationInvalidType, told));
            }
        }
        self.propose(caller, request_id, Command::EventPut { event: Box::new(event) }).await.map(|_| ())
    }

    /// Returns an audit event.
    pub async fn event(&self, caller: &Caller, id: EventId) -> Result<Option<Event>, ServiceError> {
        caller.needs(Right::Admin, "read events by their number")?;
        let looked = self.look(Read::Linearizable).await?;
        Ok(State::new(&*looked.view).event(id))
    }

    /// Lists locks with holders and waiters.
    pub async fn locks(&self, caller: &Caller, page: &Page) -> Result<List<LockView>, ServiceError> {
        caller.needs(Right::Read, "list locks")?;
        self.list(Read::Linearizable, page, |state, page| page.cut(state.locks(), |lock| lock.name.clone()))
            .await
    }

    /// Watches this replica's changes after a revision, or from now on. A revision whose successors are not kept any more
    /// is refused at once.
    pub fn watch(&self, caller: &Caller, after: Option<Revision>) -> Result<Watch, ServiceError> {
        caller.needs(Right::Read, "watch changes")?;
        let after = after.unwrap_or_else(|| self.log().revision());
        self.changes(after, 1)?;
        Ok(Watch { service: self.clone(), after, told: false })
    }

    /// Returns changes after a revision, from this replica, and how far they reach. Changes of one revision are never
    /// cut apart.
    fn changes(&self, after: Revision, limit: usize) -> Result<Changes, ServiceError> {
        let (revision, view) = (self.log().revision(), self.log().view());
        let state = State::new(&*view);
        let changes = match state.changes_since(after, limit) {
            Err(Compacted { oldest }) if known_bugs::is(Bug::WatchSkipsCompaction) => {
                state.changes_since(Revision(oldest.0.saturating_sub(1)), limit)
            }
            found => found,
        };
        let changes = changes.map_err(|Compacted { oldest }| ServiceError::Compacted { oldest: oldest.0 })?;
        // A full page may not reach the end; the view may be newer than `revision`: either way the last change counts.
        let reached = match changes.last() {
            Some(last) if changes.len() >= limit => last.revision,
            Some(last) => last.revision.max(revision),
            None => revision.max(after),
        };
        Ok(Changes { changes, reached })
    }
}

/// A watch: what has changed, then what changes.
pub struct Watch {
    service: Service,
    after: Revision,
    /// Whether it was told where the watch is.
    told: bool,
}

impl Watch {
    /// Returns what comes next, as soon as there is something. At first where the watch is, at once: who began "now" learns
    /// from which revision to go on elsewhere. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Changes, ServiceError> {
        loop {
            let (service, after) = (self.service.clone(), self.after);
            let read = owned_tasks::aside(move || service.changes(after, CHANGES_MAX)).await;
            let found =
                read.map_err(|_| ServiceError::told(ErrorCode::SystemError, "reading the changes failed"))??;
            if found.reached > self.after || !self.told {
                (self.after, self.told) = (found.reached, true);
                return Ok(found);
            }
            self.service.log().changed(self.after).await;
        }
    }
}
