//! From a task to a plan: facts out of the state and from the agents, decisions by the planner, one commit.
//!
//! Deliberately *not* here: any choice of what to do (`scheduler`). A plan that the world has overtaken is made again.
//!
//! Read next: `facts`, then `commit`.

mod by_hand;
mod cloud_check;
mod commit;
mod export;
mod facts;
mod lines;
mod observe;
mod scan;
mod second_look;
mod sizes;
mod snapshots;

use model::plan::Plan;
use model::step::Action;
use model::task::{DeployOptions, OutputKind, TaskError, TaskKind};
use model::{AgentId, DiskId, ErrorCode, VariableSetId};
use scheduler::input::{Afterwards, Deletion, DrainMode, ErrandRequest, StateChangeRequest};
use scheduler::{Draft, IsolatedChange, Silence};
use serde_json::Value;
use state::State;

pub use commit::{NotCommitted, commit};

use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::render;
use crate::tasks;
use crate::variables::{self, Sight, StandIns};
use facts::{Facts, Wish};
pub use lines::Lines;

/// How much of a plan's explanation a dry run gives as its result: some hundred instances. The result is a part of the
/// task's row, which every list of tasks reads.
const EXPLANATION_BYTES_MAX: usize = 64 << 10;

/// The result of a task that repairs what was found dead, or has found nothing.
const SCAN_AND_FIX_COMPLETE: &str = "scan and fix complete";

/// What planning gave.
pub enum Prepared {
    /// Work to do.
    Plan(Box<Plan>),
    /// Nothing to do; the task ends with this result.
    Nothing(Option<String>),
}

/// Plans a task. The inner error is the operator's, the outer one ours.
pub async fn prepare(context: &TaskContext) -> Result<Result<Prepared, TaskError>, Interrupted> {
    match &context.task.kind {
        TaskKind::Deploy { manifest_text, options } => deploy(context, manifest_text, options).await,
        TaskKind::DeleteDeployment { force } => {
            let deletion = if *force { Deletion::Forced } else { Deletion::Orderly };
            from_facts(context, |facts| {
                if !facts.exists {
                    // A repeat of a deletion that had already ended, as BOSH treats it.
                    return Ok(Prepared::Nothing(None));
                }
                scheduler::plan_delete_deployment(&facts.director, &facts.deployment(), deletion).map(boxed)
            })
            .await
        }
        TaskKind::ChangeState {
            change,
            filter,
            skip_drain,
            max_in_flight,
            canaries,
            dry_run,
            created_before,
        } => {
            let request = StateChangeRequest {
                change: *change,
                filter,
                drain: if *skip_drain { DrainMode::Skip } else { DrainMode::Drain },
                max_in_flight: max_in_flight.as_deref(),
                canaries: canaries.as_deref(),
                created_before: *created_before,
            };
            change_state(context, &request, *dry_run).await
        }
        TaskKind::RunErrand { .. } => run_errand(context).await,
        TaskKind::ScanAndFix { instances, unknown } => match unknown.first() {
            Some(name) => {
                Ok(Err(TaskError::new(ErrorCode::InstanceNotFound, format!("'{name}' doesn't exist"))))
            }
            None => cloud_check::scan_and_fix(context, instances).await,
        },
        TaskKind::ScanCloud => cloud_check::scan_cloud(context).await,
        TaskKind::ApplyResolutions { resolutions, max_in_flight } => {
            cloud_check::apply(context, resolutions, max_in_flight).await
        }
        TaskKind::DeleteOrphanedDisks { disks } => {
            Ok(Ok(boxed(scheduler::plan_orphaned_disks(&orphaned_disks(context, disks)))))
        }
        TaskKind::DeleteOrphanedVms { agents } => {
            Ok(Ok(boxed(scheduler::plan_orphaned_vms(&orphaned_vms(context, agents)))))
        }
        TaskKind::CleanUp { leftovers, .. } => {
            let (vms, disks) =
                (orphaned_vms(context, &leftovers.vms), orphaned_disks(context, &leftovers.disks));
            Ok(Ok(boxed(scheduler::plan_orphans(&vms, &disks))))
        }
        TaskKind::OrphanDisk { cid } => by_hand::orphan_disk(context, cid).await,
        TaskKind::AttachDisk { instance, cid, copy_properties } => {
            by_hand::attach_disk(context, instance, cid, *copy_properties).await
        }
        TaskKind::DeleteVm { cid } => by_hand::delete_vm(context, cid).await,
        TaskKind::ChangeInstance { change, instance, skip_drain, fix } => {
            let wanted = IsolatedChange {
                change: *change,
                instance,
                drain: if *skip_drain { DrainMode::Skip } else { DrainMode::Drain },
                silence: if *fix { Silence::IsPassedOver } else { Silence::Fails },
            };
            let mut facts = Facts::read(context);
            facts.observe_one(context, instance).await?;
            let plan = scheduler::plan_isolated_change(&facts.deployment(), &wanted);
            let planned = |plan| boxed(snapshots::added(context, plan));
            Ok(plan.map(|plan| plan.map_or_else(|| Prepared::Nothing(result_of(context)), planned)))
        }
        TaskKind::ExportRelease { export } => export::compile(context, export).await,
        TaskKind::TakeSnapshots { instance } => Ok(snapshots::take(context, instance.as_ref())),
        TaskKind::DeleteSnapshots { cid } => Ok(snapshots::delete(context, cid.as_ref())),
        TaskKind::RotateCertificates { agents } => Ok(Ok(rotation(context, agents))),
        TaskKind::UploadRelease { .. }
        | TaskKind::FetchRelease { .. }
        | TaskKind::FetchStemcell { .. }
        | TaskKind::UploadStemcell { .. }
        | TaskKind::DeleteRelease { .. }
        | TaskKind::DeleteStemcell { .. }
        | TaskKind::DeleteOrphanedNetworks { .. }
        | TaskKind::CreateDynamicDisk { .. }
        | TaskKind::AttachDynamicDisk { .. }
        | TaskKind::ProvideDynamicDisk { .. }
        | TaskKind::DetachDynamicDisk { .. }
        | TaskKind::DeleteDynamicDisk { .. }
        | TaskKind::Inspect { .. }
        | TaskKind::FetchLogs { .. }
        | TaskKind::Ssh { .. } => Ok(Err(TaskError::plain("this kind of task has no plan"))),
    }
}

