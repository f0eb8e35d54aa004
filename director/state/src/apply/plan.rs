//! Plans: drafted in parts, checked once, then taken apart into rows that a step record can find without the rest.

use std::collections::BTreeMap;

use model::plan::{Fate, Plan, Target, Unit};
use model::step::Action;
use model::task::TaskState;
use model::*;

use super::task::{working, wrong_state};
use super::tx::{Tx, invalid, not_found};
use super::{address, deployment, dns, instance, line};
use crate::command::{DraftPart, Outcome, Refusal};
use crate::draft::{self, Misfit};
use crate::records::{PlannedUnit, UnitProgress, UnitState};
use crate::rows::{PlanInfo, TaskRow};
use crate::tables::*;

/// Plans of ended tasks that are kept for people to look at. A plan of a thousand instances takes megabytes.
const PLANS_KEPT: usize = 16;

/// `PlanDraft`; `place` is the draft and the part.
pub(super) fn draft(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    place: (u64, u32),
    content: &DraftPart,
) -> Result<Outcome, Refusal> {
    let task = plannable(tx, by)?;
    let (draft, part) = place;
    if part == 0 {
        // Whoever began another draft has given it up.
        let parts = tx.rows_of(&PLAN_PARTS, &task.id).map(|(key, _)| key);
        let old: Vec<_> = parts.filter(|(_, other, _)| *other != draft).collect();
        for key in old {
            tx.delete(&PLAN_PARTS, &key);
        }
    }
    tx.put(&PLAN_PARTS, &(task.id, draft, part), content);
    Ok(Outcome::Done)
}

/// `PlanCommit`; `drafted` is the draft and how many parts it has.
pub(super) fn commit(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    drafted: (u64, u32),
    plan: &Plan,
) -> Result<Outcome, Refusal> {
    let mut task = plannable(tx, by)?;
    if let Some((lock, holder)) = tx.state().blocked_by(&task) {
        return Err(Refusal::LockHeld { task: task.id, lock, holder });
    }
    let plan = merge(tx, task.id, drafted, plan.clone())?;
    check_generation(tx, &task, &plan)?;
    let info = info(tx, &task, &plan);
    store_targets(tx, &task, &plan, &info)?;
    store_units(tx, &task, &plan)?;
    dns::number(tx, &plan.dns_subjects);
    if let Some(name) = &plan.deployment {
        deployment::bump(tx, name);
    }
    for text in &plan.warnings {
        line::warning(tx, task.id, text);
    }
    if let Some(record) = &plan.record {
        tx.put(&PLAN_RECORDS, &task.id, record);
    }
    tx.put(&PLAN_INFO, &task.id, &info);
    tx.delete_of(&PLAN_PARTS, &task.id);
    task.planned = true;
    task.updated_at = tx.at;
    tx.put(&TASKS, &task.id, &task);
    Ok(Outcome::Done)
}

/// Drops what a task's end makes useless, and the oldest of the plans that were kept.
pub(super) fn ended(tx: &mut Tx<'_>, task: &TaskRow) {
    tx.delete_of(&PLAN_PARTS, &task.id);
    if !task.planned {
        return;
    }
    tx.put(&PLANS_ENDED, &task.id, &());
    let kept: Vec<TaskId> = tx.rows(&PLANS_ENDED).map(|(id, ())| id).collect();
    for id in &kept[..kept.len().saturating_sub(PLANS_KEPT)] {
        forget(tx, *id);
    }
}

/// Drops a task's plan and journal.
pub(super) fn forget(tx: &mut Tx<'_>, task: TaskId) {
    tx.delete_of(&PLAN_PARTS, &task);
    tx.delete(&PLAN_PHASES, &task);
    tx.delete(&PLAN_INFO, &task);
    tx.delete(&PLAN_RECORDS, &task);
    tx.delete_of(&UNITS, &task);
    tx.delete_of(&UNIT_PROGRESS, &task);
    tx.delete_of(&STAGE_STARTED, &task);
    tx.delete_of(&STEPS, &task);
    tx.delete_of(&TARGETS, &task);
    tx.delete_of(&TARGET_AUDITS, &task);
    tx.delete(&PLANS_ENDED, &task);
}

/// Returns a task that has no plan yet and may get one.
fn plannable(tx: &Tx<'_>, by: (TaskId, Epoch)) -> Result<TaskRow, Refusal> {
    let task = working(tx, by)?;
    if task.state == TaskState::Cancelling {
        return Err(wrong_state(&task));
    }
    if task.planned {
        return Err(Refusal::TaskState { task: task.id, state: "planned already".into() });
    }
    Ok(task)
}

fn merge(tx: &Tx<'_>, task: TaskId, drafted: (u64, u32), plan: Plan) -> Result<Plan, Refusal> {
    let (draft, parts) = drafted;
    let part = |part| tx.get(&PLAN_PARTS, &(task, draft, part)).ok_or(Refusal::DraftIncomplete { part });
    let parts = (0..parts).map(part).collect::<Result<Vec<_>, _>>()?;
    draft::merge(plan, parts).map_err(|misfit| match misfit {
        Misfit::Unit(piece) => {
            invalid(format!("unit {}", piece.unit.no), "its place in the plan does not exist")
        }
        Misfit::Record(error) => invalid("the plan's record", error.to_string()),
    })
}

