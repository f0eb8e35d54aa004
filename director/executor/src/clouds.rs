//! Which cloud, and the context of a call to it.

use std::sync::Arc;
use std::time::Duration;

use cpi_api::{CallContext, CallLog, Cpi};
use model::task::{OutputKind, TaskError};
use model::{CpiName, ErrorCode, RequestId};
use state::State;

use crate::context::TaskContext;

/// Why there is no cloud of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCloud {
    /// Nobody has configured it.
    #[error("CPI '{0}' is not configured on this director")]
    Unknown(CpiName),
    /// It is configured, but not so that it could be called.
    #[error("CPI '{cpi}' cannot be used: {why}")]
    Unusable {
        /// Which.
        cpi: CpiName,
        /// Why, without secrets.
        why: String,
    },
}

impl From<NoCloud> for TaskError {
    fn from(none: NoCloud) -> Self {
        Self::new(ErrorCode::CpiNotFound, none.to_string())
    }
}

impl TaskContext {
    /// Returns a cloud by its name.
    pub fn cloud(&self, cpi: &CpiName) -> Result<Arc<dyn Cpi>, TaskError> {
        Ok(self.ports.cpis.get(cpi)?)
    }

    /// Returns the context of a call that no step of a plan makes: `what` is part of its id.
    pub fn call(&self, what: &str, timeout: Duration) -> CallContext {
        let id = format!("t{}-{what}-{}", self.id(), uuid::Uuid::new_v4());
        self.call_of(RequestId::new(id), None, timeout)
    }

    /// Returns the context of a call.
    pub fn call_of(
        &self,
        request_id: RequestId,
        stemcell_api_version: Option<u32>,
        timeout: Duration,
    ) -> CallContext {
        let view = self.view();
        let (output, task) = (self.ports.output.clone(), self.id());
        CallContext {
            director_uuid: State::new(&*view).cluster().map(|c| c.director_uuid).unwrap_or_default(),
            request_id,
            epoch: self.fence.epoch(),
            stemcell_api_version,
            timeout,
            log: CallLog::new(move |line| output.write(task, OutputKind::Cpi, &format!("{line}\n"))),
        }
    }
}
