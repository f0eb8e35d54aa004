//! Instances as operators see them.

use model::instance::{Disk, Instance, Vm};
use model::{DeploymentName, ErrorCode, InstanceId, RequestId, Revision};
use state::State;
use state::command::Command;
use state::records::AgentRecord;

use crate::{Caller, Page, Read, Right, Service, ServiceError};

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

impl Service {
    /// Lists a deployment's instances, by group and index.
    pub async fn instances(
        &self,
        caller: &Caller,
        deployment: &DeploymentName,
        read: Read,
        page: &Page,
    ) -> Result<(Vec<InstanceRow>, String, Revision), ServiceError> {
        caller.needs(Right::Read, "list instances")?;
        let looked = self.look(read).await?;
        let state = State::new(&*looked.view);
        if state.deployment(deployment).is_none() {
            let text = format!("Deployment '{deployment}' doesn't exist");
            return Err(ServiceError::told(ErrorCode::DeploymentNotFound, text));
        }
        let mut instances: Vec<Instance> =
            state.instances(deployment).into_iter().filter(|i| !i.compilation).collect();
        instances.sort_by(|a, b| (&a.spec.group, a.spec.index).cmp(&(&b.spec.group, b.spec.index)));
        let (instances, next) = page.cut(instances)?;
        let row = |instance: Instance| {
            let vm = state.active_vm(&instance.spec.id);
            InstanceRow {
                disks: state.disks(&instance.spec.id),
                agent: vm.as_ref().and_then(|vm| state.agent(&vm.agent)),
                vm,
                instance,
            }
        };
        Ok((instances.into_iter().map(row).collect(), next, looked.revision))
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
        caller.needs(Right::Admin, "ignore instances")?;
        let instance = self.find_instance(deployment, group, id_or_index).await?;
        self.propose(caller, request_id, Command::InstanceIgnore { instance, ignore }).await.map(|_| ())
    }

    async fn find_instance(
        &self,
        deployment: &DeploymentName,
        group: &str,
        id_or_index: &str,
    ) -> Result<InstanceId, ServiceError> {
        let looked = self.look(Read::Linearizable).await?;
        let instances = State::new(&*looked.view).instances(deployment);
        // An all-digits id is an index, as everywhere in BOSH.
        let index: Option<u32> = id_or_index.parse().ok();
        let is_it = |i: &&Instance| match index {
            Some(index) => i.spec.index == index,
            None => i.spec.id.as_str() == id_or_index,
        };
        let found = instances.iter().filter(|i| i.spec.group.as_str() == group).find(is_it);
        found.map(|i| i.spec.id.clone()).ok_or_else(|| {
            ServiceError::told(
                ErrorCode::InstanceNotFound,
                format!("Instance '{group}/{id_or_index}' doesn't exist in deployment '{deployment}'"),
            )
        })
    }
}
