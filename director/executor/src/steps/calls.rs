//! Calls to agents and clouds: bounded, fenced before and during, errors in the operator's words.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_api::{AgentError, Method, Mode, Reply, Request};
use cpi_api::{CallContext, Cpi, CpiError, CpiErrorKind};
use model::instance::Vm;
use model::{AgentId, CpiName, ErrorCode, InstanceId, VmCid};
use state::State;
use state::log::Proposal;

use crate::context::{How, StepContext};
use crate::error::StepError;

/// How long an answer may take that needs no work (BOSH's request timeout).
pub const QUICK: Duration = Duration::from_secs(45);

/// How long installing may take: downloads and unpacking.
pub const INSTALL: Duration = Duration::from_secs(30 * 60);

/// How long a script of a release may take. BOSH has no bound at all; a day is one that only the hopeless reach.
pub const SCRIPT: Duration = Duration::from_secs(24 * 3600);

/// How long a cloud may take for one call: rate limits included, and the CPI contract promises an end within the hour.
pub const CLOUD: Duration = Duration::from_secs(3600);

/// How long an agent may take to give up what it was asked to, before the task is cancelled without its answer.
const GIVE_UP: Duration = Duration::from_secs(30);

/// Returns whether a method only looks. A look must never be answered from the agent's record of an earlier one.
fn is_read(method: &Method) -> bool {
    matches!(method, Method::Ping | Method::GetState { .. } | Method::ListDisk)
}

impl StepContext {
    fn fresh_id(&self, part: &str) -> model::RequestId {
        static LOOKS: AtomicU64 = AtomicU64::new(0);
        let look = LOOKS.fetch_add(1, Ordering::Relaxed);
        model::RequestId::new(format!("{}-e{}-{look}", self.request_id(part), self.task.fence.epoch()))
    }

    /// Sends a request to an agent and waits for its result; `part` tells the requests of one step apart.
    pub async fn agent(
        &self,
        agent: &AgentId,
        instance: &InstanceId,
        part: &str,
        method: Method,
        timeout: Duration,
    ) -> Result<Reply, StepError> {
        self.agent_with(agent, instance, part, method, timeout, Mode::Submit).await
    }

    /// As [`StepContext::agent`], with a mode.
    pub async fn agent_with(
        &self,
        agent: &AgentId,
        instance: &InstanceId,
        part: &str,
        method: Method,
        timeout: Duration,
        mode: Mode,
    ) -> Result<Reply, StepError> {
        let answer = self.agent_raw(agent, part, method, timeout, mode).await?;
        answer.map_err(|error| self.told(error, instance))
    }

    /// As [`StepContext::agent_with`], and leaves it to the caller what the agent's errors mean.
    pub async fn agent_raw(
        &self,
        agent: &AgentId,
        part: &str,
        method: Method,
        timeout: Duration,
        mode: Mode,
    ) -> Result<Result<Reply, AgentError>, StepError> {
        let epoch = self.task.fence.epoch();
        let id = if is_read(&method) { self.fresh_id(part) } else { self.request_id(part) };
        let request = Request { id, epoch, mode, timeout, method };
        self.fenced(self.task.ports.agents.call(agent, request)).await
    }

    /// Translates an agent's error.
    pub fn told(&self, error: AgentError, instance: &InstanceId) -> StepError {
        StepError::from_agent(error, &self.slug(instance), self.task.fence.epoch())
    }

    /// Sends a request to an agent; if the task is cancelled meanwhile, has the agent give it up.
    pub async fn agent_cancellable(
        &self,
        agent: &AgentId,
        instance: &InstanceId,
        part: &str,
        method: Method,
        timeout: Duration,
        mode: Mode,
    ) -> Result<Reply, StepError> {
        let call = self.agent_with(agent, instance, part, method, timeout, mode);
        tokio::pin!(call);
        if self.cleanup {
            return call.await;
        }
        tokio::select! {
            answer = &mut call => return answer,
            () = self.task.cancelled.cancelled() => {}
        }
        // Best effort: whether the agent gave it up or had just finished, its answer tells.
        let id = self.request_id(part);
        if let Err(error) = self.task.ports.agents.cancel(agent, &id, self.task.fence.epoch()).await {
            self.task.debug(&format!("agent {agent} did not take the cancellation: {error}"));
        }
        tokio::time::timeout(GIVE_UP, call).await.unwrap_or(Err(StepError::Cancelled))
    }

