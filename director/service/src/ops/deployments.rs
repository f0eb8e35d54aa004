//! Deployments and what is done to them as a whole. Each of these becomes a task.

use model::instance::ReleaseRef;
use model::task::{DeployOptions, InstanceFilter, StateChange, TaskKind};
use model::{DeploymentName, ErrorCode, LockName, RequestId, TaskId, Version};
use serde_json::Value;
use state::State;
use state::command::{Command, Outcome};
use state::records::Deployment;

use crate::{Caller, Page, Read, Right, Service, ServiceError};

/// The largest manifest: larger ones do not fit into an entry of the log beside everything else.
const MANIFEST_BYTES_MAX: usize = 700 * 1024;

/// A deployment in a list.
#[derive(Clone, Debug)]
pub struct DeploymentSummary {
    /// The row.
    pub name: DeploymentName,
    /// Releases of the last success.
    pub releases: Vec<ReleaseRef>,
    /// Stemcells of the last success.
    pub stemcells: Vec<(String, Version)>,
    /// The task that holds its lock.
    pub locked_by: Option<TaskId>,
    /// Whether it was ever deployed with success.
    pub deployed: bool,
}

/// Returns the lock that everything done to a deployment takes.
pub(crate) fn deployment_lock(name: &DeploymentName) -> LockName {
    LockName::new(format!("lock:deployment:{name}"))
}

impl Service {
    /// Files a task; the answer is its number. The locks decide when it runs.
    pub(crate) async fn queue(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        kind: TaskKind,
        deployment: Option<DeploymentName>,
        context_id: &str,
        locks: Vec<LockName>,
    ) -> Result<TaskId, ServiceError> {
        if context_id.len() > 64 {
            let text = "X-Bosh-Context-Id cannot be more than 64 characters";
            return Err(ServiceError::told(ErrorCode::ContextIdTooLong, text));
        }
        let command = Command::TaskQueue { kind, deployment, context_id: context_id.into(), locks };
        match self.propose(caller, request_id, command).await? {
            Outcome::TaskQueued(id) => Ok(id),
            other => Err(ServiceError::told(ErrorCode::Unknown, format!("unexpected answer {other:?}"))),
        }
    }

