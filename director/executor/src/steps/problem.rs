//! Problems: whether one is still there when its turn comes, and the reboot that may mend it.

use agent_api::{AgentError, AgentState, Method, Mode};
use model::problem::{Fault, Resolution};
use model::step::StepOutcome;
use model::{AgentId, DiskCid, InstanceId, ProblemId};
use state::State;

use super::calls::QUICK;
use super::disk;
use crate::context::StepContext;
use crate::error::StepError;
use crate::patience;

/// Fails if the problem is none any more, or the resolution does not go with it.
pub async fn confirm(
    cx: &StepContext,
    id: ProblemId,
    instance: &InstanceId,
    resolution: &str,
) -> Result<StepOutcome, StepError> {
    let standing = {
        let view = cx.task.view();
        let deployment = cx.task.task.deployment.clone().unwrap_or_default();
        State::new(&*view).problem(&deployment, id)
    };
    let Some(standing) = standing else {
        return Err(StepError::plain(format!("problem {id} is closed")));
    };
    let Some(resolution) = standing.resolution(Some(resolution)) else {
        let text = format!("Cannot find '{resolution}' resolution for '{}'", standing.description());
        return Err(StepError::plain(text));
    };
    match &standing.problem.finding.fault {
        Fault::UnresponsiveAgent { agent, .. } => confirm_silence(cx, instance, agent).await,
        Fault::InactiveDisk { cid, .. } => confirm_inactive(cx, instance, cid, resolution).await,
        Fault::MissingVm { .. } | Fault::MissingDisk { .. } | Fault::MountInfoMismatch { .. } => {
            Ok(StepOutcome::Done)
        }
    }
}

async fn confirm_silence(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    let (state, within) =
        (Method::GetState { full: false }, patience::for_state(&State::new(&*cx.task.view()), agent));
    let answers = match cx.agent_raw(agent, "state", state, within, Mode::Submit).await? {
        Ok(reply) => serde_json::from_value::<AgentState>(reply.0).is_ok(),
        Err(error @ (AgentError::StaleEpoch { .. } | AgentError::Cancelled { .. })) => {
            return Err(cx.told(error, instance));
        }
        Err(_) => false,
    };
    match answers {
        true => Err(StepError::plain("Agent is responding now, skipping resolution")),
        false => Ok(StepOutcome::Done),
    }
}

async fn confirm_inactive(
    cx: &StepContext,
    instance: &InstanceId,
    cid: &DiskCid,
    resolution: Resolution,
) -> Result<StepOutcome, StepError> {
    let (vm, others) = {
        let view = cx.task.view();
        let state = State::new(&*view);
        let current = state.active_vm(instance).filter(|vm| vm.bound);
        let disks = state.disks(instance);
        let name = disks.iter().find(|disk| disk.cid.as_ref() == Some(cid)).map(|disk| &disk.spec.name);
        (current, disks.iter().any(|disk| disk.active && Some(&disk.spec.name) == name))
    };
    // An agent that says nothing has nothing mounted, as far as anybody knows.
    let mounted = match &vm {
        None => false,
        Some(vm) => {
            match cx.agent_raw(&vm.agent, "list-disk", Method::ListDisk, QUICK, Mode::Submit).await? {
                Ok(reply) => disk::listed(reply).contains(cid),
                Err(error @ (AgentError::StaleEpoch { .. } | AgentError::Cancelled { .. })) => {
                    return Err(cx.told(error, instance));
                }
                Err(_) => false,
            }
        }
    };
    match resolution {
        Resolution::DeleteDisk if mounted => Err(StepError::plain("Disk is currently in use")),
        Resolution::ActivateDisk if !mounted => Err(StepError::plain("Disk is not mounted")),
        Resolution::ActivateDisk if others => Err(StepError::plain("Instance already has an active disk")),
        _ => Ok(StepOutcome::Done),
    }
}

/// Has the cloud reboot the VM.
pub async fn reboot(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    let (vm, cid) = cx.vm_with_cid(agent, instance)?;
    let version = Some(vm.stemcell.api_version);
    let call = |cpi: std::sync::Arc<dyn cpi_api::Cpi>, call| async move { cpi.reboot_vm(&call, &cid).await };
    cx.cloud(&vm.cpi, "reboot-vm", version, call).await?;
    Ok(StepOutcome::Done)
}
