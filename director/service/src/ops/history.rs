//! What happened and what is held: events, locks, changes.

use model::{EventId, Revision};
use state::State;
use state::query::{EventFilter, LockView};
use state::records::{Change, Event};

use crate::{Caller, Page, Read, Right, Service, ServiceError};

impl Service {
    /// Lists audit events, newest first.
    pub async fn events(
        &self,
        caller: &Caller,
        filter: &EventFilter,
        page: &Page,
    ) -> Result<(Vec<Event>, String), ServiceError> {
        caller.needs(Right::Read, "list events")?;
        let looked = self.look(Read::Linearizable).await?;
        let before = page.number()?.map(EventId);
        let mut events = State::new(&*looked.view).events(filter, before, page.limit() + 1);
        let more = events.len() > page.limit();
        events.truncate(page.limit());
        let next = events.last().filter(|_| more).map(|e| e.id.to_string()).unwrap_or_default();
        Ok((events, next))
    }

    /// Lists locks with holders and waiters.
    pub async fn locks(&self, caller: &Caller) -> Result<Vec<LockView>, ServiceError> {
        caller.needs(Right::Read, "list locks")?;
        let looked = self.look(Read::Linearizable).await?;
        Ok(State::new(&*looked.view).locks())
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
