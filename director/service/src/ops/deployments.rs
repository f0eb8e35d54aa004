//! Deployments and what is done to them as a whole. Each of these becomes a task.

use std::collections::BTreeSet;

use model::instance::{Lifecycle, ReleaseRef};
use model::task::{DeployOptions, InstanceFilter, StateChange, TaskKind};
use model::{ConfigId, DeploymentName, ErrorCode, LockName, RequestId, TaskId, Timestamp, Version};
use serde_json::Value;
use state::State;
use state::command::{Command, Outcome, Refusal, SAME_LABEL};
use state::records::Deployment;

use crate::redact::redacted_text;
use crate::{Access, Caller, List, Mutation, Page, Read, Right, Service, ServiceError};

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
    /// The teams that own it.
    pub teams: Vec<String>,
}

/// Returns the lock that everything done to a deployment takes.
pub(crate) fn deployment_lock(name: &DeploymentName) -> LockName {
    LockName::new(format!("lock:deployment:{name}"))
}

/// The longest id by which an operator's tools correlate requests.
const CONTEXT_ID_MAX: usize = 64;

/// A change of state.
#[derive(Clone, Debug)]
pub struct ChangeWish {
    /// What to do.
    pub change: StateChange,
    /// To which instances.
    pub filter: InstanceFilter,
    /// Without pre-stop and drain scripts.
    pub skip_drain: bool,
    /// Overrides every `max_in_flight` of the manifest.
    pub max_in_flight: Option<String>,
    /// Overrides every `canaries` of the manifest.
    pub canaries: Option<String>,
    /// Plan only.
    pub dry_run: bool,
    /// Of a recreation: only VMs that were made before this.
    pub created_before: Option<Timestamp>,
}

/// An errand to run.
#[derive(Clone, Debug)]
pub struct ErrandRun {
    /// A job's name, or that of an errand group.
    pub errand: String,
    /// Whether the VMs of an errand group stay.
    pub keep_alive: bool,
    /// Whether it is only run if something has changed since it last ran well.
    pub when_changed: bool,
    /// Only on these instances; all if empty.
    pub instances: Vec<InstanceFilter>,
}

