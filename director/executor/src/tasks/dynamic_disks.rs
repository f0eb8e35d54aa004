//! What is asked for about a dynamic disk. The lock of its name is the task's; no other lock is: nothing waits for a deploy.

use model::dynamic_disk::{DynamicDisk, DynamicDiskWish};
use model::instance::{Instance, Vm};
use model::plan::OnFailure;
use model::task::{TaskError, TaskKind};
use model::{
    AzName, DeploymentName, DiskId, DynamicDiskName, InstanceId, RequestId, StepNo, Timestamp, UnitNo,
    cloud_config, yaml,
};
use serde_json::{Value, json};
use state::State;
use state::command::{Command, Refusal, TaskEnd};
use state::log::Proposal;
use state::records::DynamicDeed;

use crate::context::{How, StepContext, TaskContext};
use crate::error::{Interrupted, StepError};
use crate::steps::dynamic_disk::{self as deeds, Agents};

/// Does what the task is for.
pub async fn dynamic_disk(context: &TaskContext) -> Result<TaskEnd, Interrupted> {
    if context.is_cancelling() {
        return Ok(TaskEnd::Cancelled);
    }
    let told = match &context.task.kind {
        TaskKind::CreateDynamicDisk { deployment, az, disk } => create(context, deployment, az, disk).await,
        TaskKind::AttachDynamicDisk { name, instance, metadata } => {
            attach(context, name, instance, metadata.as_ref()).await
        }
        TaskKind::ProvideDynamicDisk { instance, disk } => provide(context, instance, disk).await,
        TaskKind::DetachDynamicDisk { name } => detach(context, name).await,
        TaskKind::DeleteDynamicDisk { name } => delete(context, name).await,
        other => Err(StepError::plain(format!("'{}' is not about a dynamic disk", other.description()))),
    };
    match told {
        Ok(result) => Ok(TaskEnd::Done(Some(result))),
        Err(StepError::Lost(lost)) => Err(lost.into()),
        Err(StepError::Log(error)) => Err(error.into()),
        Err(StepError::Cancelled) => Ok(TaskEnd::Cancelled),
        Err(StepError::Failed(error) | StepError::Again(error) | StepError::Unclear(error)) => {
            Ok(TaskEnd::Error(error))
        }
        Err(other @ StepError::Telling { .. }) => Ok(TaskEnd::Error(TaskError::plain(other.to_string()))),
    }
}

/// The deeds are those of steps: this is the only one of its task.
fn step(context: &TaskContext, how: How) -> StepContext {
    StepContext {
        task: context.clone(),
        step: StepNo { unit: UnitNo(0), index: 0 },
        attempt: 1,
        how,
        cleanup: false,
        on_failure: OnFailure::Stop,
    }
}

async fn create(
    context: &TaskContext,
    deployment: &DeploymentName,
    az: &AzName,
    wish: &DynamicDiskWish,
) -> Result<String, StepError> {
    let name = &wish.name;
    let cx = step(context, How::Fresh);
    if deeds::row(&cx, name).is_some_and(|disk| disk.cid.is_some() && disk.task != context.id()) {
        return Err(StepError::plain(format!("dynamic disk '{name}' already exists")));
    }
    let place = {
        let view = context.view();
        let state = State::new(&*view);
        let instances = state.instances(deployment).into_iter();
        let in_zone = instances.filter(|one| one.spec.az.as_ref() == Some(az) && !one.compilation);
        in_zone.filter_map(|one| Some((vm_of(&state, &one.spec.id)?, one))).next()
    };
    let Some(place) = place else {
        let text = format!("deployment '{deployment}' has no active VM in availability zone '{az}'");
        return Err(StepError::plain(text));
    };
    let disk = made(context, &place, wish).await?;
    let cid = report(context, &disk).await?;
    Ok(format!("created dynamic disk '{name}' with disk cid '{cid}' in deployment '{deployment}'"))
}

/// Returns the VM that an instance works with.
fn vm_of(state: &State<'_>, instance: &InstanceId) -> Option<Vm> {
    state.active_vm(instance).filter(|vm| vm.cid.is_some())
}

fn place(context: &TaskContext, id: &InstanceId) -> Result<(Vm, Instance), StepError> {
    let view = context.view();
    let state = State::new(&*view);
    let instance =
        state.instance(id).ok_or_else(|| StepError::plain(format!("instance '{id}' does not exist")))?;
    let vm = vm_of(&state, id)
        .ok_or_else(|| StepError::plain(format!("instance '{}' has no active VM", instance.slug())))?;
    Ok((vm, instance))
}

/// Makes the disk, unless this task has made it.
async fn made(
    context: &TaskContext,
    (vm, instance): &(Vm, Instance),
    wish: &DynamicDiskWish,
) -> Result<DynamicDisk, StepError> {
    let cx = step(context, How::Fresh);
    let (mut how, name) = (How::Fresh, &wish.name);
    match deeds::row(&cx, name) {
        Some(disk) if disk.cid.is_some() => return described(&cx, name, wish).await,
        // An earlier leader's call may have made it.
        Some(disk) if disk.task == context.id() => how = How::Again,
        // What an earlier task may have left.
        Some(disk) => deeds::delete(&cx, &disk).await?,
        None => {}
    }
    if how == How::Fresh {
        file(&cx, (vm, instance), wish).await?;
    }
    let disk = deeds::row(&cx, name)
        .ok_or_else(|| StepError::plain(format!("dynamic disk '{name}' was deleted meanwhile")))?;
    deeds::make(&step(context, how), &disk, vm).await?;
    described(&cx, name, wish).await
}

