//! What a step's record changes besides the journal: the rows that describe the deed, and the audit events around it.

use model::plan::Target;
use model::release::{CompiledPackage, Parts};
use model::step::{Action, Left, StepOutcome};
use model::*;

use super::event::{Audit, audit, report_leak};
use super::snapshot::{self, Taking};
use super::tx::{Tx, invalid};
use super::{
    certificate, deployment, disk, dynamic_disk, errand, instance, line, lock, problem, release, task, vm,
};
use crate::command::Refusal;
use crate::rows::TaskRow;
use crate::tables::*;

/// A step that is being recorded.
pub(super) struct Deed<'a> {
    pub task: &'a TaskRow,
    pub no: StepNo,
    pub action: &'a Action,
    /// The audit event that its first attempt opened.
    pub audit: Option<EventId>,
}

impl Deed<'_> {
    /// Returns what the plan wants of an instance.
    pub fn target(&self, tx: &Tx<'_>, instance: &InstanceId) -> Result<Target, Refusal> {
        tx.need(&TARGETS, &(self.task.id, instance.clone()), "target")
    }

    fn event(&self, tx: &mut Tx<'_>, object_name: Option<String>, error: Option<String>) -> Option<EventId> {
        let (action, object_type) = audited(self.action)?;
        let instance = self.action.instance().and_then(|id| tx.get(&INSTANCES, id));
        let event = Audit {
            task: Some(self.task),
            parent: self.audit,
            action,
            object_type,
            object_name,
            instance: instance.map(|instance| instance.slug()),
            error,
            ..Audit::default()
        };
        Some(audit(tx, event))
    }
}

/// The step is about to be done. Returns the audit event that this opens.
pub(super) fn begin(tx: &mut Tx<'_>, deed: &Deed<'_>) -> Result<Option<EventId>, Refusal> {
    match deed.action {
        Action::CreateVm { instance, agent, role } => {
            vm::begin_create(tx, deed, (instance, *role), agent)?;
        }
        Action::DeleteVm { agent, .. } => dynamic_disk::mark_leaving(tx, deed.task.id, agent),
        Action::CreateDisk { instance, disk, name, .. } => {
            disk::begin_create(tx, deed, instance, (disk, name.as_ref()))?;
        }
        Action::SnapshotDisk { instance, disk, snapshot, clean } => {
            snapshot::begin(tx, Taking { instance, disk, snapshot, clean: *clean })?;
        }
        // One task compiles it; others that want it too wait for what comes of that.
        Action::CompilePackage { package, .. } => lock::join(tx, deed.task.id, &[package.lock()]),
        _ => {}
    }
    if deed.audit.is_some() {
        return Ok(deed.audit);
    }
    let name = object_name(tx, deed.action, None);
    Ok(deed.event(tx, name, None))
}

/// The step is done.
pub(super) fn done(tx: &mut Tx<'_>, deed: &Deed<'_>, outcome: &StepOutcome) -> Result<(), Refusal> {
    let name = object_name(tx, deed.action, Some(outcome));
    if let StepOutcome::MayHaveLeaked { what } = outcome {
        report_leak(tx, Some(deed.task), Some(deed.task.id), what);
        line::warning(tx, deed.task.id, &format!("Something may have been left behind: {what}"));
    }
    if let StepOutcome::PassedOver { error } = outcome {
        line::warning(tx, deed.task.id, &format!("Passed over: {error}"));
    }
    change(tx, deed, outcome)?;
    let_go(tx, deed);
    deed.event(tx, name, None);
    Ok(())
}

/// The next task in line for the package, if there is one, has its turn.
fn let_go(tx: &mut Tx<'_>, deed: &Deed<'_>) {
    if let Action::CompilePackage { package, .. } = deed.action {
        lock::leave(tx, deed.task.id, &[package.lock()]);
    }
}

/// The step failed, and with it its unit.
pub(super) fn failed(tx: &mut Tx<'_>, deed: &Deed<'_>, error: &str, left: Left) {
    match (deed.action, left) {
        (Action::CreateVm { agent, .. }, Left::Nothing) => vm::not_created(tx, agent),
        (Action::CreateDisk { disk, .. }, Left::Nothing) => disk::not_created(tx, disk),
        (Action::SnapshotDisk { snapshot, .. }, Left::Nothing) => snapshot::not_taken(tx, snapshot),
        // What was wrong is not so any more, or can't be mended like this: it is not asked about again.
        (Action::ConfirmProblem { problem, .. }, _) => problem::close(tx, deed.task, *problem),
        _ => {}
    }
    let_go(tx, deed);
    let name = object_name(tx, deed.action, None);
    deed.event(tx, name, Some(error.to_owned()));
    if let Some(id) = deed.action.instance() {
        instance::failed(tx, deed, id, error);
    }
}