    /// Deploys a manifest.
    pub async fn deploy(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        manifest: String,
        options: DeployOptions,
        context_id: &str,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "deploy")?;
        let name = manifest_name(&manifest)?;
        let locks = vec![deployment_lock(&name)];
        let kind = TaskKind::Deploy { manifest_text: manifest, options };
        self.queue(caller, request_id, kind, Some(name), context_id, locks).await
    }

    /// Lists deployments.
    pub async fn deployments(
        &self,
        caller: &Caller,
        read: Read,
        page: &Page,
    ) -> Result<(Vec<DeploymentSummary>, String, model::Revision), ServiceError> {
        caller.needs(Right::Read, "list deployments")?;
        let looked = self.look(read).await?;
        let state = State::new(&*looked.view);
        let all = state.deployments().into_iter().map(|d| summary(&state, d)).collect();
        let (page, next) = page.cut(all)?;
        Ok((page, next, looked.revision))
    }

    /// Returns a deployment with the manifest of its last success.
    pub async fn deployment(
        &self,
        caller: &Caller,
        name: &DeploymentName,
    ) -> Result<(DeploymentSummary, String), ServiceError> {
        caller.needs(Right::Read, "read deployments")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let deployment = existing(&state, name)?;
        let manifest = deployment.record.as_ref().map(|r| r.manifest_text.clone()).unwrap_or_default();
        Ok((summary(&state, deployment), manifest))
    }

    /// Deletes a deployment.
    pub async fn delete_deployment(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: &DeploymentName,
        force: bool,
        context_id: &str,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "delete deployments")?;
        self.require_deployment(name).await?;
        let kind = TaskKind::DeleteDeployment { force };
        self.queue(caller, request_id, kind, Some(name.clone()), context_id, vec![deployment_lock(name)])
            .await
    }

    /// Starts, stops, restarts or recreates instances.
    #[allow(clippy::too_many_arguments, reason = "each is one flag of the operator's command")]
    pub async fn change_state(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: &DeploymentName,
        change: StateChange,
        filter: InstanceFilter,
        skip_drain: bool,
        max_in_flight: Option<String>,
        canaries: Option<String>,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "change the state of instances")?;
        self.require_deployment(name).await?;
        let kind = TaskKind::ChangeState { change, filter, skip_drain, max_in_flight, canaries };
        self.queue(caller, request_id, kind, Some(name.clone()), "", vec![deployment_lock(name)]).await
    }

    /// Runs an errand.
    pub async fn run_errand(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: &DeploymentName,
        errand: String,
        keep_alive: bool,
        instances: Vec<InstanceFilter>,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "run errands")?;
        self.require_deployment(name).await?;
        let kind = TaskKind::RunErrand { errand, keep_alive, instances };
        self.queue(caller, request_id, kind, Some(name.clone()), "", vec![deployment_lock(name)]).await
    }

    /// Returns the names of a deployment's errands: jobs that can run as one, anywhere in it.
    pub async fn errands(&self, caller: &Caller, name: &DeploymentName) -> Result<Vec<String>, ServiceError> {
        caller.needs(Right::Read, "list errands")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        existing(&state, name)?;
        let mut names: Vec<String> = Vec::new();
        for job in state.instances(name).into_iter().flat_map(|i| i.spec.jobs) {
            let release = state.release(&job.release.name, &job.release.version);
            let runs = release.and_then(|r| r.job(job.name.as_str()).map(|j| j.is_errand())).unwrap_or(false);
            if runs && !names.iter().any(|n| n == job.name.as_str()) {
                names.push(job.name.to_string());
            }
        }
        names.sort();
        Ok(names)
    }

    pub(crate) async fn require_deployment(&self, name: &DeploymentName) -> Result<(), ServiceError> {
        let looked = self.look(Read::Linearizable).await?;
        existing(&State::new(&*looked.view), name).map(|_| ())
    }
}

fn existing(state: &State<'_>, name: &DeploymentName) -> Result<Deployment, ServiceError> {
    state.deployment(name).ok_or_else(|| {
        ServiceError::told(ErrorCode::DeploymentNotFound, format!("Deployment '{name}' doesn't exist"))
    })
}

fn summary(state: &State<'_>, deployment: Deployment) -> DeploymentSummary {
    let lock = state.lock(&deployment_lock(&deployment.name));
    let (releases, stemcells) =
        deployment.record.as_ref().map(|r| (r.releases.clone(), r.stemcells.clone())).unwrap_or_default();
    DeploymentSummary {
        releases,
        stemcells,
        locked_by: lock.map(|l| l.holder),
        deployed: deployment.record.is_some(),
        name: deployment.name,
    }
}

/// Reads the deployment's name out of a manifest: it decides which lock the task waits for.
fn manifest_name(manifest: &str) -> Result<DeploymentName, ServiceError> {
    let bad = |code, message: &str| ServiceError::told(code, message);
    if manifest.len() > MANIFEST_BYTES_MAX {
        let text = format!("the manifest has {} bytes, {MANIFEST_BYTES_MAX} are allowed", manifest.len());
        return Err(ServiceError::told(ErrorCode::BadRequest, text));
    }
    let entries = model::yaml::parse_mapping(manifest)?;
    match entries.get("name") {
        Some(Value::String(name)) => Ok(DeploymentName::new(name.clone())),
        Some(Value::Number(number)) => Ok(DeploymentName::new(number.to_string())),
        Some(_) => Err(bad(ErrorCode::ValidationInvalidType, "Property 'name' should be text")),
        None => Err(bad(
            ErrorCode::ValidationMissingField,
            "Required property 'name' was not specified in the manifest",
        )),
    }
}
