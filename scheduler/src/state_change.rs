//! Start, stop, restart and recreate with stored specs: nothing is parsed, placed or compared anew.

use model::instance::InstanceState;
use model::manifest::Overrides;
use model::plan::{Change, Fate, Phase, Plan, Stage, Target};
use model::task::{StateChange, TaskError};
use model::*;

use crate::chance::{Ids, SeededIds};
use crate::desired::matches;
use crate::disk::DiskChange;
use crate::facts::{Facts, Known};
use crate::input::{AgentObservation, DeploymentFacts, Director, StateChangeRequest};
use crate::order::{self, History, InLine};
use crate::steps::{Steps, Units};
use crate::stored::{self, StoredGroups};
use crate::update::{self, Jobs, Metadata, Turn, VmFate};

/// Plans start, stop, restart or recreate of some instances with their stored specs.
pub fn plan_state_change(
    _director: &Director,
    deployment: &DeploymentFacts<'_>,
    request: &StateChangeRequest<'_>,
) -> Result<Plan, TaskError> {
    let facts = Facts::of(deployment);
    let overrides = Overrides { canaries: request.canaries, max_in_flight: request.max_in_flight };
    let groups = StoredGroups::of(deployment, overrides);
    let (chosen, warnings) = choose(&facts, deployment, request)?;
    let mut agents = SeededIds::new(deployment.seed, "agents");
    let mut changing = Vec::new();
    for known in chosen {
        if let Some(change) = Changing::of(known, request.change, &mut agents)? {
            changing.push(change);
        }
    }
    let mut units = Units::default();
    let mut phases = Vec::new();
    for (group, config) in groups.iter() {
        let line: Vec<InLine<'_>> = changing
            .iter()
            .filter(|c| c.known.instance.spec.group == *group)
            .map(|c| InLine {
                spec: &c.known.instance.spec,
                steps: Box::new(move |watch| c.steps(request, watch)),
            })
            .collect();
        if line.is_empty() {
            continue;
        }
        let mine = facts.values().map(|k| &k.instance.spec).filter(|s| s.group == *group);
        let leading = mine.into_iter().find(|s| s.bootstrap).and_then(|s| s.az.as_ref());
        let total = line.len() as u32;
        let waves = order::waves(line, leading, config, History::Again, &mut units)?;
        let tags = vec![group.to_string()];
        let title = Some("Updating instance".to_owned());
        phases.push(Phase { stages: vec![Stage { title, tags, total, waves }] });
    }
    let targets = changing.iter().map(Changing::target).collect();
    Ok(stored::plan(deployment, targets, phases, warnings))
}

/// Returns the instances that the request is for. One that is ignored must not be asked for by name (140021).
fn choose<'f, 'a>(
    facts: &'f Facts<'a>,
    deployment: &DeploymentFacts<'_>,
    request: &StateChangeRequest<'_>,
) -> Result<(Vec<&'f Known<'a>>, Vec<String>), TaskError> {
    let fits = |k: &&Known<'_>| !k.instance.compilation && matches(request.filter, &k.instance.spec);
    let (ignored, chosen): (Vec<_>, Vec<_>) = facts.values().filter(fits).partition(|k| k.instance.ignore);
    let Some(which) = &request.filter.id_or_index else {
        let note =
            |k: &&Known<'_>| format!("Instance '{}' is ignored and was left alone.", k.instance.slug());
        return Ok((chosen, ignored.iter().map(note).collect()));
    };
    if let Some(ignored) = ignored.first() {
        return Err(TaskError::new(
            ErrorCode::InstanceGroupIgnoredInstances,
            format!(
                "You are trying to change the state of the ignored instance '{}'. This operation is not allowed. You need to unignore it first.",
                ignored.instance.slug()
            ),
        ));
    }
    if chosen.is_empty() {
        let group = request.filter.group.as_ref().map_or("*", GroupName::as_str);
        return Err(TaskError::new(
            ErrorCode::InstanceNotFound,
            format!("'{}/{group}/{which}' doesn't exist", deployment.name),
        ));
    }
    Ok((chosen, Vec::new()))
}

/// An instance with what becomes of it.
struct Changing<'f, 'a> {
    known: &'f Known<'a>,
    state: InstanceState,
    reason: Change,
    vm: VmFate,
}

impl<'f, 'a> Changing<'f, 'a> {
    /// Decides; none if the instance already is what is asked for.
    fn of(
        known: &'f Known<'a>,
        change: StateChange,
        agents: &mut dyn Ids,
    ) -> Result<Option<Self>, TaskError> {
        let instance = known.instance;
        let (state, reason) = match change {
            StateChange::Become(state) => (state, Change::State),
            StateChange::Restart => (InstanceState::Started, Change::Restart),
            StateChange::Recreate => (InstanceState::Started, Change::Recreate),
        };
        let settled = match state {
            InstanceState::Started => known.vm.is_some() && known.is_running(),
            InstanceState::Stopped => known.vm.is_some(),
            InstanceState::Detached => known.vm.is_none() && known.stale_vms.is_empty(),
        };
        let same = instance.state == state && instance.update_completed && settled;
        if reason == Change::State && same {
            return Ok(None);
        }
        let mut fresh = || AgentId::new(agents.next());
        let vm = match (known.vm, state) {
            (None, InstanceState::Detached) => VmFate::None,
            (None, _) => VmFate::Fresh(fresh()),
            (Some(vm), InstanceState::Detached) if known.is_unresponsive() => {
                VmFate::ReplaceDead { old: vm.agent.clone(), new: fresh() }
            }
            (Some(vm), _) if reason == Change::Recreate && known.is_unresponsive() => {
                VmFate::ReplaceDead { old: vm.agent.clone(), new: fresh() }
            }
            (Some(vm), _) if reason == Change::Recreate => {
                VmFate::Replace { old: vm.agent.clone(), new: fresh() }
            }
            (Some(vm), _) => VmFate::Keep(vm.agent.clone()),
        };
        match (&vm, known.agent) {
            // Whoever must be talked to must be able to listen.
            (VmFate::Keep(_), Some(AgentObservation::Unresponsive { error })) => Err(TaskError {
                code: error.code,
                message: format!("{}: {}", instance.slug(), error.message),
            }),
            _ => Ok(Some(Self { known, state, reason, vm })),
        }
    }

    fn steps(&self, request: &StateChangeRequest<'_>, watch: model::step::WatchKind) -> Steps {
        let id = &self.known.instance.spec.id;
        let turn = Turn {
            instance: id,
            state: self.state,
            vm: self.vm.clone(),
            jobs: if matches!(self.vm, VmFate::Fresh(_)) { Jobs::Stopped } else { self.known.jobs() },
            active_disk: self.known.disk,
            stale_disks: self.known.stale_disks.clone(),
            disk: DiskChange::Keep,
            metadata: Metadata::Fresh,
            drain: request.drain,
            watch,
        };
        let mut steps = Steps::default();
        update::delete_vms(&mut steps, id, &self.known.stale_vms);
        if let VmFate::Fresh(agent) = &self.vm {
            update::create_vm(&mut steps, id, agent, self.known.disk);
        }
        steps.append(turn.steps());
        steps
    }

    fn target(&self) -> Target {
        let fate = match self.vm {
            VmFate::Replace { .. } | VmFate::ReplaceDead { .. } => Fate::Recreated,
            _ => Fate::Updated,
        };
        stored::target(self.known.instance, self.state, fate, vec![self.reason])
    }
}
