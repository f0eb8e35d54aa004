//! What can be asked of a director: one function per operation. Each says who may, checks what was given, proposes or
//! reads. REST and gRPC only translate.
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

use std::sync::Arc;

use model::{RequestId, Revision};
use state::command::{Command, Outcome};
use state::log::{CommandLog, Proposal, View};

pub use caller::{Caller, Right};
pub use error::ServiceError;
pub use page::Page;

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

    /// Proposes a caller's command.
    async fn propose(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        command: Command,
    ) -> Result<Outcome, ServiceError> {
        // Ids are scoped by user: nobody gets another one's first answer by guessing an id.
        let request_id = request_id.map(|id| RequestId::new(format!("{}/{id}", caller.user)));
        let proposal = Proposal { command, request_id, user: caller.user.clone() };
        Ok(self.log.propose(proposal).await?.outcome.accepted()?)
    }
}
