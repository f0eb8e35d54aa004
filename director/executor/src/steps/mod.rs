//! Steps: one function per deed, each written so that a new leader may call it again.
//!
//! Not here: recording (`unit`), deciding whether to repeat (`recover`), order and waves (`stages`).

mod calls;
mod certificate;
mod compile;
mod disk;
pub mod dynamic_disk;
mod errand;
mod jobs;
mod once;
mod problem;
mod snapshot;
mod spec;
mod vm;
mod watch;
mod witness;

use model::step::{Action, StepOutcome};
use model::task::TaskError;

use crate::context::StepContext;
use crate::error::{Interrupted, StepError};

/// Returns what is to be remembered of a step that failed in a unit that goes on. A VM that could not be deleted may run on
/// without anybody knowing it.
pub fn passed_over(cx: &StepContext, action: &Action, error: &TaskError) -> StepOutcome {
    match action {
        Action::DeleteVm { instance, agent } => {
            let cid =
                cx.vm(agent).and_then(|vm| vm.cid).map_or_else(|| "unknown".into(), |cid| cid.to_string());
            let what = format!(
                "VM with agent id {agent} and cloud id {cid} of '{}', which could not be deleted: {error}",
                cx.slug(instance)
            );
            StepOutcome::MayHaveLeaked { what }
        }
        _ => StepOutcome::PassedOver { error: error.clone() },
    }
}

/// Returns whether an action deletes the VM of one that has compiled. If that fails, nobody's deploy need fail with it, and
/// whoever works on the deployment next may come late or never: the VM becomes an orphan, which is listed, and deleted as
/// every orphan is. Not while there are members that would not know what is meant.
pub fn is_of_a_worker(cx: &StepContext, action: &Action) -> bool {
    let Action::DeleteVm { instance, .. } = action else { return false };
    cx.task.target(instance).is_ok_and(|target| target.compilation) && cx.task.knows_second_level()
}

/// Returns whether something is to be done before a step is recorded that else changes the state only.
pub fn is_prepared(action: &Action) -> bool {
    matches!(
        action,
        Action::ElectVm { instead_of: Some(_), .. } | Action::ForgetVm { .. } | Action::DeleteDeployment
    )
}

