//! What clouds say of VMs whose agents say nothing. It tells whoever reads the task whether a machine is gone or only its
//! agent.

use std::collections::BTreeMap;
use std::time::Duration;

use cpi_api::{CpiError, CpiErrorKind};
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::instance::Vm;
use model::{AgentId, Epoch};

use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::lease::Lost;

/// Clouds' rate limits are for those who change something.
const ASKED_AT_ONCE: usize = 8;

/// What a cloud says of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is there.
    There,
    /// It is not.
    Gone,
    /// Nobody can tell: the cloud has no such method, or its id was never learned.
    CannotTell,
    /// The question failed.
    Failed(String),
}

/// Asks about each VM, for so long at most, and writes what is said into the task's debug output, too. Of what is not in the
/// answer nothing was said in time.
pub async fn ask_clouds(
    context: &TaskContext,
    vms: &[&Vm],
    within: Duration,
) -> Result<BTreeMap<AgentId, Said>, Interrupted> {
    let mut questions: Vec<BoxFuture<'_, _>> = Vec::with_capacity(vms.len());
    for vm in vms.iter().copied() {
        questions.push(ask(context, vm, within).boxed());
    }
    let mut answers = futures::stream::iter(questions).buffered(ASKED_AT_ONCE);
    let over = tokio::time::sleep(within);
    tokio::pin!(over);
    let mut said = BTreeMap::new();
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer,
            () = &mut over => break,
            () = context.cancelled.cancelled() => break,
            lost = context.fence.lost() => return Err(lost.into()),
        };
        match answer {
            Some((vm, answer)) => {
                context.debug(&told(vm, &answer));
                said.insert(vm.agent.clone(), judged(answer, context.fence.epoch())?);
            }
            None => return Ok(said),
        }
    }
    let left = vms.len() - said.len();
    context.debug(&format!(
        "the clouds have not said in time of {left} silent agents' VMs whether they are there"
    ));
    Ok(said)
}

enum Answer {
    NeverLearned,
    NoSuchCloud,
    Cloud(Result<bool, CpiError>),
}

async fn ask<'v>(context: &TaskContext, vm: &'v Vm, within: Duration) -> (&'v Vm, Answer) {
    let Some(cid) = &vm.cid else { return (vm, Answer::NeverLearned) };
    let Ok(cloud) = context.cloud(&vm.cpi) else { return (vm, Answer::NoSuchCloud) };
    let call = context.call("look", within);
    (vm, Answer::Cloud(cloud.has_vm(&call, cid).await))
}

fn told(vm: &Vm, answer: &Answer) -> String {
    let silent = format!("agent {} of instance {} does not answer", vm.agent, vm.instance);
    let cid = vm.cid.as_ref().map_or("", |cid| cid.as_str());
    match answer {
        Answer::NeverLearned => format!("{silent}; nobody knows whether its VM was ever made"),
        Answer::NoSuchCloud => format!("{silent}; its cloud is not configured on this director"),
        Answer::Cloud(Ok(true)) => format!("{silent}; the cloud has its VM {cid}"),
        Answer::Cloud(Ok(false)) => format!("{silent}; the cloud has no VM {cid} any more"),
        Answer::Cloud(Err(error)) => {
            format!("{silent}; the cloud can't say whether it has its VM {cid}: {error}")
        }
    }
}

fn judged(answer: Answer, epoch: Epoch) -> Result<Said, Interrupted> {
    Ok(match answer {
        Answer::NeverLearned => Said::CannotTell,
        Answer::NoSuchCloud => Said::Failed("its cloud is not configured on this director".into()),
        Answer::Cloud(Ok(true)) => Said::There,
        Answer::Cloud(Ok(false)) => Said::Gone,
        Answer::Cloud(Err(error)) => match error.kind {
            CpiErrorKind::NotImplemented => Said::CannotTell,
            CpiErrorKind::Fenced => return Err(Lost { epoch }.into()),
            _ => Said::Failed(error.to_string()),
        },
    })
}
