//! What can be asked of a director: one function per operation. Each says who may, checks what was given, proposes or
//! reads. Front doors only translate.
//!
//! Deliberately *not* here: wire formats, HTTP, and doing the work (the executor's, on whoever leads). Invariants: rights
//! are checked first; a mutation goes through the log with the caller's request id; what a user acts on is read after a
//! barrier, dashboards may read locally and are told how old it is.
//!
//! Read next: [`caller`] (rights), [`error`], then one file per noun under [`ops`].

pub mod caller;
pub mod error;
pub mod ops;
pub mod page;
mod redact;

use std::sync::Arc;

use model::{ErrorCode, RequestId, Revision};
use state::State;
use state::command::{Command, Outcome, Refusal};
use state::log::{CommandLog, Proposal, View};

pub use caller::{ACCESS_TASK, Access, Caller, Origin, Right};
pub use error::ServiceError;
pub use page::{List, Page};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Read {
    /// Sees every write that was acknowledged to anybody before.
    #[default]
    Linearizable,
    /// What this replica has.
    Local,
}

/// A look at the state, and how old it may be.
pub struct Looked {
    /// The look.
    pub view: View,
    /// Everything up to this revision is in it.
    pub revision: Revision,
}

/// A mutation, as the state knows it before it is proposed.
enum Mutation {
    /// Never heard of: check it against this look.
    New(Looked),
    /// Sent again: it was accepted with this outcome.
    Repeated(Outcome),
}

/// All operations. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    log: Arc<dyn CommandLog>,
}

impl Service {
    /// Makes the service over a log.
    pub fn new(log: Arc<dyn CommandLog>) -> Self {
        Self { log }
    }

    /// Returns the log, for the doors that stream changes.
    pub fn log(&self) -> &Arc<dyn CommandLog> {
        &self.log
    }

    /// Looks at the state.
    pub async fn look(&self, read: Read) -> Result<Looked, ServiceError> {
        let revision = match read {
            Read::Linearizable => self.log.read_barrier().await?,
            Read::Local => self.log.revision(),
        };
        Ok(Looked { view: self.log.view(), revision })
    }

    /// Reads something that may take a while: off the threads that serve everybody.
    async fn read<T: Send + 'static>(
        &self,
        read: Read,
        of: impl FnOnce(&State<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<(T, Revision), ServiceError> {
        let Looked { view, revision } = self.look(read).await?;
        let found = owned_tasks::aside(move || of(&State::new(&*view))).await;
        let found =
            found.map_err(|_| ServiceError::told(ErrorCode::SystemError, "reading the state failed"))?;
        Ok((found?, revision))
    }

    /// Reads a page of a list.
    async fn list<T: Send + 'static>(
        &self,
        read: Read,
        page: &Page,
        of: impl FnOnce(&State<'_>, &Page) -> Result<(Vec<T>, String), ServiceError> + Send + 'static,
    ) -> Result<List<T>, ServiceError> {
        let page = page.clone();
        let ((rows, next_page_token), revision) = self.read(read, move |state| of(state, &page)).await?;
        Ok(List { rows, next_page_token, revision })
    }

    /// Looks at the state for a mutation that checks something before it is proposed. A repeat has nothing to check: it is
    /// told its first answer, whatever has happened since.
    async fn look_for(
        &self,
        caller: &Caller,
        request_id: Option<&RequestId>,
    ) -> Result<Mutation, ServiceError> {
        let looked = self.look(Read::Linearizable).await?;
        let answer = request_id.and_then(|id| State::new(&*looked.view).answer(&scoped(caller, id)));
        Ok(match answer {
            Some(outcome) => Mutation::Repeated(outcome.accepted()?),
            None => Mutation::New(looked),
        })
    }

    /// Proposes a caller's command. What it makes belongs to the teams whose admin the caller is; and unless the caller
    /// is an admin of the director, what is there already must be theirs: whatever happened since it was looked at.
    async fn propose_owned(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        command: Command,
    ) -> Result<Outcome, ServiceError> {
        let (teams, only_theirs) = (caller.admin_teams(), !caller.has(Right::Admin));
        let command = match teams.is_empty() && !only_theirs {
            true => command,
            false => Command::ForTeams { teams, only_theirs, command: Box::new(command) },
        };
        match self.propose(caller, request_id, command).await {
            Err(ServiceError::Refused(Refusal::NotOwned { teams, .. })) => {
                caller.owns(&teams, Access::Admin, "change what belongs to others")?;
                // It was theirs when the state said no, and is not any more: then there is no such answer.
                Err(ServiceError::told(
                    ErrorCode::ResourceError,
                    "who owns it has changed meanwhile: ask again",
                ))
            }
            other => other,
        }
    }

    /// Proposes a caller's command.
    async fn propose(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        command: Command,
    ) -> Result<Outcome, ServiceError> {
        let request_id = request_id.map(|id| scoped(caller, &id));
        let proposal = Proposal { command, request_id, user: caller.user.clone() };
        Ok(self.log.propose(proposal).await?.outcome.accepted()?)
    }
}

/// Returns a request's id as the log knows it. Ids are scoped by user: nobody gets another one's first answer by guessing
/// an id.
pub fn scoped(caller: &Caller, id: &RequestId) -> RequestId {
    match caller.origin {
        Origin::Fleet => RequestId::new(format!("{}/{id}", caller.user)),
        Origin::Uaa => RequestId::new(format!("uaa:{}/{id}", caller.user)),
    }
}