/// Changes what the step's end changes. An outcome that does not go with the step is refused.
fn change(tx: &mut Tx<'_>, deed: &Deed<'_>, outcome: &StepOutcome) -> Result<(), Refusal> {
    use {Action as A, StepOutcome as O};
    match (deed.action, outcome) {
        (A::CreateVm { agent, .. }, O::VmCreated { cid }) => {
            vm::created(tx, agent, cid)?;
            certificate::handed_over(tx, (deed.task.id, deed.no), agent);
        }
        (A::UpdateSettings { agent, .. }, O::Done) => {
            certificate::handed_over(tx, (deed.task.id, deed.no), agent);
        }
        (A::BindVm { instance, agent }, O::Bound { networks }) => {
            vm::bound(tx, deed, (instance, agent), networks)?
        }
        // Left behind or gone: in both cases nobody may take the agent for the instance's any more.
        (A::DeleteVm { agent, .. }, O::Done | O::MayHaveLeaked { .. }) => vm::deleted(tx, agent),
        // It could not be deleted now: somebody does it later, without the instance.
        (A::OrphanVm { agent, .. }, O::Done) | (A::DeleteVm { agent, .. }, O::PassedOver { .. }) => {
            vm::orphaned(tx, agent)
        }
        (A::ElectVm { instance, agent, instead_of }, O::Done) => {
            vm::elected(tx, (instance, agent), instead_of.as_ref())?;
        }
        (A::ForgetVm { agent, left, .. }, O::Done) => forget_vm(tx, deed, agent, *left),
        (A::DeleteOrphanedVm { agent }, O::Done | O::MayHaveLeaked { .. }) => vm::orphan_deleted(tx, agent),

        (A::CreateDisk { disk, .. }, O::DiskCreated { cid }) => disk::created(tx, disk, cid)?,
        (A::AttachDisk { disk, .. }, O::Done) => disk::attached(tx, disk)?,
        (A::MountDisk { disk, .. }, O::Done) => disk::mounted(tx, disk)?,
        (A::ActivateDisk { disk, .. }, O::Done) => disk::mounted(tx, disk)?,
        (A::MigrateDisk { to, .. }, O::Done) => disk::migrated(tx, to)?,
        (A::OrphanDisk { disk, .. }, O::Done) => disk::give_up(tx, disk),
        (A::DeleteOrphanedDisk { disk }, O::Done | O::MayHaveLeaked { .. }) => {
            tx.delete(&ORPHANED_DISKS, disk);
            snapshot::forget_all(tx, deed, disk);
        }
        (A::SnapshotDisk { snapshot, .. }, O::SnapshotTaken { cid }) => snapshot::taken(tx, snapshot, cid)?,
        (A::SnapshotDisk { snapshot, .. }, O::Done) => snapshot::not_taken(tx, snapshot),
        (A::DeleteSnapshot { snapshot }, O::Done | O::MayHaveLeaked { .. }) => {
            snapshot::forget(tx, snapshot);
        }
        (A::AdoptDisk { instance, disk, cid, foreign, at_once }, O::Done) => {
            let adopted = disk::Adopted { id: disk, cid, foreign: foreign.as_ref(), at_once: *at_once };
            disk::adopt(tx, deed, instance, adopted)?;
        }

        (A::Apply { instance, .. }, O::Applied { configuration_hash, template_hashes }) => {
            instance::applied(tx, deed, instance, (configuration_hash, template_hashes))?;
        }
        (A::CompilePackage { package, .. }, O::Compiled { blob, digest, size_bytes }) => {
            let (key, blob, digest) = (package.clone(), blob.clone(), digest.clone());
            let size_bytes = *size_bytes;
            let package = CompiledPackage { key, build: 0, blob, digest, size_bytes };
            release::put_compiled(tx, package, Parts::Keep);
        }
        (A::RunErrand { .. }, O::ErrandRan { result_line, .. }) => {
            task::result_line(tx, deed.task.id, result_line)
        }
        (A::BindVm { agent, .. }, O::Done) => vm::introduced(tx, agent),

        (A::BeginUpdate { instance }, O::Done) => instance::begin_update(tx, deed, instance)?,
        (A::CompleteUpdate { instance }, O::Done) => instance::complete_update(tx, deed, instance)?,
        (A::ReleaseAddresses { instance }, O::Done) => instance::release_addresses(tx, deed, instance)?,
        (A::SaveInstance { instance }, O::Done) => instance::save(tx, deed, instance)?,
        (A::DeleteInstance { instance }, O::Done) => instance::delete(tx, deed, instance)?,
        (A::SaveDeployment, O::Done) => deployment::save(tx, deed.task)?,
        (A::SaveErrand { errand, digest }, O::Done) => errand::save(tx, deed.task, errand, digest.as_ref()),
        (A::CloseProblem { problem }, O::Done) => problem::close(tx, deed.task, *problem),
        (A::DeleteDeployment, O::Done) => deployment::delete(tx, deed.task)?,

        (A::CreateVm { .. } | A::CreateDisk { .. } | A::Apply { .. } | A::RunErrand { .. }, O::Done) => {
            return Err(mismatch(deed, "it gives no result"));
        }
        (_, O::Done | O::MayHaveLeaked { .. } | O::PassedOver { .. }) => {}
        (_, _) => return Err(mismatch(deed, "the result is another step's")),
    }
    Ok(())
}