fn check_generation(tx: &Tx<'_>, task: &TaskRow, plan: &Plan) -> Result<(), Refusal> {
    let Some(name) = &plan.deployment else { return Ok(()) };
    if task.deployment.as_ref() != Some(name) {
        return Err(invalid("the plan", format!("it is for deployment {name}, the task is not")));
    }
    let current = tx.need(&DEPLOYMENTS, name, "deployment")?.generation;
    if current == plan.generation {
        return Ok(());
    }
    Err(Refusal::GenerationMoved { deployment: name.clone(), given: plan.generation, current })
}

fn info(tx: &Tx<'_>, task: &TaskRow, plan: &Plan) -> PlanInfo {
    let recorded = plan.record.as_ref().map(|record| record.variable_set);
    PlanInfo {
        deployment: plan.deployment.clone(),
        generation: plan.generation,
        variable_set: recorded.or_else(|| tx.get(&VARIABLE_SET_BY_TASK, &task.id)),
    }
}

fn store_targets(tx: &mut Tx<'_>, task: &TaskRow, plan: &Plan, info: &PlanInfo) -> Result<(), Refusal> {
    let mut slugs: BTreeMap<&InstanceId, (&DeploymentName, String)> = BTreeMap::new();
    for target in &plan.targets {
        let spec = &target.spec;
        if plan.deployment.as_ref() != Some(&spec.deployment) {
            return Err(invalid(
                format!("instance {}", spec.id),
                "it is of another deployment than the plan",
            ));
        }
        slugs.insert(&spec.id, (&spec.deployment, format!("{}/{}", spec.group, spec.id)));
        tx.put(&TARGETS, &(task.id, spec.id.clone()), target);
        if target.fate == Fate::New || target.compilation {
            instance::create(tx, target, info.variable_set.unwrap_or_default());
        } else if !tx.has(&INSTANCES, &spec.id) {
            return Err(not_found("instance", spec.id.as_str()));
        }
    }
    for reservation in &plan.reservations {
        let (deployment, slug) = match slugs.get(&reservation.instance) {
            Some((deployment, slug)) => ((*deployment).clone(), slug.clone()),
            None => {
                let holder = tx.need(&INSTANCES, &reservation.instance, "instance")?;
                (holder.spec.deployment.clone(), holder.slug())
            }
        };
        address::reserve(tx, reservation, deployment, slug)?;
    }
    Ok(())
}

/// Stores a row per unit and the skeleton without the steps.
fn store_units(tx: &mut Tx<'_>, task: &TaskRow, plan: &Plan) -> Result<(), Refusal> {
    let mut phases = plan.phases.clone();
    let targets: BTreeMap<&InstanceId, &Target> =
        plan.targets.iter().map(|target| (&target.spec.id, target)).collect();
    for (p, phase) in (0u32..).zip(&mut phases) {
        for (s, stage) in (0u32..).zip(&mut phase.stages) {
            for (w, wave) in (0u32..).zip(&mut stage.waves) {
                for unit in &mut wave.units {
                    check_unit(tx, task, plan, &targets, unit)?;
                    let planned = PlannedUnit {
                        unit: unit.clone(),
                        phase: p,
                        stage: s,
                        wave: w,
                        title: stage.title.clone(),
                        tags: stage.tags.clone(),
                        total: stage.total,
                    };
                    tx.put(&UNITS, &(task.id, unit.no), &planned);
                    if unit.steps.is_empty() {
                        // Nothing would ever be recorded of it, and others may wait for it.
                        let done = UnitProgress { state: UnitState::Done, ..UnitProgress::default() };
                        tx.put(&UNIT_PROGRESS, &(task.id, unit.no), &done);
                    }
                    unit.steps = Vec::new();
                }
            }
        }
    }
    tx.put(&PLAN_PHASES, &task.id, &phases);
    Ok(())
}

fn check_unit(
    tx: &Tx<'_>,
    task: &TaskRow,
    plan: &Plan,
    targets: &BTreeMap<&InstanceId, &Target>,
    unit: &Unit,
) -> Result<(), Refusal> {
    let what = || format!("unit {}", unit.no);
    if tx.has(&UNITS, &(task.id, unit.no)) {
        return Err(invalid(what(), "the plan has it twice"));
    }
    for step in &unit.steps {
        let action = &step.action;
        if let Some(instance) =
            action.instance().filter(|id| needs_target(action) && !targets.contains_key(id))
        {
            return Err(invalid(what(), format!("the plan has no target for instance {instance}")));
        }
        if *action == Action::SaveDeployment && plan.record.is_none() {
            return Err(invalid(what(), "the plan has no record to save"));
        }
    }
    Ok(())
}

/// Returns whether recording the step reads the plan's target for its instance.
fn needs_target(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateVm { .. }
            | Action::BindVm { .. }
            | Action::CreateDisk { .. }
            | Action::Apply { .. }
            | Action::BeginUpdate { .. }
            | Action::ReleaseAddresses { .. }
            | Action::SaveInstance { .. }
    )
}
