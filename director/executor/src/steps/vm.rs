//! VMs: create, describe, wait for, introduce, delete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_api::{Method, Mode};
use cpi_api::{Cpi, CpiError, CpiErrorKind, CreateVm, Found, Metadata};
use model::instance::{InstanceSpec, NetworkKind, NetworkSettings, Vm};
use model::step::StepOutcome;
use model::{AgentId, CpiName, ErrorCode, InstanceId, PackageName, VmCid};
use retry::Policy;
use serde_json::{Value, json};
use state::State;
use state::command::Command;
use state::log::Proposal;
use state::records::Sought;

use super::calls::QUICK;
use super::certificate;
use super::dynamic_disk;
use super::once::{self, Search};
use super::spec;
use crate::context::StepContext;
use crate::error::StepError;
use crate::rfc3339::rfc3339;
use crate::variables::Resolver;

/// Pause between two pings of a new agent.
pub(super) const PING_PAUSE: Policy =
    Policy { initial: Duration::from_millis(50), max: Duration::from_secs(1), total: None };

/// How long one ping may take.
pub(super) const PING: Duration = Duration::from_secs(1);

/// How long one that is to switch its VM off may take to say so.
const SWITCH_OFF: Duration = Duration::from_secs(5);

/// Creates the VM, or adopts the one that an earlier leader's call made.
pub async fn create(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    if !cx.is_repeat() {
        cx.checkpoint()?;
    }
    let target = cx.task.target(instance)?;
    let spec = &target.spec;
    let search = Search {
        cpi: &spec.cpi,
        sought: Sought::Vm(agent.clone()),
        what: format!("a VM for '{}/{}' with agent id {agent}", spec.group, spec.id),
    };
    let cid = once::make(cx, search, call_for(cx, spec, agent)).await?;
    Ok(StepOutcome::VmCreated { cid: VmCid::new(cid) })
}

/// Has the cloud create the VM.
async fn call_for(
    cx: &StepContext,
    spec: &InstanceSpec,
    agent: &AgentId,
) -> Result<Result<VmCid, CpiError>, StepError> {
    if cx.is_repeat() || cx.attempt > 1 {
        renew_token(cx, agent).await?;
    }
    certificate::offer(cx, agent).await?;
    let resolver = Resolver::for_instance(&cx.task, &spec.id);
    let request = CreateVm {
        agent_id: agent.clone(),
        stemcell: spec.stemcell.cid.clone(),
        cloud_properties: resolver.resolve(&spec.cloud_properties)?,
        networks: resolved_networks(&resolver, spec)?,
        disks: disks_of(cx, &spec.id),
        env: env(cx, spec, &resolver)?,
        bootstrap: cx.task.ports.enrollment.bootstrap(agent),
    };
    let version = Some(spec.stemcell.api_version);
    let call = |cpi: Arc<dyn Cpi>, call| async move { cpi.create_vm(&call, request).await };
    Ok(cx.cloud_raw(&spec.cpi, "create-vm", version, call).await?.map(|created| created.cid))
}

/// Voids the token that a VM of an earlier attempt got. It is gone, but its agent may have enrolled before it went: the
/// next one has another key.
async fn renew_token(cx: &StepContext, agent: &AgentId) -> Result<(), StepError> {
    let (task, epoch) = (cx.task.id(), cx.task.fence.epoch());
    let renew = Command::AgentTokenRenew { task, epoch, agent: agent.clone() };
    cx.propose(Proposal::own(renew)).await
}

fn disks_of(cx: &StepContext, instance: &InstanceId) -> Vec<model::DiskCid> {
    let view = cx.task.view();
    let disks = State::new(&*view).disks(instance);
    disks.into_iter().filter(|d| d.active).filter_map(|d| d.cid).collect()
}

fn resolved_networks(resolver: &Resolver, spec: &InstanceSpec) -> Result<Vec<NetworkSettings>, StepError> {
    let resolve = |network: &NetworkSettings| {
        let cloud_properties = resolver.resolve(&network.cloud_properties)?;
        Ok(NetworkSettings { cloud_properties, ..network.clone() })
    };
    spec.networks.iter().map(resolve).collect()
}

/// The group's env with the director's part under `bosh`; what the user gives there wins.
fn env(cx: &StepContext, spec: &InstanceSpec, resolver: &Resolver) -> Result<Value, StepError> {
    let mut env = match resolver.resolve(&spec.env)? {
        Value::Object(env) => env,
        _ => serde_json::Map::new(),
    };
    let view = cx.task.view();
    let director = State::new(&*view).cluster().map(|c| c.director_name).unwrap_or_default();
    let name = |parts: &[&str]| parts.iter().map(|p| canonical(p)).collect::<Vec<_>>().join("-");
    let (deployment, group) = (spec.deployment.as_str(), spec.group.as_str());
    let mut bosh = json!({
        "group": name(&[&director, deployment, group]),
        "groups": [
            name(&[&director]), name(&[deployment]), name(&[group]), name(&[&director, deployment]),
            name(&[deployment, group]), name(&[&director, deployment, group]),
        ],
    });
    if !spec.tags.is_empty() {
        bosh["tags"] = json!(spec.tags);
    }
    if let (Some(Value::Object(user)), Value::Object(ours)) = (env.remove("bosh"), &mut bosh) {
        ours.extend(user);
    }
    env.insert("bosh".into(), bosh);
    Ok(Value::Object(env))
}

