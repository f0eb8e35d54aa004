//! Cloud check: looking for problems with VMs and disks, and deciding what is done about them.

use std::collections::BTreeMap;

use model::instance::Instance;
use model::problem::Standing;
use model::task::{Choice, InstanceFilter, TaskKind};
use model::{DeploymentName, ErrorCode, GroupName, InstanceId, RequestId, TaskId};
use state::State;

use super::deployments::{owned, queued};
use crate::{Caller, List, Mutation, Page, Read, Service, ServiceError};

/// Problems that can be decided about at once; far more than a deployment has instances.
const CHOICES_MAX: usize = 20_000;

/// What is decided about problems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolutions {
    /// What about which.
    pub choices: Vec<Choice>,
    /// Overrides of groups' `max_in_flight`.
    pub max_in_flight: BTreeMap<GroupName, String>,
}

impl Service {
    /// Looks for problems with a deployment's VMs and disks.
    pub async fn scan_cloud(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: &DeploymentName,
        context_id: &str,
    ) -> Result<TaskId, ServiceError> {
        self.queue_for(caller, request_id, TaskKind::ScanCloud, name, context_id).await
    }

    /// Lists the open problems of a deployment, in the order in which they were found.
    pub async fn problems(
        &self,
        caller: &Caller,
        deployment: DeploymentName,
        page: &Page,
    ) -> Result<List<Standing>, ServiceError> {
        let caller = caller.clone();
        self.list(Read::Linearizable, page, move |state, page| {
            owned(state, &caller, &deployment, "list problems")?;
            page.cut(state.problems(&deployment), |standing| standing.problem.id)
        })
        .await
    }

    /// Does what was decided about problems.
    pub async fn resolve_problems(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: &DeploymentName,
        resolutions: Resolutions,
        context_id: &str,
    ) -> Result<TaskId, ServiceError> {
        let Resolutions { mut choices, max_in_flight } = resolutions;
        if choices.len() > CHOICES_MAX {
            let text = format!("{} problems are decided about, {CHOICES_MAX} are allowed", choices.len());
            return Err(ServiceError::told(ErrorCode::CloudcheckInvalidResolutionFormat, text));
        }
        choices.sort_by_key(|choice| choice.problem);
        if let Some(twice) = choices.windows(2).find(|pair| pair[0].problem == pair[1].problem) {
            let text = format!("problem {} is decided about twice", twice[0].problem);
            return Err(ServiceError::told(ErrorCode::CloudcheckInvalidResolutionFormat, text));
        }
        let kind = TaskKind::ApplyResolutions { resolutions: choices, max_in_flight };
        self.queue_for(caller, request_id, kind, name, context_id).await
    }

    /// Gives instances new VMs that are found dead. One that is not there fails the task, as in BOSH.
    pub async fn scan_and_fix(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: &DeploymentName,
        wanted: &[InstanceFilter],
        context_id: &str,
    ) -> Result<TaskId, ServiceError> {
        let kind = {
            let looked = match self.look_for(caller, request_id.as_ref()).await? {
                Mutation::New(looked) => looked,
                Mutation::Repeated(outcome) => return queued(outcome),
            };
            let state = State::new(&*looked.view);
            owned(&state, caller, name, "resurrect instances")?;
            if state.resurrection_paused() {
                return Err(ServiceError::told(ErrorCode::ResurrectionPaused, "Resurrector is paused"));
            }
            let all = state.instances(name);
            if all.iter().all(|instance| instance.ignore || instance.compilation) {
                let text = format!("No instance of deployment '{name}' may be resurrected: all are ignored");
                return Err(ServiceError::told(ErrorCode::InstanceNotFound, text));
            }
            chosen(name, &all, wanted)
        };
        self.queue_for(caller, request_id, kind, name, context_id).await
    }
}

fn chosen(deployment: &DeploymentName, all: &[Instance], wanted: &[InstanceFilter]) -> TaskKind {
    let (mut instances, mut unknown): (Vec<InstanceId>, Vec<String>) = (Vec::new(), Vec::new());
    for InstanceFilter { group, id_or_index } in wanted {
        // An all-digits id is an index, as everywhere in BOSH.
        let index: Option<u32> = id_or_index.as_ref().and_then(|id| id.parse().ok());
        let is_it = |instance: &&Instance| {
            let spec = &instance.spec;
            let in_group = group.as_ref().is_none_or(|group| spec.group == *group) && !instance.compilation;
            in_group
                && match (id_or_index, index) {
                    (None, _) => true,
                    (Some(_), Some(index)) => spec.index == index,
                    (Some(id), None) => spec.id.as_str() == id,
                }
        };
        let before = instances.len();
        instances.extend(all.iter().filter(is_it).map(|instance| instance.spec.id.clone()));
        if instances.len() == before {
            let parts = [group.as_ref().map(|group| group.to_string()), id_or_index.clone()];
            let named: Vec<String> = parts.into_iter().flatten().collect();
            unknown.push(format!("{deployment}/{}", named.join("/")));
        }
    }
    instances.sort();
    instances.dedup();
    TaskKind::ScanAndFix { instances, unknown }
}
