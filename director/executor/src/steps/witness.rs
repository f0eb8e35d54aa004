//! What an agent tells of its own VM. A cloud that can't be searched can still be asked about one VM by its id; and if a
//! call of which nobody heard any more has made a VM, its agent dials in and knows what the VM is called.

use std::time::Duration;

use agent_api::Method;
use cpi_api::CpiErrorKind;
use model::{AgentId, CpiName, VmCid};
use tokio::time::Instant;

use super::calls::QUICK;
use super::vm::{PING, PING_PAUSE};
use crate::context::StepContext;
use crate::error::StepError;

/// Waits for the agent as long as `patience` lasts, and returns its VM's id if the cloud knows a VM by what the agent says.
pub(super) async fn vm_of(
    cx: &StepContext,
    cpi: &CpiName,
    agent: &AgentId,
    patience: Duration,
) -> Result<Option<VmCid>, StepError> {
    let deadline = Instant::now() + patience;
    let mut pauses = PING_PAUSE.waits();
    cx.task.debug(&format!("the cloud can't be searched for the VM of agent {agent}: waiting for the agent"));
    while Instant::now() < deadline {
        cx.checkpoint()?;
        match cx.agent_raw(agent, "witness", Method::Ping, PING, agent_api::Mode::Submit).await? {
            Ok(_) => return named(cx, cpi, agent).await,
            Err(error) => cx.task.debug(&format!("agent {agent}: {error}")),
        }
        tokio::time::sleep(pauses.next().unwrap_or(PING)).await;
    }
    Ok(None)
}

/// Asks the agent for the VM's name, and the cloud whether that is the VM's id: with some clouds it is another name.
async fn named(cx: &StepContext, cpi: &CpiName, agent: &AgentId) -> Result<Option<VmCid>, StepError> {
    let state = Method::GetState { full: false };
    let told = cx.agent_raw(agent, "witness-state", state, QUICK, agent_api::Mode::Submit).await?;
    let Ok(reply) = told else { return Ok(None) };
    let Some(name) = reply.0["vm"]["name"].as_str().filter(|name| !name.is_empty()) else { return Ok(None) };
    let cid = VmCid::new(name);
    let asked = cid.clone();
    let answer = cx
        .cloud_raw(cpi, "witness-vm", None, |cloud, call| async move { cloud.has_vm(&call, &asked).await })
        .await?;
    match answer {
        Ok(true) => Ok(Some(cid)),
        Ok(false) => Ok(None),
        Err(error) if error.kind == CpiErrorKind::NotImplemented => Ok(None),
        Err(error) => Err(StepError::from_cpi(error, cx.task.fence.epoch())),
    }
}
