//! Operators' users on machines.

use model::task::{SshCommand, SshTarget, TaskKind};
use model::{DeploymentName, ErrorCode, RequestId, TaskId};
use state::State;

use super::deployments::{owned, queued};
use crate::{Caller, Mutation, Service, ServiceError};

/// The longest of everything that is asked for together: it is in an entry of the log, and keys are the longest of it.
const WISH_BYTES_MAX: usize = 32 << 10;

impl Service {
    /// Files a task that makes or removes operators' users; its result says of each machine how to reach it. It waits for
    /// nobody: who looks after an instance often does so while something works on it.
    pub async fn ssh(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        deployment: &DeploymentName,
        command: SshCommand,
        target: SshTarget,
    ) -> Result<TaskId, ServiceError> {
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        owned(&State::new(&*looked.view), caller, deployment, "ssh")?;
        let named = match &command {
            SshCommand::Setup { user, public_key } => user.len() + public_key.len(),
            SshCommand::Cleanup { user_regex } => user_regex.len(),
        };
        let asked_for = target.ids.iter().chain(&target.indexes).map(String::len).sum::<usize>() + named;
        if named == 0 || asked_for > WISH_BYTES_MAX {
            let text =
                format!("say which user, with a key, or which users; in {WISH_BYTES_MAX} bytes at most");
            return Err(ServiceError::told(ErrorCode::BadRequest, text));
        }
        let (kind, name) = (TaskKind::Ssh { command, target }, Some(deployment.clone()));
        self.queue(caller, request_id, kind, name, "", Vec::new()).await
    }
}