    /// Has it remembered that something may exist which nobody knows by id, and returns the failure that says so. To be
    /// called before the failure is recorded: that removes the row by which it would be found.
    pub async fn leaked(&self, what: String) -> StepError {
        match self.task.leaked(&format!("{}-{}", self.step, self.attempt), what.clone()).await {
            Ok(()) => StepError::plain(what),
            Err(error) => error.into(),
        }
    }

    /// Has a command of this step committed, for as long as the right to act lasts.
    pub async fn propose(&self, proposal: Proposal) -> Result<(), StepError> {
        self.task.propose(proposal).await??;
        Ok(())
    }

    /// Calls a cloud.
    pub async fn cloud<T, F>(
        &self,
        cpi: &CpiName,
        part: &str,
        stemcell_api_version: Option<u32>,
        call: impl FnOnce(Arc<dyn Cpi>, CallContext) -> F,
    ) -> Result<T, StepError>
    where
        F: Future<Output = Result<T, CpiError>>,
    {
        let epoch = self.task.fence.epoch();
        let answer = self.cloud_raw(cpi, part, stemcell_api_version, call).await?;
        answer.map_err(|error| StepError::from_cpi(error, epoch))
    }

    /// Calls a cloud and leaves it to the caller what its errors mean.
    pub async fn cloud_raw<T, F>(
        &self,
        cpi: &CpiName,
        part: &str,
        stemcell_api_version: Option<u32>,
        call: impl FnOnce(Arc<dyn Cpi>, CallContext) -> F,
    ) -> Result<Result<T, CpiError>, StepError>
    where
        F: Future<Output = Result<T, CpiError>>,
    {
        let handle = self.task.cloud(cpi).map_err(StepError::Failed)?;
        let request_id = self.request_id(part);
        let context = self.task.call_of(request_id.clone(), stemcell_api_version, CLOUD);
        let answer = self.fenced(tokio::time::timeout(CLOUD, call(handle, context))).await?;
        let late = || CpiError::new(CpiErrorKind::TimedOut, "call", "no answer within an hour");
        Ok(answer.unwrap_or_else(|_| Err(late())).map_err(|e| e.for_request(&request_id)))
    }

    /// Waits for a deed, unless the right to it is lost first: then its end is for the next leader to find out.
    pub async fn fenced<T>(&self, deed: impl Future<Output = T>) -> Result<T, StepError> {
        self.task.fence.check()?;
        tokio::select! {
            result = deed => Ok(result),
            lost = self.task.fence.lost() => Err(lost.into()),
        }
    }

    /// Returns the row of an agent's VM.
    pub fn vm(&self, agent: &AgentId) -> Option<Vm> {
        let view = self.task.view();
        State::new(&*view).vm(agent)
    }

    /// Returns an agent's VM together with its cloud id, or says that there is none.
    pub fn vm_with_cid(&self, agent: &AgentId, instance: &InstanceId) -> Result<(Vm, VmCid), StepError> {
        let missing = || {
            StepError::coded(
                ErrorCode::InstanceVmMissing,
                format!("instance '{}' has no VM", self.slug(instance)),
            )
        };
        let vm = self.vm(agent).ok_or_else(missing)?;
        let cid = vm.cid.clone().ok_or_else(missing)?;
        Ok((vm, cid))
    }

    /// Returns `group/uuid` for messages.
    pub fn slug(&self, instance: &InstanceId) -> String {
        match self.task.target(instance) {
            Ok(target) => format!("{}/{}", target.spec.group, instance),
            Err(_) => instance.to_string(),
        }
    }

    /// Returns whether an earlier leader may have begun this attempt.
    pub fn is_repeat(&self) -> bool {
        self.how == How::Again
    }
}
