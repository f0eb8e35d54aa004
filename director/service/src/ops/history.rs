//! What happened and what is held: events, locks, changes.

use std::cmp::Reverse;

use model::{EventId, Revision};
use state::State;
use state::query::{EventFilter, LockView};
use state::records::{Change, Event};

use crate::{Caller, List, Page, Read, Right, Service, ServiceError};

impl Service {
    /// Lists audit events, newest first.
    pub async fn events(
        &self,
        caller: &Caller,
        filter: EventFilter,
        page: &Page,
    ) -> Result<List<Event>, ServiceError> {
        caller.needs(Right::Read, "list events")?;
        self.list(Read::Linearizable, page, move |state, page| {
            let before: Option<Reverse<EventId>> = page.after()?;
            let events = state.events(&filter, before.map(|id| id.0), page.limit() + 1);
            page.cut(events, |event| Reverse(event.id))
        })
        .await
    }

    /// Lists locks with holders and waiters.
    pub async fn locks(&self, caller: &Caller, page: &Page) -> Result<List<LockView>, ServiceError> {
        caller.needs(Right::Read, "list locks")?;
        self.list(Read::Linearizable, page, |state, page| page.cut(state.locks(), |lock| lock.name.clone()))
            .await
    }

    /// Returns changes after a revision, from this replica, and how far they reach. Changes of one revision are never
    /// cut apart.
    pub fn changes(
        &self,
        caller: &Caller,
        after: Revision,
        limit: usize,
    ) -> Result<(Vec<Change>, Revision), ServiceError> {
        caller.needs(Right::Read, "watch changes")?;
        let (revision, view) = (self.log().revision(), self.log().view());
        let changes = State::new(&*view)
            .changes_since(after, limit)
            .map_err(|compacted| ServiceError::Compacted { oldest: compacted.oldest.0 })?;
        // A full page may not reach the end; the view may be newer than `revision`: either way the last change counts.
        let reached = match changes.last() {
            Some(last) if changes.len() >= limit => last.revision,
            Some(last) => last.revision.max(revision),
            None => revision.max(after),
        };
        Ok((changes, reached))
    }
}