async fn described(
    cx: &StepContext,
    name: &DynamicDiskName,
    wish: &DynamicDiskWish,
) -> Result<DynamicDisk, StepError> {
    let disk = deeds::row(cx, name)
        .ok_or_else(|| StepError::plain(format!("dynamic disk '{name}' was deleted meanwhile")))?;
    deeds::describe(cx, &disk, wish.metadata.as_ref()).await?;
    Ok(disk)
}

/// Puts on record what is about to be made.
async fn file(
    cx: &StepContext,
    (vm, instance): (&Vm, &Instance),
    wish: &DynamicDiskWish,
) -> Result<(), StepError> {
    let cloud_properties = properties(&cx.task, &wish.disk_type).map_err(StepError::Failed)?;
    let disk = DynamicDisk {
        name: wish.name.clone(),
        id: DiskId::new(uuid::Uuid::new_v4().to_string()),
        cid: None,
        task: cx.task.id(),
        created_at: Timestamp::default(),
        deployment: instance.spec.deployment.clone(),
        az: instance.spec.az.clone(),
        cpi: vm.cpi.clone(),
        size_mib: wish.size_mib,
        disk_type: wish.disk_type.clone(),
        cloud_properties,
        metadata: Default::default(),
        attached: None,
    };
    let deed = DynamicDeed::Make { disk: Box::new(disk), beside: vm.agent.clone() };
    deeds::record(cx, &wish.name, deed).await?.map_err(|refusal| match refusal {
        Refusal::StaleEpoch { .. } => refusal.into(),
        other => StepError::plain(format!("dynamic disk '{}' can't be made: {other}", wish.name)),
    })
}

/// Returns the cloud properties of a disk type, placeholders unresolved.
fn properties(context: &TaskContext, disk_type: &str) -> Result<Value, TaskError> {
    let view = context.view();
    let configs = State::new(&*view).latest_configs();
    let clouds = configs.iter().filter(|config| config.kind == "cloud");
    let read: Result<Vec<_>, TaskError> = clouds.map(|config| yaml::parse_mapping(&config.content)).collect();
    let missing = || TaskError::plain(format!("there is no disk type '{disk_type}' in the cloud config"));
    cloud_config::disk_properties(read?, disk_type)?.ok_or_else(missing)
}

/// Writes the disk's cid into the task's result, once.
async fn report(context: &TaskContext, disk: &DynamicDisk) -> Result<String, StepError> {
    let cid = disk.cid.as_ref().map(|cid| cid.to_string()).unwrap_or_default();
    let (task, epoch) = (context.id(), context.fence.epoch());
    let report = Command::TaskReport { task, epoch, lines: format!("{}\n", json!({ "disk_cid": cid })) };
    let request_id = Some(RequestId::new(format!("t{task}-report")));
    context.propose(Proposal { request_id, ..Proposal::own(report) }).await??;
    Ok(cid)
}

async fn attach(
    context: &TaskContext,
    name: &DynamicDiskName,
    instance: &InstanceId,
    metadata: Option<&model::dynamic_disk::DiskMetadata>,
) -> Result<String, StepError> {
    let cx = step(context, How::Fresh);
    let disk = deeds::row(&cx, name).filter(|disk| disk.cid.is_some()).ok_or_else(|| unknown(name))?;
    let (vm, instance) = place(context, instance)?;
    let differs = |what: &str, of_disk: &str, of_vm: &str| {
        Err(StepError::plain(format!(
            "dynamic disk '{name}' is in {what} '{of_disk}', and instance '{}' in {what} '{of_vm}'",
            instance.slug()
        )))
    };
    let zone = |az: &Option<AzName>| az.as_ref().map_or_else(String::new, |az| az.to_string());
    if disk.deployment != instance.spec.deployment {
        return differs("deployment", disk.deployment.as_str(), instance.spec.deployment.as_str());
    }
    if disk.az != instance.spec.az {
        return differs("availability zone", &zone(&disk.az), &zone(&instance.spec.az));
    }
    if disk.cpi != vm.cpi {
        return differs("the cloud of CPI", disk.cpi.as_str(), vm.cpi.as_str());
    }
    deeds::attach(&cx, name, &vm).await?;
    deeds::describe(&cx, &disk, metadata).await?;
    Ok(format!("attached dynamic disk '{name}' to '{}'", instance.slug()))
}

async fn provide(
    context: &TaskContext,
    instance: &InstanceId,
    wish: &DynamicDiskWish,
) -> Result<String, StepError> {
    let place = place(context, instance)?;
    let disk = made(context, &place, wish).await?;
    let (vm, instance) = place;
    deeds::attach(&step(context, How::Fresh), &wish.name, &vm).await?;
    report(context, &disk).await?;
    Ok(format!("attached dynamic disk '{}' to '{}'", wish.name, instance.slug()))
}

async fn detach(context: &TaskContext, name: &DynamicDiskName) -> Result<String, StepError> {
    let cx = step(context, How::Fresh);
    let disk = deeds::row(&cx, name).ok_or_else(|| unknown(name))?;
    if let Some(at) = &disk.attached {
        deeds::detach(&cx, &disk, at, Agents::MustAnswer).await?;
    }
    Ok(format!("detached dynamic disk '{name}'"))
}

async fn delete(context: &TaskContext, name: &DynamicDiskName) -> Result<String, StepError> {
    let cx = step(context, How::Fresh);
    if let Some(disk) = deeds::row(&cx, name) {
        deeds::delete(&cx, &disk).await?;
    }
    Ok(format!("deleted dynamic disk '{name}'"))
}

fn unknown(name: &DynamicDiskName) -> StepError {
    StepError::plain(format!("dynamic disk '{name}' does not exist"))
}
