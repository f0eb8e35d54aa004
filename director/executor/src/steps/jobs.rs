//! Jobs on a VM: download, install, start, drain, stop, and the scripts in between.

use std::collections::BTreeMap;

use agent_api::{AgentError, Method, Mode};
use model::instance::InstanceSpec;
use model::plan::Fate;
use model::release::CompiledPackage;
use model::step::{DrainKind, Script, StepOutcome, StopIntent};
use model::{AgentId, InstanceId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use state::State;

use super::calls::{INSTALL, QUICK, SCRIPT};
use super::spec;
use crate::context::StepContext;
use crate::error::StepError;
use crate::render;

/// How long the agent itself waits for jobs to stop, and a little more for its answer.
const STOP: std::time::Duration = std::time::Duration::from_secs(5 * 60 + 45);

/// Has the agent download what the new spec needs while the old jobs run.
pub async fn prepare(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    let full = rendered(cx, instance).await?;
    upload(cx, instance, agent, &full).await?;
    cx.agent(agent, instance, "prepare", Method::Prepare { spec: full.spec }, INSTALL).await?;
    Ok(StepOutcome::Done)
}

/// Renders the templates with real addresses and secrets, and has the agent install jobs and packages.
pub async fn apply(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    let full = rendered(cx, instance).await?;
    upload(cx, instance, agent, &full).await?;
    cx.agent(agent, instance, "apply", Method::Apply { spec: full.spec }, INSTALL).await?;
    // Before any script runs: pre-start scripts ask for names, too.
    if let Err(error) = cx.task.ports.dns.bring(&cx.task.ports, &cx.task.fence, agent).await {
        cx.task.debug(&format!("the jobs of agent {agent} start without the newest DNS records: {error}"));
    }
    Ok(StepOutcome::Applied {
        configuration_hash: full.configuration_hash,
        template_hashes: full.template_hashes,
    })
}

/// What is to be installed. The content holds secrets: it has no `Debug`.
struct Full {
    spec: Value,
    content: Vec<u8>,
    digest: String,
    configuration_hash: String,
    template_hashes: BTreeMap<model::JobName, String>,
}

/// Renders at the moment of use: the result travels to the agent and is stored nowhere else, since it holds secrets.
async fn rendered(cx: &StepContext, instance: &InstanceId) -> Result<Full, StepError> {
    let target = cx.task.target(instance)?;
    let rendered = render::instance(&cx.task, &target.spec).await.map_err(StepError::Failed)?;
    let content = rendered
        .archive()
        .map_err(|e| StepError::plain(format!("failed to pack rendered templates: {e}")))?;
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&content)));
    let (configuration_hash, template_hashes) = (rendered.configuration_hash(), rendered.template_hashes());
    let packages = compiled(cx, &target.spec)?;
    let archive = (blob_id(&digest), digest.as_str());
    let spec = spec::full_spec(&target.spec, &packages, &configuration_hash, &template_hashes, archive);
    Ok(Full { spec, content, digest, configuration_hash, template_hashes })
}

fn blob_id(digest: &str) -> String {
    digest.replace("sha256:", "rendered-")
}

async fn upload(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    full: &Full,
) -> Result<(), StepError> {
    let (id, digest, content) = (blob_id(&full.digest), full.digest.clone(), full.content.clone());
    // Rendering the same again gives the same bytes; the digest in the id keeps a repeat with changed secrets apart.
    let part = format!("upload-{}", &digest[7..23]);
    cx.agent(agent, instance, &part, Method::UploadBlob { id, digest, content }, INSTALL).await?;
    Ok(())
}

/// Finds the compiled form of every package in the spec.
fn compiled(cx: &StepContext, spec: &InstanceSpec) -> Result<Vec<CompiledPackage>, StepError> {
    let view = cx.task.view();
    let state = State::new(&*view);
    let find = |package: &model::instance::PackageRef| {
        let key = package.key(&spec.stemcell);
        state.compiled_package(&key).ok_or_else(|| {
            let on = format!("{}/{}", key.os, key.stemcell_version);
            StepError::plain(format!(
                "package '{}/{}' is not compiled for stemcell '{on}'",
                key.name, key.fingerprint
            ))
        })
    };
    spec.packages.iter().map(find).collect()
}

