//! Cloud check: a scan, and what is decided about the problems that it has found.

use model::InstanceId;
use model::problem::Resolution;
use model::task::{Choice, TaskError};
use scheduler::{DecidedBy, Decision};
use state::State;
use state::records::Leak;

use super::facts::Facts;
use super::lines::Lines;
use super::scan::{self, Scope};
use super::{Prepared, boxed};
use crate::context::TaskContext;
use crate::error::Interrupted;

/// The stage under which operators see what is done about problems.
const STAGE: &str = "Applying problem resolutions";

/// The stage under which they see what may be in the cloud without anybody's knowing its id.
const LEAKS_STAGE: &str = "Listing what may be left in the cloud";

/// How many of these are told; `dctl leaks` lists all.
const LEAKS_TOLD: usize = 100;

/// Looks for problems of a deployment.
pub async fn scan_cloud(context: &TaskContext) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let mut facts = Facts::read(context);
    facts.observe(context).await?;
    let findings = match scan::scan(context, &facts, Scope::Everything).await? {
        Ok(findings) => findings,
        Err(error) => return Ok(Err(error)),
    };
    scan::file(context, Scope::Everything, &findings).await?;
    tell_of_leaks(context).await?;
    Ok(Ok(Prepared::Nothing(Some("scan complete".into()))))
}

/// Tells what this deployment's tasks may have left in the cloud. No resolution helps: it is there without our knowing its id,
/// or will be, and somebody has to look.
async fn tell_of_leaks(context: &TaskContext) -> Result<(), Interrupted> {
    let leaks: Vec<Leak> = {
        let view = context.view();
        let state = State::new(&*view);
        let latecomers = state.latecomers().into_iter().map(|row| row.as_leak());
        let listed = state.leaks().into_iter().chain(latecomers);
        let is_ours = |leak: &Leak| {
            let task = leak.task.and_then(|task| state.task(task));
            task.is_some_and(|task| task.deployment == context.task.deployment)
        };
        listed.filter(is_ours).take(LEAKS_TOLD).collect()
    };
    let lines = Lines::of(context, leaks.len().try_into().unwrap_or(u32::MAX));
    for (index, Leak { id, what, .. }) in (1..).zip(leaks) {
        let told = format!("{what} (once you have looked: dctl leaks clear {id})");
        lines.done(LEAKS_STAGE, &told, index).await?;
    }
    Ok(())
}

/// Plans what operators have decided about problems.
pub async fn apply(
    context: &TaskContext,
    choices: &[Choice],
    max_in_flight: &std::collections::BTreeMap<model::GroupName, String>,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let mut facts = Facts::read(context);
    facts.observe(context).await?;
    let lines = Lines::of(context, choices.len().try_into().unwrap_or(u32::MAX));
    let (mut decisions, mut index) = (Vec::with_capacity(choices.len()), 0);
    for Choice { problem, resolution } in choices {
        let standing = {
            let view = context.view();
            let deployment = context.task.deployment.clone().unwrap_or_default();
            State::new(&*view).problem(&deployment, *problem)
        };
        match standing {
            Some(problem) => decisions.push(Decision { problem, resolution: resolution.clone() }),
            None => {
                index += 1;
                let told = format!("Ignoring problem {problem} (state is 'closed')");
                lines.done(STAGE, &told, index).await?;
            }
        }
    }
    let decided_by = DecidedBy::Operator(max_in_flight);
    Ok(scheduler::plan_resolutions(&facts.director, &facts.deployment(), &decisions, &decided_by).map(boxed))
}

/// Plans new VMs for instances that were found dead, unless they have come back meanwhile: the agent itself is asked
/// once more, by another way than the heartbeats that went missing.
pub async fn scan_and_fix(
    context: &TaskContext,
    instances: &[InstanceId],
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let mut facts = Facts::read(context);
    facts.observe(context).await?;
    let scope = Scope::VmsOf(instances);
    let findings = match scan::scan(context, &facts, scope).await? {
        Ok(findings) => findings,
        Err(error) => return Ok(Err(error)),
    };
    let dead: Vec<InstanceId> = findings.iter().map(|finding| finding.instance.clone()).collect();
    for id in instances.iter().filter(|id| !dead.contains(id)) {
        context.debug(&format!("instance {id} answers or is gone: nothing to fix"));
    }
    if !context.knows_second_level() {
        // Members of the fleet would not know what a problem is.
        return Ok(scheduler::plan_resurrection(&facts.director, &facts.deployment(), &dead).map(boxed));
    }
    scan::file(context, scope, &findings).await?;
    let decisions: Vec<Decision> = {
        let view = context.view();
        let deployment = context.task.deployment.clone().unwrap_or_default();
        let mine = State::new(&*view).problems(&deployment).into_iter();
        let mine = mine.filter(|standing| findings.contains(&standing.problem.finding));
        let resolution = Some(Resolution::RecreateVm.name().to_owned());
        mine.map(|problem| Decision { problem, resolution: resolution.clone() }).collect()
    };
    if decisions.is_empty() {
        return Ok(Ok(Prepared::Nothing(Some(super::SCAN_AND_FIX_COMPLETE.into()))));
    }
    let planned = scheduler::plan_resolutions(
        &facts.director,
        &facts.deployment(),
        &decisions,
        &DecidedBy::Resurrector,
    );
    Ok(planned.map(boxed))
}
