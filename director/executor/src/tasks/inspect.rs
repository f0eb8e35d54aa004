//! How a deployment's instances are, as their agents say now: one line of JSON each, in BOSH's shape. Changes nothing.

use std::time::Duration;

use agent_api::{AgentState, Method, Mode, Request};
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::instance::{Disk, Instance, Vm};
use model::task::OutputKind;
use model::{DeploymentName, RequestId};
use serde_json::{Value, json};
use state::State;
use state::command::{Command, TaskEnd};
use state::log::Proposal;
use state::records::AgentHealth;

use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::rfc3339::rfc3339;

/// How long an agent may take to say how it is, as in BOSH.
const STATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Agents asked at once.
const ASKED_AT_ONCE: usize = 128;

/// Bytes of lines in one entry of the log, unless a single line has more; far below what an entry may have.
const BYTES_AT_ONCE: usize = 256 << 10;

/// An instance, or one of its VMs, about which there is a line.
struct Row {
    instance: Instance,
    vm: Option<Vm>,
    disks: Vec<Disk>,
    is_dead: bool,
}

/// Writes a line about each instance, or about each VM, to the task's result.
///
/// A new leader goes on after the lines that are there. What it adds is of its own moment: an instance that came or went
/// in between may be missing or be told twice, as in any list that is read while it changes.
pub async fn inspect(
    context: &TaskContext,
    deployment: &DeploymentName,
    vms: bool,
) -> Result<TaskEnd, Interrupted> {
    let (rows, is_paused) = rows(context, deployment, vms);
    let told = told(context);
    let ask = |row| line(context, row, is_paused).boxed();
    let questions: Vec<BoxFuture<'_, Value>> = rows.iter().skip(told).map(ask).collect();
    let lines: Vec<Value> = futures::stream::iter(questions).buffered(ASKED_AT_ONCE).collect().await;
    // An answer that was cut short by the end of the lease says nothing about the agent.
    context.fence.check()?;
    let (mut first, mut piece, mut count) = (told, String::new(), 0);
    for (number, line) in lines.iter().enumerate() {
        piece.push_str(&format!("{line}\n"));
        count += 1;
        if piece.len() < BYTES_AT_ONCE && number + 1 < lines.len() {
            continue;
        }
        if context.is_cancelling() {
            return Ok(TaskEnd::Cancelled);
        }
        report(context, first, std::mem::take(&mut piece)).await?;
        first += std::mem::take(&mut count);
    }
    Ok(TaskEnd::Done(Some(String::new())))
}

/// Returns how many lines an earlier leader has written.
fn told(context: &TaskContext) -> usize {
    let view = context.view();
    let result = State::new(&*view).output(context.id(), OutputKind::Result, 0, usize::MAX);
    result.iter().filter(|byte| **byte == b'\n').count()
}

/// Has lines added, once; `first` is the number of the first of them.
async fn report(context: &TaskContext, first: usize, lines: String) -> Result<(), Interrupted> {
    let (task, epoch) = (context.id(), context.fence.epoch());
    let request_id = Some(RequestId::new(format!("t{task}-report-{first}")));
    let report = Command::TaskReport { task, epoch, lines };
    context.propose(Proposal { request_id, ..Proposal::own(report) }).await??;
    Ok(())
}

fn rows(context: &TaskContext, deployment: &DeploymentName, vms: bool) -> (Vec<Row>, bool) {
    let view = context.view();
    let state = State::new(&*view);
    let mut rows = Vec::new();
    for instance in state.instances(deployment).into_iter().filter(|instance| !instance.compilation) {
        let disks = state.disks(&instance.spec.id);
        let all = state.vms(&instance.spec.id);
        let of: Vec<Option<Vm>> = match vms {
            true if all.iter().any(|vm| vm.active) => all.into_iter().map(Some).collect(),
            true => Vec::new(),
            false => vec![all.into_iter().find(|vm| vm.active)],
        };
        for vm in of {
            let agent = vm.as_ref().and_then(|vm| state.agent(&vm.agent));
            let is_dead = agent.is_some_and(|agent| agent.health == AgentHealth::Dead);
            rows.push(Row { instance: instance.clone(), vm, disks: disks.clone(), is_dead });
        }
    }
    (rows, state.cluster().is_some_and(|cluster| cluster.resurrection_paused))
}

/// Asks the agent of a row how it is. Nobody waits for one that all have agreed is dead.
async fn ask(context: &TaskContext, row: &Row) -> Option<AgentState> {
    let vm = row.vm.as_ref().filter(|_| !row.is_dead)?;
    let request = Request {
        id: RequestId::new(format!("t{}-inspect-{}", context.id(), uuid::Uuid::new_v4())),
        epoch: context.fence.epoch(),
        mode: Mode::Submit,
        timeout: STATE_TIMEOUT,
        method: Method::GetState { full: true },
    };
    let asked = tokio::time::timeout(STATE_TIMEOUT, context.ports.agents.call(&vm.agent, request));
    serde_json::from_value(asked.await.ok()?.ok()?.0).ok()
}

async fn line(context: &TaskContext, row: &Row, is_paused: bool) -> Value {
    let told = ask(context, row).await;
    let (spec, vm) = (&row.instance.spec, row.vm.as_ref());
    let networks = vm.into_iter().flat_map(|vm| &vm.networks);
    let job_state = match (&told, vm) {
        (_, None) => None,
        (Some(state), _) => Some(state.job_state.name()),
        (None, Some(_)) => Some("unresponsive agent"),
    };
    let processes = told.iter().flat_map(|state| &state.processes);
    let current = || row.disks.iter().filter(|disk| disk.active);
    let mounted = current().find(|disk| disk.spec.is_mounted()).and_then(|disk| disk.cid.as_ref());
    let disks: Vec<&model::DiskCid> = current().filter_map(|disk| disk.cid.as_ref()).collect();
    json!({
        "vm_cid": vm.and_then(|vm| vm.cid.as_ref()),
        "active": vm.map(|vm| vm.active),
        "vm_created_at": vm.map(|vm| rfc3339(vm.created_at.seconds())),
        "cloud_properties": vm.map_or(&json!({}), |vm| &vm.cloud_properties),
        "disk_cid": mounted,
        "disk_cids": disks,
        "ips": networks.filter_map(|n| n.ip).map(|ip| ip.to_string()).collect::<Vec<_>>(),
        "agent_id": vm.map(|vm| &vm.agent),
        "job_name": spec.group,
        "index": spec.index,
        "job_state": job_state,
        "state": row.instance.state,
        "vm_type": vm.and(spec.vm_type.as_ref()),
        "vitals": told.as_ref().and_then(|state| state.vitals.as_ref()),
        "processes": processes.map(|p| json!({ "name": p.name, "state": p.state })).collect::<Vec<_>>(),
        "resurrection_paused": is_paused,
        "az": spec.az,
        "id": spec.id,
        "bootstrap": spec.bootstrap,
        "ignore": row.instance.ignore,
        "stemcell": {
            "name": vm.map(|vm| &vm.stemcell.name),
            "version": vm.map(|vm| &vm.stemcell.version),
            "api_version": vm.map(|vm| vm.stemcell.api_version),
        },
    })
}