/// Runs a lifecycle script of every job.
pub async fn run_script(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    script: Script,
    intent: Option<StopIntent>,
) -> Result<StepOutcome, StepError> {
    let env = intent.filter(|_| script == Script::PreStop).map(next_states).unwrap_or_default();
    let method = Method::RunScript { script, env };
    cx.agent(agent, instance, script.file_name(), method, SCRIPT).await?;
    Ok(StepOutcome::Done)
}

/// What pre-stop scripts are told of what comes after.
fn next_states(intent: StopIntent) -> BTreeMap<String, String> {
    let state = |goes: bool| if goes { "delete".to_owned() } else { "keep".to_owned() };
    let rank = match intent {
        StopIntent::KeepVm => 0,
        StopIntent::DeleteVm => 1,
        StopIntent::DeleteInstance => 2,
        StopIntent::DeleteDeployment => 3,
    };
    BTreeMap::from([
        ("BOSH_VM_NEXT_STATE".to_owned(), state(rank >= 1)),
        ("BOSH_INSTANCE_NEXT_STATE".to_owned(), state(rank >= 2)),
        ("BOSH_DEPLOYMENT_NEXT_STATE".to_owned(), state(rank >= 3)),
    ])
}

/// Asks the jobs to finish what they are doing, and waits as long as they say.
pub async fn drain(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    kind: DrainKind,
) -> Result<StepOutcome, StepError> {
    cx.checkpoint()?;
    let target = cx.task.target(instance)?;
    let next = match kind {
        // Scripts are told whether their configuration changes, and which packages do.
        DrainKind::Update => rendered(cx, instance).await?.spec,
        DrainKind::Shutdown if target.fate == Fate::Deleted => json!({}),
        // They are told only of what becomes of the disk; and what goes away may never have been compiled.
        DrainKind::Shutdown => {
            let hash = target.spec.configuration_hash.clone().unwrap_or_default();
            spec::full_spec(&target.spec, &[], &hash, &target.spec.template_hashes, (String::new(), ""))
        }
    };
    let method = Method::Drain { kind, spec: Some(next) };
    cx.agent_cancellable(agent, instance, "drain", method, SCRIPT, Mode::Submit).await?;
    Ok(StepOutcome::Done)
}

/// Stops the jobs. As in BOSH, jobs that do not stop in time do not hold up the deploy, nor does an agent that does not say
/// in time whether they have.
pub async fn stop(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    match cx.agent_raw(agent, "stop", Method::Stop, STOP, Mode::Submit).await? {
        Ok(_) => Ok(StepOutcome::Done),
        Err(error) if is_late(&error) => {
            cx.task.debug(&format!("jobs of '{}' did not stop in time: {error}", cx.slug(instance)));
            Ok(StepOutcome::Done)
        }
        Err(error) => Err(cx.told(error, instance)),
    }
}

fn is_late(error: &AgentError) -> bool {
    match error {
        AgentError::TimedOut { .. } => true,
        AgentError::Failed { message, .. } => message.contains("Timed out waiting for service"),
        _ => false,
    }
}

/// Starts the jobs.
pub async fn start(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    cx.agent(agent, instance, "start", Method::Start, QUICK).await?;
    Ok(StepOutcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_stop_learns_how_far_the_deletion_goes() {
        let keep_delete = |intent| next_states(intent).into_values().collect::<Vec<_>>().join(" ");
        // In the order of the names: DEPLOYMENT, INSTANCE, VM.
        assert_eq!(keep_delete(StopIntent::KeepVm), "keep keep keep");
        assert_eq!(keep_delete(StopIntent::DeleteVm), "keep keep delete");
        assert_eq!(keep_delete(StopIntent::DeleteInstance), "keep delete delete");
        assert_eq!(keep_delete(StopIntent::DeleteDeployment), "delete delete delete");
    }
}