/// Plans other certificates for agents, as far as they need some still: a deploy may have come before.
fn rotation(context: &TaskContext, agents: &[AgentId]) -> Prepared {
    let due = agents.iter().filter(|agent| context.ports.enrollment.due(agent).is_some());
    let plan = scheduler::plan_rotation(&Facts::read(context).deployment(), &due.cloned().collect());
    plan.map_or_else(|| Prepared::Nothing(result_of(context)), boxed)
}

fn orphaned_vms(context: &TaskContext, agents: &[AgentId]) -> Vec<scheduler::OrphanOfVm> {
    let view = context.view();
    let state = State::new(&*view);
    let cid = |agent| state.orphaned_vm(agent).and_then(|orphan| orphan.vm.cid);
    agents.iter().map(|agent| (agent.clone(), cid(agent))).collect()
}

fn orphaned_disks(context: &TaskContext, disks: &[DiskId]) -> Vec<scheduler::OrphanOfDisk> {
    let view = context.view();
    let state = State::new(&*view);
    let cid = |disk| state.orphaned_disk(disk).and_then(|orphan| orphan.disk.cid);
    disks.iter().map(|disk| (disk.clone(), cid(disk))).collect()
}

fn boxed(plan: Plan) -> Prepared {
    Prepared::Plan(Box::new(plan))
}

/// Returns the short result of a task that ended well.
pub fn result_of(context: &TaskContext) -> Option<String> {
    match &context.task.kind {
        TaskKind::RunErrand { .. } => Some(errands_told(context)),
        TaskKind::CleanUp { leftovers, .. } => Some(tasks::cleaned_up(context, leftovers)),
        kind @ (TaskKind::OrphanDisk { .. } | TaskKind::AttachDisk { .. } | TaskKind::DeleteVm { .. }) => {
            by_hand::told(kind, context.task.deployment.as_ref())
        }
        TaskKind::ChangeInstance { instance, .. } => {
            let view = context.view();
            State::new(&*view).instance(instance).map(|instance| instance.slug())
        }
        TaskKind::TakeSnapshots { .. } | TaskKind::DeleteSnapshots { .. } => snapshots::told(context),
        TaskKind::ScanAndFix { .. } => Some(SCAN_AND_FIX_COMPLETE.into()),
        TaskKind::ApplyResolutions { .. } => Some(format!("{} resolved", resolved(context))),
        _ => context.task.deployment.as_ref().map(|name| format!("/deployments/{name}")),
    }
}

/// Returns how many problems the task was about that were open.
fn resolved(context: &TaskContext) -> usize {
    let units = State::new(&*context.view()).units(context.id());
    let closes = |step: &model::plan::Step| matches!(step.action, Action::CloseProblem { .. });
    units.iter().filter(|planned| planned.unit.steps.iter().any(closes)).count()
}

