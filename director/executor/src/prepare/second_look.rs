//! What clouds say of VMs whose agents say nothing. It does not change what is done about them, as in BOSH, but tells whoever
//! reads the task whether a machine is gone or only its agent.

use std::time::Duration;

use cpi_api::CallContext;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::RequestId;
use model::instance::Vm;
use state::State;

use crate::context::TaskContext;
use crate::error::Interrupted;

/// How long clouds may take to say of all VMs whether they are there: what is done next does not depend on it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Clouds' rate limits are for those who change something.
const ASKED_AT_ONCE: usize = 8;

/// Asks about each VM and writes what is said into the task's debug output.
pub async fn tell(context: &TaskContext, vms: &[&Vm]) -> Result<(), Interrupted> {
    let mut questions: Vec<BoxFuture<'_, String>> = Vec::with_capacity(vms.len());
    for vm in vms.iter().copied() {
        questions.push(ask(context, vm).boxed());
    }
    let mut answers = futures::stream::iter(questions).buffered(ASKED_AT_ONCE);
    let over = tokio::time::sleep(ANSWERED_WITHIN);
    tokio::pin!(over);
    let mut told = 0;
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer,
            () = &mut over => break,
            () = context.cancelled.cancelled() => break,
            lost = context.fence.lost() => return Err(lost.into()),
        };
        match answer {
            Some(line) => context.debug(&line),
            None => return Ok(()),
        }
        told += 1;
    }
    let left = vms.len() - told;
    context.debug(&format!(
        "the clouds have not said in time of {left} silent agents' VMs whether they are there"
    ));
    Ok(())
}

async fn ask(context: &TaskContext, vm: &Vm) -> String {
    let silent = format!("agent {} of instance {} does not answer", vm.agent, vm.instance);
    let Some(cid) = &vm.cid else { return format!("{silent}; nobody knows whether its VM was ever made") };
    let Some(cloud) = context.ports.cpis.get(&vm.cpi) else {
        return format!("{silent}; its cloud is not configured on this director");
    };
    let director_uuid = {
        let view = context.view();
        State::new(&*view).cluster().map(|c| c.director_uuid).unwrap_or_default()
    };
    let call = CallContext {
        director_uuid,
        request_id: RequestId::new(format!("t{}-look-{}", context.id(), uuid::Uuid::new_v4())),
        epoch: context.fence.epoch(),
        stemcell_api_version: None,
        timeout: ANSWERED_WITHIN,
    };
    match cloud.has_vm(&call, cid).await {
        Ok(true) => format!("{silent}; the cloud has its VM {cid}"),
        Ok(false) => format!("{silent}; the cloud has no VM {cid} any more"),
        Err(error) => format!("{silent}; the cloud can't say whether it has its VM {cid}: {error}"),
    }
}