/// BOSH's canonical form of a name: lower case, `_` as `-`, nothing else but letters, digits and `-`.
fn canonical(name: &str) -> String {
    let lower = name.to_lowercase().replace('_', "-");
    lower.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-').collect()
}

/// Writes who the VM is into the cloud's metadata.
pub async fn set_metadata(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    compiling: Option<&PackageName>,
) -> Result<StepOutcome, StepError> {
    let target = cx.task.target(instance)?;
    let (vm, cid) = cx.vm_with_cid(agent, instance)?;
    let mut metadata = base_metadata(cx, &target.spec);
    metadata.insert("index".into(), target.spec.index.to_string());
    metadata.insert("job".into(), target.spec.group.to_string());
    metadata.insert("name".into(), format!("{}/{instance}", target.spec.group));
    metadata.insert("created_at".into(), rfc3339(vm.created_at.seconds()));
    if let Some(package) = compiling {
        metadata.insert("compiling".into(), package.to_string());
    }
    let answer = cx
        .cloud_raw(&vm.cpi, "set-vm-metadata", None, |cpi, call| async move {
            cpi.set_vm_metadata(&call, &cid, &metadata).await
        })
        .await?;
    optional(cx, answer)
}

/// Passes over that a cloud has no metadata.
pub(super) fn optional(
    cx: &StepContext,
    answer: Result<(), cpi_api::CpiError>,
) -> Result<StepOutcome, StepError> {
    match answer {
        Ok(()) => Ok(StepOutcome::Done),
        Err(error) if error.kind == CpiErrorKind::NotImplemented => Ok(StepOutcome::Done),
        Err(error) => Err(StepError::from_cpi(error, cx.task.fence.epoch())),
    }
}

pub(super) fn base_metadata(cx: &StepContext, spec: &InstanceSpec) -> Metadata {
    let view = cx.task.view();
    let director = State::new(&*view).cluster().map(|c| c.director_name).unwrap_or_default();
    let mut metadata: Metadata = spec.tags.clone();
    metadata.insert("director".into(), director);
    metadata.insert("deployment".into(), spec.deployment.to_string());
    metadata.insert("id".into(), spec.id.to_string());
    metadata.insert("instance_group".into(), spec.group.to_string());
    metadata
}

/// Waits until the agent answers.
pub async fn await_agent(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    let limit = cx.task.ports.options.agent_wait;
    let deadline = tokio::time::Instant::now() + limit;
    let mut pauses = PING_PAUSE.waits();
    loop {
        cx.checkpoint()?;
        match cx.agent(agent, instance, "ping", Method::Ping, PING).await {
            Ok(_) => return Ok(StepOutcome::Done),
            Err(StepError::Failed(_)) if tokio::time::Instant::now() < deadline => {}
            Err(StepError::Failed(_)) => {
                return Err(StepError::coded(
                    ErrorCode::RpcTimeout,
                    format!(
                        "Timed out pinging VM of instance '{}' with agent '{agent}' after {} seconds",
                        cx.slug(instance),
                        limit.as_secs()
                    ),
                ));
            }
            Err(other) => return Err(other),
        }
        tokio::time::sleep(pauses.next().unwrap_or(PING)).await;
    }
}

/// Has the VM switched off that another one takes the place of: it stays for a while, and must not work on beside its
/// successor. Nobody waits for one that does not answer, nor for the answer of one that is going off.
pub async fn retire(cx: &StepContext, agent: &AgentId) -> Result<(), StepError> {
    if let Err(error) = cx.agent_raw(agent, "shutdown", Method::Shutdown, SWITCH_OFF, Mode::Submit).await? {
        cx.task.debug(&format!("agent {agent} does not say that it switches its VM off: {error}"));
    }
    Ok(())
}

/// How long one of BOSH's agents may take to go on with another certificate: it is restarted.
const RESTART: Duration = Duration::from_secs(300);

/// Sends trusted certificates, and which disks jobs find under which names; a VM that was made ahead has none yet. An agent of
/// BOSH's whose certificate ends is given another one.
pub async fn update_settings(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    let mut settings = json!({ "trusted_certs": "", "disk_associations": associations(cx, instance, agent) });
    let mut within = QUICK;
    if let Some(mbus) = certificate::settings(cx, agent).await? {
        settings["mbus"] = mbus;
        within = RESTART;
    }
    cx.agent(agent, instance, "update-settings", Method::UpdateSettings { settings }, within).await?;
    Ok(StepOutcome::Done)
}