/// Fails for an id that is longer than BOSH takes.
pub fn check_context_id(id: &str) -> Result<(), ServiceError> {
    match id.len() > CONTEXT_ID_MAX {
        true => {
            let text = format!("X-Bosh-Context-Id cannot be more than {CONTEXT_ID_MAX} characters in length");
            Err(ServiceError::told(ErrorCode::ContextIdTooLong, text))
        }
        false => Ok(()),
    }
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
        check_context_id(context_id)?;
        let is_of_deployment = deployment.is_some();
        let command = Command::TaskQueue { kind, deployment, context_id: context_id.into(), locks };
        // What belongs to nobody belongs to the director.
        queued(match is_of_deployment {
            true => self.propose_owned(caller, request_id, command).await?,
            false => self.propose(caller, request_id, command).await?,
        })
    }

    /// Files a task that changes a deployment, which must exist and belong to the caller.
    pub(crate) async fn queue_for(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        kind: TaskKind,
        name: &DeploymentName,
        context_id: &str,
    ) -> Result<TaskId, ServiceError> {
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        owned(&State::new(&*looked.view), caller, name, "change deployments")?;
        let locks = vec![deployment_lock(name)];
        self.queue(caller, request_id, kind, Some(name.clone()), context_id, locks).await
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
        caller.needs(Right::TeamAdmin, "deploy")?;
        let name = manifest_name(&manifest)?;
        if options.configs.is_some() || !caller.has(Right::Admin) {
            let looked = match self.look_for(caller, request_id.as_ref()).await? {
                Mutation::New(looked) => looked,
                Mutation::Repeated(outcome) => return queued(outcome),
            };
            let state = State::new(&*looked.view);
            if let Some(deployment) = state.deployment(&name) {
                caller.owns(&deployment.teams, Access::Admin, "deploy")?;
            }
            check_configs(&state, options.configs.as_deref().unwrap_or_default())?;
        }
        // A dry run changes nothing: it need not wait for a deploy that runs, nor the next deploy for it.
        let locks = if options.dry_run { Vec::new() } else { vec![deployment_lock(&name)] };
        let kind = TaskKind::Deploy { manifest_text: manifest, options };
        let filed = self.queue(caller, request_id, kind, Some(name.clone()), context_id, locks).await;
        filed.map_err(|error| match error {
            ServiceError::Refused(Refusal::Exists { what, name: other }) if what == SAME_LABEL => {
                ServiceError::told(
                    ErrorCode::DeploymentCanonicalNameTaken,
                    format!(
                        "Invalid deployment name '{name}', its name in DNS is already taken by '{other}'"
                    ),
                )
            }
            other => other,
        })
    }

    /// Lists deployments: those that the caller may look at.
    pub async fn deployments(
        &self,
        caller: &Caller,
        read: Read,
        page: &Page,
    ) -> Result<List<DeploymentSummary>, ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, "list deployments")?;
        let caller = caller.clone();
        self.list(read, page, move |state, page| {
            let deployments = state.deployments_from(page.after()?.as_ref());
            let theirs = |found: &Deployment| caller.owns(&found.teams, Access::Read, "").is_ok();
            let (deployments, next) =
                page.cut(deployments.filter(theirs), |deployment| deployment.name.clone())?;
            Ok((deployments.into_iter().map(|d| summary(state, d)).collect(), next))
        })
        .await
    }

    /// Fails unless a deployment is there, and the caller has access to it.
    pub async fn may_access_deployment(
        &self,
        caller: &Caller,
        name: &DeploymentName,
        access: Access,
    ) -> Result<(), ServiceError> {
        let looked = self.look(Read::Linearizable).await?;
        accessible(&State::new(&*looked.view), caller, name, access, "access deployments").map(|_| ())
    }

    /// Returns a deployment with the manifest of its last success; for those who may only read, without its secrets.
    pub async fn deployment(
        &self,
        caller: &Caller,
        name: &DeploymentName,
    ) -> Result<(DeploymentSummary, String), ServiceError> {
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let deployment = readable(&state, caller, name, "read deployments")?;
        let manifest = deployment.record.as_ref().map(|r| r.manifest_text.clone()).unwrap_or_default();
        let manifest = match caller.owns(&deployment.teams, Access::Admin, "see secrets") {
            Ok(()) => manifest,
            Err(_) if manifest.is_empty() => manifest,
            Err(_) => redacted_text(&manifest),
        };
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
        self.queue_for(caller, request_id, TaskKind::DeleteDeployment { force }, name, context_id).await
    }

    /// Starts, stops, restarts or recreates instances.
    pub async fn change_state(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: &DeploymentName,
        wish: ChangeWish,
    ) -> Result<TaskId, ServiceError> {
        let ChangeWish { change, filter, skip_drain, max_in_flight, canaries, dry_run, created_before } =
            wish;
        if created_before.is_some() && change != StateChange::Recreate {
            let text = "only VMs that are recreated are chosen by their age";
            return Err(ServiceError::told(ErrorCode::ValidationInvalidValue, text));
        }
        let kind = TaskKind::ChangeState {
            change,
            filter,
            skip_drain,
            max_in_flight,
            canaries,
            dry_run,
            created_before,
        };
        self.queue_for(caller, request_id, kind, name, "").await
    }

    /// Runs an errand.
    pub async fn run_errand(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: &DeploymentName,
        run: ErrandRun,
    ) -> Result<TaskId, ServiceError> {
        let ErrandRun { errand, keep_alive, when_changed, instances } = run;
        let kind = TaskKind::RunErrand { errand, keep_alive, instances, when_changed };
        self.queue_for(caller, request_id, kind, name, "").await
    }

    /// Lists the names of a deployment's errands: jobs that can run as one, anywhere in it.
    pub async fn errands(
        &self,
        caller: &Caller,
        name: DeploymentName,
        page: &Page,
    ) -> Result<List<String>, ServiceError> {
        let caller = caller.clone();
        self.list(Read::Linearizable, page, move |state, page| {
            readable(state, &caller, &name, "list errands")?;
            page.cut(errands_of(state, &name), |errand| errand.clone())
        })
        .await
    }
}