/// Returns how the runs of an errand ended, as they are in the task's result.
fn errands_told(context: &TaskContext) -> String {
    let result = State::new(&*context.view()).output(context.id(), OutputKind::Result, 0, usize::MAX);
    let (mut succeeded, mut errored, mut cancelled) = (0, 0, 0);
    for line in String::from_utf8_lossy(&result).lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        match line["exit_code"].as_i64() {
            Some(0) => succeeded += 1,
            // A signal has ended it.
            Some(code) if code > 128 => cancelled += 1,
            _ => errored += 1,
        }
    }
    format!("{succeeded} succeeded, {errored} errored, {cancelled} canceled")
}

/// Cuts a text that would make the task's row too large, at the end of a line.
fn shortened(mut text: String) -> String {
    if text.len() <= EXPLANATION_BYTES_MAX {
        return text;
    }
    let lines = text.lines().count();
    let last = text.as_bytes()[..EXPLANATION_BYTES_MAX].iter().rposition(|byte| *byte == b'\n');
    text.truncate(last.map_or(0, |at| at + 1));
    let shown = text.lines().count();
    text.push_str(&format!("... and {} lines more\n", lines - shown));
    text
}

async fn from_facts(
    context: &TaskContext,
    plan: impl FnOnce(&Facts) -> Result<Prepared, TaskError>,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let mut facts = Facts::read(context);
    facts.observe(context).await?;
    Ok(plan(&facts))
}

/// Plans a run of an errand, and tells of it as BOSH does.
async fn run_errand(context: &TaskContext) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let TaskKind::RunErrand { errand, keep_alive, instances, when_changed } = &context.task.kind else {
        return Ok(Err(TaskError::plain("this task runs no errand")));
    };
    let lines = Lines::new(context);
    lines.started("Preparing deployment", "Preparing deployment", 1).await?;
    let planned = from_facts(context, |facts| {
        let last = facts.last_run_of(context, errand).filter(|_| *when_changed);
        let request = ErrandRequest {
            errand,
            afterwards: if *keep_alive { Afterwards::KeepVms } else { Afterwards::DeleteVms },
            instances,
            variables: &facts.versions_of_variables(context),
            unless: last.as_deref(),
        };
        let plan = scheduler::plan_errand(&facts.director, &facts.deployment(), &facts.releases, &request)?;
        let unchanged = || Prepared::Nothing(Some("skipped - no changes detected".into()));
        Ok(plan.map_or_else(unchanged, |plan| boxed(snapshots::added(context, plan))))
    });
    let prepared = match planned.await? {
        Ok(prepared) => prepared,
        Err(error) => return lines.failed("Preparing deployment", "Preparing deployment", 1, error).await,
    };
    lines.started("Preparing package compilation", "Finding packages to compile", 1).await?;
    lines.finished("Preparing package compilation", "Finding packages to compile", 1).await?;
    lines.finished("Preparing deployment", "Preparing deployment", 1).await?;
    Ok(Ok(prepared))
}

/// Plans a change of state: a deploy of what was deployed last, with the versions of variables and configs of then.
async fn change_state(
    context: &TaskContext,
    request: &StateChangeRequest<'_>,
    dry_run: bool,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let lines = Lines::new(context);
    lines.started("Preparing deployment", "Preparing deployment", 1).await?;
    let mut facts = Facts::read(context);
    facts.observe(context).await?;
    let (manifest_text, options) = match scheduler::stored_manifest(&facts.deployment()) {
        Ok(text) => (text, DeployOptions { dry_run, ..request.options() }),
        Err(error) => return lines.failed("Preparing deployment", "Preparing deployment", 1, error).await,
    };
    let sight = Sight::Set(facts.take_back_to_last_success(context, &manifest_text));
    facts.note_rotations(context, sight);
    let wish = Wish { manifest_text: &manifest_text, options: &options, change: Some(request) };
    if let Err(error) = facts.ask_for_sizes(context, wish).await? {
        return lines.failed("Preparing deployment", "Preparing deployment", 1, error).await;
    }
    let draft = match draft(context, &mut facts, wish).await? {
        Ok(draft) => draft,
        Err(error) => return lines.failed("Preparing deployment", "Preparing deployment", 1, error).await,
    };
    lines.finished("Preparing deployment", "Preparing deployment", 1).await?;
    render_and_plan(context, &facts, wish, &draft, sight).await
}

