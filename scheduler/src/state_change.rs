//! Start, stop, restart and recreate: a deploy of what was deployed last, with other wishes for some instances
//! (`spec/director-api.md` §5.4).
//!
//! Not here: planning it, which is a deploy's. Invariant: nothing is resolved anew; manifest, configs, versions of
//! variables and links are those of the last success.

use model::instance::{Instance, InstanceSpec, InstanceState};
use model::task::{DeployOptions, StateChange, TaskError};
use model::*;

use crate::desired::matches;
use crate::input::{AgentObservation, DeploymentFacts, DrainMode, PlanInput, StateChangeRequest};

impl StateChangeRequest<'_> {
    /// Returns the options of the deploy that makes the change.
    pub fn options(&self) -> DeployOptions {
        let group = self.filter.group.as_ref().map_or("*", GroupName::as_str);
        DeployOptions {
            skip_drain: if self.drain == DrainMode::Skip { vec![group.to_owned()] } else { Vec::new() },
            max_in_flight: self.max_in_flight.map(str::to_owned),
            canaries: self.canaries.map(str::to_owned),
            created_before: self.created_before,
            ..DeployOptions::default()
        }
    }

    /// Returns whether it is about this instance.
    pub(crate) fn is_for(&self, spec: &InstanceSpec) -> bool {
        matches(self.filter, spec)
    }

    /// Returns whether the VM goes away in any case, so that nobody needs an answer from its agent.
    fn replaces_vm(&self) -> bool {
        matches!(self.change, StateChange::Recreate | StateChange::Become(InstanceState::Detached))
    }
}

/// Returns the manifest of the last success, `latest` resolved, as the text to plan with (440001 if there never was
/// one).
pub fn stored_manifest(deployment: &DeploymentFacts<'_>) -> Result<String, TaskError> {
    let record = deployment.record.ok_or_else(|| {
        TaskError::new(
            ErrorCode::InvalidManifest,
            format!("Deployment '{}' has never been deployed with success", deployment.name),
        )
    })?;
    Ok(record.manifest.to_string())
}

/// Checks what a change asks for, and returns notes for the operator. An instance that is ignored must not be asked
/// for by name (140021), and one that is named must exist (70001).
pub(crate) fn check(input: &PlanInput<'_>) -> Result<Vec<String>, TaskError> {
    let Some(request) = input.change else { return Ok(Vec::new()) };
    let own = || input.deployment.instances.iter().filter(|i| !i.compilation);
    let chosen: Vec<&Instance> = own().filter(|i| request.is_for(&i.spec)).collect();
    let ignored: Vec<&Instance> = chosen.iter().copied().filter(|i| i.ignore).collect();
    let mut notes: Vec<String> = match &request.filter.id_or_index {
        None => ignored
            .iter()
            .map(|i| format!("Instance '{}' is ignored and was left alone.", i.slug()))
            .collect(),
        Some(which) => {
            named(input.deployment.name, request, which, chosen.first().copied(), ignored.first().copied())?;
            Vec::new()
        }
    };
    if let (true, Some(group)) = (chosen.is_empty(), &request.filter.group) {
        notes.push(format!("There are no instances of an instance group '{group}'."));
    }
    let silent = own().filter(|i| is_left_alone(input, i) && !i.ignore);
    notes.extend(silent.map(|i| format!("The agent of '{}' does not answer; it was left alone.", i.slug())));
    Ok(notes)
}

fn named(
    deployment: &DeploymentName,
    request: &StateChangeRequest<'_>,
    which: &str,
    chosen: Option<&Instance>,
    ignored: Option<&Instance>,
) -> Result<(), TaskError> {
    if let Some(ignored) = ignored {
        return Err(TaskError::new(
            ErrorCode::InstanceGroupIgnoredInstances,
            format!(
                "You are trying to change the state of the ignored instance '{}'. This operation is not allowed. You need to unignore it first.",
                ignored.slug()
            ),
        ));
    }
    if chosen.is_some() {
        return Ok(());
    }
    let group = request.filter.group.as_ref().map_or("*", GroupName::as_str);
    Err(TaskError::new(ErrorCode::InstanceNotFound, format!("'{deployment}/{group}/{which}' doesn't exist")))
}

fn is_silent(input: &PlanInput<'_>, instance: &Instance) -> bool {
    matches!(input.deployment.agents.get(&instance.spec.id), Some(AgentObservation::Unresponsive { .. }))
}

/// Returns whether the plan does nothing to an instance, whatever differs: it is ignored, or its agent is dead and the
/// change is about others. (BOSH fails such a change; then nobody could repair one of several dead instances.)
pub(crate) fn is_left_alone(input: &PlanInput<'_>, instance: &Instance) -> bool {
    let about_others = input.change.is_some_and(|request| !request.is_for(&instance.spec));
    instance.ignore || (about_others && is_silent(input, instance))
}

/// Returns whether a dead agent is no obstacle: its VM is to be replaced, or nothing is asked of it.
pub(crate) fn may_be_silent(input: &PlanInput<'_>, instance: &Instance) -> bool {
    let replaced =
        input.change.is_some_and(|request| request.is_for(&instance.spec) && request.replaces_vm());
    input.options.fix || replaced || is_left_alone(input, instance)
}
