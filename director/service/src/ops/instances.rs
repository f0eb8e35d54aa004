//! Instances as operators see them.

use model::instance::{Disk, Instance, Vm};
use model::task::{StateChange, TaskKind};
use model::{DeploymentName, ErrorCode, InstanceId, RequestId, TaskId};
use state::State;
use state::command::Command;
use state::records::AgentRecord;

use super::deployments::{owned, queued, readable};
use crate::{Caller, List, Mutation, Page, Read, Service, ServiceError};

/// An instance with everything about it.
#[derive(Clone, Debug)]
pub struct InstanceRow {
    /// The instance.
    pub instance: Instance,
    /// Its VM.
    pub vm: Option<Vm>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// What the watchers know of its agent.
    pub agent: Option<AgentRecord>,
}

/// What is wanted of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceWish {
    /// What to do.
    pub change: StateChange,
    /// Without pre-stop and drain scripts.
    pub skip_drain: bool,
    /// A new VM also if the agent in the old one says nothing.
    pub fix: bool,
}

impl Service {
    /// Lists a deployment's instances, by UUID: the order in which a page can be read without reading the others.
    pub async fn instances(
        &self,
        caller: &Caller,
        deployment: DeploymentName,
        read: Read,
        page: &Page,
    ) -> Result<List<InstanceRow>, ServiceError> {
        let caller = caller.clone();
        self.list(read, page, move |state, page| {
            readable(state, &caller, &deployment, "list instances")?;
            let instances = state.instances_from(&deployment, page.after()?.as_ref());
            let (instances, next) =
                page.cut(instances.filter(|i| !i.compilation), |instance| instance.spec.id.clone())?;
            let row = |instance: Instance| {
                let vm = state.active_vm(&instance.spec.id);
                InstanceRow {
                    disks: state.disks(&instance.spec.id),
                    agent: vm.as_ref().and_then(|vm| state.agent(&vm.agent)),
                    vm,
                    instance,
                }
            };
            Ok((instances.into_iter().map(row).collect(), next))
        })
        .await
    }

    /// Files a task that asks all agents of a deployment how they are. It changes nothing, so it waits for nobody.
    pub async fn inspect(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        deployment: &DeploymentName,
        vms: bool,
    ) -> Result<TaskId, ServiceError> {
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        readable(&State::new(&*looked.view), caller, deployment, "list instances")?;
        let (kind, name) = (TaskKind::Inspect { vms }, Some(deployment.clone()));
        self.queue(caller, request_id, kind, name, "", Vec::new()).await
    }

    /// Starts, stops, restarts or recreates one instance, with the spec that is stored of it; nothing else is touched. With
    /// `fix` it gets a new VM also if the agent in the old one says nothing.
    pub async fn change_instance(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        deployment: &DeploymentName,
        (group, id_or_index): (&str, &str),
        wish: InstanceWish,
    ) -> Result<TaskId, ServiceError> {
        let instance = {
            let looked = match self.look_for(caller, request_id.as_ref()).await? {
                Mutation::New(looked) => looked,
                Mutation::Repeated(outcome) => return queued(outcome),
            };
            let state = State::new(&*looked.view);
            owned(&state, caller, deployment, "change the state of instances")?;
            find_instance(&state, deployment, group, id_or_index)?
        };
        let InstanceWish { change, skip_drain, fix } = wish;
        let kind = TaskKind::ChangeInstance { change, instance, skip_drain, fix };
        self.queue_for(caller, request_id, kind, deployment, "").await
    }

    /// Sets whether deploys leave an instance alone.
    pub async fn ignore_instance(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        deployment: &DeploymentName,
        group: &str,
        id_or_index: &str,
        ignore: bool,
    ) -> Result<(), ServiceError> {
        let Mutation::New(looked) = self.look_for(caller, request_id.as_ref()).await? else { return Ok(()) };
        owned(&State::new(&*looked.view), caller, deployment, "ignore instances")?;
        let instance = find_instance(&State::new(&*looked.view), deployment, group, id_or_index)?;
        self.propose(caller, request_id, Command::InstanceIgnore { instance, ignore }).await.map(|_| ())
    }
}

pub(super) fn find_instance(
    state: &State<'_>,
    deployment: &DeploymentName,
    group: &str,
    id_or_index: &str,
) -> Result<InstanceId, ServiceError> {
    let instances = state.instances(deployment);
    // An all-digits id is an index, as everywhere in BOSH.
    let index: Option<u32> = id_or_index.parse().ok();
    let is_it = |i: &&Instance| match index {
        Some(index) => i.spec.index == index,
        None => i.spec.id.as_str() == id_or_index,
    };
    let found = instances.iter().filter(|i| i.spec.group.as_str() == group && !i.compilation).find(is_it);
    found.map(|i| i.spec.id.clone()).ok_or_else(|| {
        ServiceError::told(
            ErrorCode::InstanceNotFound,
            format!("Instance '{group}/{id_or_index}' doesn't exist in deployment '{deployment}'"),
        )
    })
}
