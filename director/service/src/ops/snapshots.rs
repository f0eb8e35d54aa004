//! Snapshots of persistent disks: listed, taken and deleted.

use model::instance::Instance;
use model::snapshot::Snapshot;
use model::task::TaskKind;
use model::{DeploymentName, ErrorCode, InstanceId, RequestId, SnapshotCid, TaskId};
use state::State;
use state::command::Command;

use super::deployments::{deployment_lock, owned, queued};
use super::instances::find_instance;
use crate::{Caller, List, Mutation, Page, Read, Service, ServiceError};

/// An instance with the snapshots of its disks.
#[derive(Clone, Debug)]
pub struct SnapshotsOf {
    /// The instance.
    pub instance: Instance,
    /// The snapshots that the cloud has told of, oldest first.
    pub snapshots: Vec<(SnapshotCid, Snapshot)>,
}

/// Returns the tasks that take a snapshot of every disk there is, one for each deployment that has any.
pub fn snapshots_of_all(state: &State<'_>) -> Vec<(DeploymentName, Command)> {
    let has_disks = |name: &DeploymentName| {
        state.instances_from(name, None).any(|instance| !state.disks(&instance.spec.id).is_empty())
    };
    let names = state.deployments().into_iter().map(|deployment| deployment.name).filter(has_disks);
    let taking = |name: DeploymentName| {
        let (kind, locks) = (TaskKind::TakeSnapshots { instance: None }, vec![deployment_lock(&name)]);
        let deployment = Some(name.clone());
        (name, Command::TaskQueue { kind, deployment, context_id: String::new(), locks })
    };
    names.map(taking).collect()
}

impl Service {
    /// Lists the snapshots of a deployment's disks, or of one instance's, by instance.
    pub async fn snapshots(
        &self,
        caller: &Caller,
        deployment: &DeploymentName,
        instance: Option<(&str, &str)>,
        page: &Page,
    ) -> Result<List<SnapshotsOf>, ServiceError> {
        let (caller, deployment) = (caller.clone(), deployment.clone());
        let instance = instance.map(|(group, id)| (group.to_owned(), id.to_owned()));
        self.list(Read::Linearizable, page, move |state, page| {
            owned(state, &caller, &deployment, "list snapshots")?;
            let only = match &instance {
                Some((group, id)) => Some(named(state, &deployment, group, id)?),
                None => None,
            };
            let instances = state.instances_from(&deployment, page.after()?.as_ref());
            let wanted = |i: &Instance| only.as_ref().is_none_or(|only| *only == i.spec.id);
            let rows = instances.filter(wanted).map(|instance| {
                let all = state.instance_snapshots(&instance.spec.id).into_iter();
                let snapshots = all.filter_map(|s| Some((s.cid.clone()?, s))).collect();
                SnapshotsOf { instance, snapshots }
            });
            page.cut(rows.filter(|row| !row.snapshots.is_empty()), |row| row.instance.spec.id.clone())
        })
        .await
    }

    /// Takes snapshots of a deployment's disks, or of one instance's, while jobs run on. Where the director takes none, the
    /// task does nothing.
    pub async fn take_snapshots(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        deployment: &DeploymentName,
        instance: Option<(&str, &str)>,
    ) -> Result<TaskId, ServiceError> {
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        let instance = {
            let state = State::new(&*looked.view);
            owned(&state, caller, deployment, "take snapshots")?;
            instance.map(|(group, id)| named(&state, deployment, group, id)).transpose()?
        };
        self.queue_for(caller, request_id, TaskKind::TakeSnapshots { instance }, deployment, "").await
    }

    /// Deletes one of the snapshots of a deployment's disks, or all of them. Snapshots of disks that it has given up are not
    /// among them: those go with their disks.
    pub async fn delete_snapshots(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        deployment: &DeploymentName,
        cid: Option<SnapshotCid>,
    ) -> Result<TaskId, ServiceError> {
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        {
            let state = State::new(&*looked.view);
            owned(&state, caller, deployment, "delete snapshots")?;
            let known = |cid: &SnapshotCid| {
                let mut all = state.deployment_snapshots(deployment).into_iter();
                all.any(|snapshot| snapshot.cid.as_ref() == Some(cid))
            };
            if let Some(cid) = cid.as_ref().filter(|cid| !known(cid)) {
                let text = format!("snapshot {cid} not found");
                return Err(ServiceError::told(ErrorCode::SnapshotNotFound, text));
            }
        }
        self.queue_for(caller, request_id, TaskKind::DeleteSnapshots { cid }, deployment, "").await
    }
}

fn named(
    state: &State<'_>,
    deployment: &DeploymentName,
    group: &str,
    id_or_index: &str,
) -> Result<InstanceId, ServiceError> {
    find_instance(state, deployment, group, id_or_index).map_err(|_| {
        let text = format!("'{deployment}/{group}/{id_or_index}' doesn't exist");
        ServiceError::told(ErrorCode::InstanceNotFound, text)
    })
}