fn errands_of(state: &State<'_>, name: &DeploymentName) -> BTreeSet<String> {
    let mut seen: BTreeSet<(ReleaseRef, String)> = BTreeSet::new();
    let mut errands = BTreeSet::new();
    let mut jobs = Vec::new();
    for spec in state.instances_from(name, None).map(|instance| instance.spec) {
        if spec.lifecycle == Lifecycle::Errand {
            errands.insert(spec.group.to_string());
        }
        jobs.extend(spec.jobs);
    }
    for job in jobs {
        let (release, job) = (job.release, job.name.to_string());
        // A release is read once for each of its jobs, not for each instance.
        if !seen.insert((release.clone(), job.clone())) {
            continue;
        }
        let release = state.release(&release.name, &release.version);
        if release.and_then(|r| r.job(&job).map(|j| j.is_errand())).unwrap_or(false) {
            errands.insert(job);
        }
    }
    errands
}

/// Returns the number of the task that was filed.
pub(crate) fn queued(outcome: Outcome) -> Result<TaskId, ServiceError> {
    match outcome {
        Outcome::TaskQueued(id) => Ok(id),
        other => Err(ServiceError::told(ErrorCode::Unknown, format!("unexpected answer {other:?}"))),
    }
}

/// Fails unless each of these is a cloud or a runtime config that can be deployed with.
fn check_configs(state: &State<'_>, configs: &[ConfigId]) -> Result<(), ServiceError> {
    let is_usable = |id: &ConfigId| {
        let config = state.config(*id).filter(|config| !config.deleted);
        config.is_some_and(|config| ["cloud", "runtime"].contains(&config.kind.as_str()))
    };
    match configs.iter().all(is_usable) {
        true => Ok(()),
        false => Err(ServiceError::told(
            ErrorCode::DeploymentConfigReference,
            "Context includes invalid config ID",
        )),
    }
}

pub(crate) fn existing(state: &State<'_>, name: &DeploymentName) -> Result<Deployment, ServiceError> {
    state.deployment(name).ok_or_else(|| {
        ServiceError::told(ErrorCode::DeploymentNotFound, format!("Deployment '{name}' doesn't exist"))
    })
}

/// Returns a deployment that the caller may look at. Whether there is one is told before who may, as in BOSH; but to
/// nobody who has no business here at all.
pub(crate) fn readable(
    state: &State<'_>,
    caller: &Caller,
    name: &DeploymentName,
    operation: &'static str,
) -> Result<Deployment, ServiceError> {
    accessible(state, caller, name, Access::Read, operation)
}

/// Returns a deployment that the caller may change.
pub(crate) fn owned(
    state: &State<'_>,
    caller: &Caller,
    name: &DeploymentName,
    operation: &'static str,
) -> Result<Deployment, ServiceError> {
    accessible(state, caller, name, Access::Admin, operation)
}

fn accessible(
    state: &State<'_>,
    caller: &Caller,
    name: &DeploymentName,
    access: Access,
    operation: &'static str,
) -> Result<Deployment, ServiceError> {
    caller.needs(Right::Any, operation)?;
    let deployment = existing(state, name)?;
    caller.owns(&deployment.teams, access, operation)?;
    Ok(deployment)
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
        teams: deployment.teams,
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
    let name = match entries.get("name") {
        Some(Value::String(name)) => DeploymentName::new(name.clone()),
        Some(Value::Number(number)) => DeploymentName::new(number.to_string()),
        Some(_) => return Err(bad(ErrorCode::ValidationInvalidType, "Property 'name' should be text")),
        None => {
            return Err(bad(ErrorCode::ValidationMissingField, "Deployment manifest must have a 'name' key"));
        }
    };
    model::manifest::check_name(&name)?;
    Ok(name)
}