/// Plans a deploy: draft, variables, rendering, changes.
async fn deploy(
    context: &TaskContext,
    manifest_text: &str,
    options: &DeployOptions,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let lines = Lines::new(context);
    lines.started("Preparing deployment", "Preparing deployment", 1).await?;
    let mut facts = Facts::read(context);
    facts.observe(context).await?;
    // A dry run opens no variable set and generates nothing: it leaves no trace but its own task.
    let set = match options.dry_run {
        true => VariableSetId::default(),
        false => variables::open_set(context).await?,
    };
    facts.set_variables(context, set, manifest_text);
    let wish = Wish { manifest_text, options, change: None };
    if let Err(error) = facts.ask_for_sizes(context, wish).await? {
        return lines.failed("Preparing deployment", "Preparing deployment", 1, error).await;
    }
    // A dry run makes no networks.
    if !options.dry_run
        && let Err(error) = facts.settle_networks(context, wish).await?
    {
        return lines.failed("Preparing deployment", "Preparing deployment", 1, error).await;
    }
    let draft = match draft(context, &mut facts, wish).await? {
        Ok(draft) => draft,
        Err(error) => return lines.failed("Preparing deployment", "Preparing deployment", 1, error).await,
    };
    let stand_ins = match options.dry_run {
        true => imagine_variables(context, &mut facts, &draft).map(Some),
        false => settle_variables(context, &mut facts, set, &draft).await?.map(|()| None),
    };
    let stand_ins = match stand_ins {
        Ok(stand_ins) => stand_ins,
        Err(error) => return lines.failed("Preparing deployment", "Preparing deployment", 1, error).await,
    };
    lines.finished("Preparing deployment", "Preparing deployment", 1).await?;

    let sight = stand_ins.as_ref().map_or(Sight::Set(set), Sight::DryRun);
    render_and_plan(context, &facts, wish, &draft, sight).await
}

/// Drafts; where names are to be short and something in them has no number yet, once it has one.
async fn draft(
    context: &TaskContext,
    facts: &mut Facts,
    wish: Wish<'_>,
) -> Result<Result<Draft, TaskError>, Interrupted> {
    let draft = match scheduler::draft(&facts.plan_input(wish)) {
        Ok(draft) if !draft.unnumbered.is_empty() => draft,
        settled => return Ok(settled),
    };
    if let Err(error) = facts.number(context, &draft.unnumbered, wish.options.dry_run).await? {
        return Ok(Err(error));
    }
    // The same chance again: ids and addresses are those that were given numbers.
    Ok(scheduler::draft(&facts.plan_input(wish)))
}

/// The second half: templates are rendered, then the plan is made. A dry run ends with its explanation.
async fn render_and_plan(
    context: &TaskContext,
    facts: &Facts,
    wish: Wish<'_>,
    draft: &Draft,
    sight: Sight<'_>,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let lines = Lines::new(context);
    lines.started("Preparing deployment", "Rendering templates", 2).await?;
    let rendered = match render::hashes(context, draft, sight).await {
        Ok(rendered) => rendered,
        Err(error) => return lines.failed("Preparing deployment", "Rendering templates", 2, error).await,
    };
    let planned = scheduler::plan(&facts.plan_input(wish), draft, &rendered);
    let plan = match planned {
        Ok(plan) => snapshots::added(context, plan),
        Err(error) => return lines.failed("Preparing deployment", "Rendering templates", 2, error).await,
    };
    lines.finished("Preparing deployment", "Rendering templates", 2).await?;
    if wish.options.dry_run {
        return Ok(Ok(Prepared::Nothing(Some(shortened(scheduler::explain(&plan))))));
    }
    lines.started("Preparing package compilation", "Finding packages to compile", 1).await?;
    lines.finished("Preparing package compilation", "Finding packages to compile", 1).await?;
    Ok(Ok(boxed(plan)))
}

/// Gives every variable that a deploy uses its version, and finds out which secrets were rotated.
async fn settle_variables(
    context: &TaskContext,
    facts: &mut Facts,
    set: VariableSetId,
    draft: &Draft,
) -> Result<Result<(), TaskError>, Interrupted> {
    if let Err(error) = variables::generate_missing(context, set, &draft.variables).await? {
        return Ok(Err(error));
    }
    variables::pin(context, set, &draft.references, facts.seen()).await?;
    facts.note_rotations(context, Sight::Set(set));
    Ok(Ok(()))
}

/// Does the same for a dry run, with stand-ins for what the deploy would generate.
fn imagine_variables(context: &TaskContext, facts: &mut Facts, draft: &Draft) -> Result<StandIns, TaskError> {
    let stand_ins = variables::stand_ins(context, &draft.variables)?;
    facts.note_rotations(context, Sight::DryRun(&stand_ins));
    Ok(stand_ins)
}