/// Does that; the inner error is why the step can't be recorded. A VM that another one takes the place of gives up its dynamic
/// disks and is switched off, as far as it listens; one that is forgotten gives them up, as far as its cloud can tell; those of
/// a deployment that goes are deleted.
pub async fn prepare(cx: &StepContext, action: &Action) -> Result<Result<(), TaskError>, Interrupted> {
    let prepared = match action {
        Action::ElectVm { instead_of: Some(old), .. } => match dynamic_disk::part_with(cx, old).await {
            Ok(()) => match vm::retire(cx, old).await {
                Err(error @ (StepError::Lost(_) | StepError::Log(_))) => Err(error),
                _ => Ok(()),
            },
            Err(error) => Err(error),
        },
        Action::ForgetVm { agent, .. } => match dynamic_disk::part_with(cx, agent).await {
            Err(error @ (StepError::Lost(_) | StepError::Log(_))) => Err(error),
            Err(error) => {
                cx.task.debug(&format!("VM with agent {agent} is forgotten with its dynamic disks: {error}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        },
        Action::DeleteDeployment => dynamic_disk::delete_with_deployment(cx).await,
        _ => Ok(()),
    };
    match prepared {
        Ok(()) => Ok(Ok(())),
        Err(StepError::Lost(lost)) => Err(lost.into()),
        Err(StepError::Log(error)) => Err(error.into()),
        Err(StepError::Failed(error) | StepError::Again(error) | StepError::Unclear(error)) => Ok(Err(error)),
        Err(other) => Ok(Err(TaskError::plain(other.to_string()))),
    }
}

/// Does the deed of `action` and returns what is to be remembered of it.
pub async fn perform(cx: &StepContext, action: &Action) -> Result<StepOutcome, StepError> {
    cx.task.fence.check()?;
    match action {
        Action::CreateVm { instance, agent, role: _ } => vm::create(cx, instance, agent).await,
        Action::SetVmMetadata { instance, agent, compiling } => {
            vm::set_metadata(cx, instance, agent, compiling.as_ref()).await
        }
        Action::AwaitAgent { instance, agent } => vm::await_agent(cx, instance, agent).await,
        Action::UpdateSettings { instance, agent } => vm::update_settings(cx, instance, agent).await,
        Action::BindVm { instance, agent } => vm::bind(cx, instance, agent).await,
        Action::DeleteVm { instance, agent } => vm::delete(cx, instance, agent).await,
        Action::DeleteOrphanedVm { agent } => vm::delete_orphaned(cx, agent).await,
        Action::DeleteForeignVm { cid, cpi } => vm::delete_foreign(cx, cid, cpi).await,
        Action::CreateDisk { instance, agent, disk, name } => {
            disk::create(cx, instance, agent, (disk, name.as_ref())).await
        }
        Action::AttachDisk { instance, agent, disk } => disk::attach(cx, instance, agent, disk).await,
        Action::SetDiskMetadata { instance, disk } => disk::set_metadata(cx, instance, disk).await,
        Action::MountDisk { instance, agent, disk } => disk::mount(cx, instance, agent, disk).await,
        Action::MigrateDisk { instance, agent, from, to } => {
            disk::migrate(cx, instance, agent, from, to).await
        }
        Action::CheckDisks { instance, agent } => disk::check(cx, instance, agent).await,
        Action::UnmountDisk { instance, agent, disk } => disk::unmount(cx, instance, agent, disk).await,
        Action::DetachDisk { instance, agent, disk } => disk::detach(cx, instance, agent, disk).await,
        Action::DeleteOrphanedDisk { disk } => disk::delete_orphaned(cx, disk).await,
        Action::SnapshotDisk { instance, disk, snapshot, clean: _ } => {
            snapshot::take(cx, instance, disk, snapshot).await
        }
        Action::DeleteSnapshot { snapshot } => snapshot::delete(cx, snapshot).await,
        Action::Prepare { instance, agent } => jobs::prepare(cx, instance, agent).await,
        Action::RunScript { instance, agent, script, intent } => {
            jobs::run_script(cx, instance, agent, *script, *intent).await
        }
        Action::Drain { instance, agent, drain } => jobs::drain(cx, instance, agent, *drain).await,
        Action::StopJobs { instance, agent } => jobs::stop(cx, instance, agent).await,
        Action::Apply { instance, agent } => jobs::apply(cx, instance, agent).await,
        Action::StartJobs { instance, agent } => jobs::start(cx, instance, agent).await,
        Action::Watch { instance, agent, watch } => watch::watch(cx, instance, agent, *watch).await,
        Action::CompilePackage { worker, agent, package, compiled_elsewhere } => {
            compile::compile(cx, worker, agent, package, compiled_elsewhere).await
        }
        Action::RunErrand { instance, agent, errand } => errand::run(cx, instance, agent, errand).await,
        Action::ConfirmProblem { problem, instance, resolution } => {
            problem::confirm(cx, *problem, instance, resolution).await
        }
        Action::RebootVm { instance, agent } => problem::reboot(cx, instance, agent).await,
        Action::OrphanDisk { .. }
        | Action::AdoptDisk { .. }
        | Action::OrphanVm { .. }
        | Action::BeginUpdate { .. }
        | Action::CompleteUpdate { .. }
        | Action::ReleaseAddresses { .. }
        | Action::SaveInstance { .. }
        | Action::DeleteInstance { .. }
        | Action::SaveDeployment
        | Action::DeleteDeployment
        | Action::SaveErrand { .. }
        | Action::CloseProblem { .. }
        | Action::ForgetVm { .. }
        | Action::ActivateDisk { .. }
        | Action::ElectVm { .. } => Ok(StepOutcome::Done),
    }
}