/// The VM's row goes, the VM may stay.
fn forget_vm(tx: &mut Tx<'_>, deed: &Deed<'_>, agent: &AgentId, left: Left) {
    let Some(vm) = tx.get(&VMS, agent) else { return };
    if left == Left::Perhaps {
        let slug = tx.get(&INSTANCES, &vm.instance).map_or_else(|| vm.instance.to_string(), |i| i.slug());
        let cid = vm.cid.as_ref().map_or("unknown", |cid| cid.as_str());
        let what = format!(
            "VM with agent id {agent} and cloud id {cid} of '{slug}', which somebody had forgotten: it may still run, with \
             addresses of the instance"
        );
        report_leak(tx, Some(deed.task), Some(deed.task.id), &what);
        line::warning(tx, deed.task.id, &format!("Something may have been left behind: {what}"));
    }
    vm::forget(tx, &vm);
}

fn mismatch(deed: &Deed<'_>, reason: &str) -> Refusal {
    invalid(format!("the outcome of step {} ({})", deed.no, deed.action.name()), reason)
}

/// Returns action and type of object of the audit events around a step, if it has any.
fn audited(action: &Action) -> Option<(&'static str, &'static str)> {
    match action {
        Action::CreateVm { .. } => Some(("create", "vm")),
        Action::DeleteVm { .. } | Action::DeleteOrphanedVm { .. } | Action::DeleteForeignVm { .. } => {
            Some(("delete", "vm"))
        }
        Action::AdoptDisk { .. } => Some(("attach", "disk")),
        Action::OrphanVm { .. } | Action::ElectVm { instead_of: Some(_), .. } => Some(("orphan", "vm")),
        Action::RebootVm { .. } => Some(("reboot", "vm")),
        Action::ForgetVm { .. } => Some(("delete", "vm")),
        Action::CreateDisk { .. } => Some(("create", "disk")),
        Action::OrphanDisk { .. } => Some(("orphan", "disk")),
        Action::DeleteOrphanedDisk { .. } => Some(("delete", "disk")),
        Action::RunErrand { .. } => Some(("run", "errand")),
        Action::SnapshotDisk { .. } => Some(("create", "snapshot")),
        Action::DeleteSnapshot { .. } => Some(("delete", "snapshot")),
        _ => None,
    }
}

/// Returns the name of the object of a step's audit event: the cloud's id, once it is known.
fn object_name(tx: &Tx<'_>, action: &Action, outcome: Option<&StepOutcome>) -> Option<String> {
    match (action, outcome) {
        (Action::CreateVm { .. }, Some(StepOutcome::VmCreated { cid })) => Some(cid.to_string()),
        (Action::CreateDisk { .. }, Some(StepOutcome::DiskCreated { cid })) => Some(cid.to_string()),
        (Action::SnapshotDisk { .. }, Some(StepOutcome::SnapshotTaken { cid })) => Some(cid.to_string()),
        (Action::DeleteSnapshot { snapshot }, _) => {
            tx.get(&SNAPSHOTS, snapshot)?.cid.map(|cid| cid.to_string())
        }
        (
            Action::DeleteVm { agent, .. }
            | Action::OrphanVm { agent, .. }
            | Action::ElectVm { instead_of: Some(agent), .. }
            | Action::RebootVm { agent, .. }
            | Action::ForgetVm { agent, .. },
            _,
        ) => tx.get(&VMS, agent)?.cid.map(|cid| cid.to_string()),
        (Action::DeleteOrphanedVm { agent }, _) => {
            tx.get(&ORPHANED_VMS, agent)?.vm.cid.map(|cid| cid.to_string())
        }
        (Action::OrphanDisk { disk, .. }, _) => tx.get(&DISKS, disk)?.cid.map(|cid| cid.to_string()),
        (Action::DeleteOrphanedDisk { disk }, _) => {
            tx.get(&ORPHANED_DISKS, disk)?.disk.cid.map(|cid| cid.to_string())
        }
        (Action::AdoptDisk { cid, .. }, _) => Some(cid.to_string()),
        (Action::DeleteForeignVm { cid, .. }, _) => Some(cid.to_string()),
        (Action::RunErrand { errand, .. }, _) => Some(errand.to_string()),
        _ => None,
    }
}