fn associations(cx: &StepContext, instance: &InstanceId, agent: &AgentId) -> Vec<Value> {
    let view = cx.task.view();
    let state = State::new(&*view);
    if !state.vm(agent).is_some_and(|vm| vm.active) {
        return Vec::new();
    }
    let disks = state.disks(instance).into_iter().filter(|disk| disk.active);
    let mut named: Vec<_> = disks.filter_map(|disk| Some((disk.spec.name?, disk.cid?))).collect();
    named.sort();
    named.into_iter().map(|(name, cid)| json!({ "name": name, "cid": cid })).collect()
}

/// Tells a new agent who it is, and learns the addresses that the cloud chose.
pub async fn bind(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    let target = cx.task.target(instance)?;
    let apply = Method::Apply { spec: spec::bind_spec(&target.spec) };
    cx.agent(agent, instance, "bind", apply, QUICK).await?;
    let reply = cx.agent(agent, instance, "state", Method::GetState { full: false }, QUICK).await?;
    if !target.spec.networks.iter().any(|n| n.kind == NetworkKind::Dynamic) {
        return Ok(StepOutcome::Done);
    }
    let told: BTreeMap<String, Value> =
        serde_json::from_value(reply.0.get("networks").cloned().unwrap_or_default()).unwrap_or_default();
    let networks =
        target.spec.networks.iter().map(|network| learned(network, told.get(network.name.as_str())));
    Ok(StepOutcome::Bound { networks: networks.collect() })
}

fn learned(network: &NetworkSettings, told: Option<&Value>) -> NetworkSettings {
    let text = |key: &str| told.and_then(|t| t.get(key)).and_then(Value::as_str);
    let mut network = network.clone();
    if network.kind == NetworkKind::Dynamic {
        network.ip = text("ip").and_then(|ip| ip.parse().ok());
        network.netmask = text("netmask").map(str::to_owned);
        network.gateway = text("gateway").and_then(|ip| ip.parse().ok());
    }
    network
}

/// Deletes the VM.
pub async fn delete(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    match cx.vm(agent) {
        Some(vm) => {
            dynamic_disk::let_go(cx, agent).await?;
            delete_in_cloud(cx, vm, cx.slug(instance)).await
        }
        None => Ok(StepOutcome::Done),
    }
}

/// Deletes an orphaned VM.
pub async fn delete_orphaned(cx: &StepContext, agent: &AgentId) -> Result<StepOutcome, StepError> {
    let orphan = {
        let view = cx.task.view();
        State::new(&*view).orphaned_vm(agent)
    };
    match orphan {
        Some(orphan) => delete_in_cloud(cx, orphan.vm, orphan.slug).await,
        None => Ok(StepOutcome::Done),
    }
}

/// Deletes a VM of which nobody here knows more than its cloud's id.
pub async fn delete_foreign(cx: &StepContext, cid: &VmCid, cpi: &CpiName) -> Result<StepOutcome, StepError> {
    let cid = cid.clone();
    let call = |cloud: Arc<dyn Cpi>, call| async move { cloud.delete_vm(&call, &cid).await };
    match cx.cloud_raw(cpi, "delete-vm", None, call).await? {
        Ok(()) => Ok(StepOutcome::Done),
        Err(error) if error.kind == CpiErrorKind::VmNotFound => Ok(StepOutcome::Done),
        Err(error) => Err(StepError::from_cpi(error, cx.task.fence.epoch())),
    }
}

/// Deletes a VM. One whose id was never learned is looked for first.
async fn delete_in_cloud(cx: &StepContext, vm: Vm, slug: String) -> Result<StepOutcome, StepError> {
    let cids = match vm.cid {
        Some(cid) => vec![cid],
        None => {
            let wanted = vm.agent.clone();
            let found = cx
                .cloud(&vm.cpi, "find-vm", None, |cpi, call| async move { cpi.find_vm(&call, &wanted).await })
                .await?;
            match found {
                Found::These(cids) => cids,
                Found::CannotTell => {
                    let agent = &vm.agent;
                    let what = format!(
                        "VM of '{slug}' with agent id {agent}, created by a call whose answer was lost"
                    );
                    return Ok(StepOutcome::MayHaveLeaked { what });
                }
            }
        }
    };
    if cids.is_empty() {
        once::may_appear(cx, &Sought::Vm(vm.agent.clone())).await?;
    }
    let version = Some(vm.stemcell.api_version);
    for cid in cids {
        let answer =
            cx.cloud_raw(&vm.cpi, "delete-vm", version, |cpi, call| async move {
                cpi.delete_vm(&call, &cid).await
            })
            .await?;
        match answer {
            Ok(()) => {}
            Err(error) if error.kind == CpiErrorKind::VmNotFound => {}
            Err(error) => return Err(StepError::from_cpi(error, cx.task.fence.epoch())),
        }
    }
    Ok(StepOutcome::Done)
}
