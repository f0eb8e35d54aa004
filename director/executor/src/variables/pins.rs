//! Pinning what a deploy uses: from its first use on, a name means the same version for the whole deploy, and for every
//! later task that does not deploy.

use std::collections::BTreeMap;

use model::{DeploymentName, VariableName, VariableSetId};
use scheduler::References;
use state::State;
use state::command::{Command, Outcome, VariablePin};
use state::log::Proposal;

use crate::context::TaskContext;
use crate::error::Interrupted;

/// Pins per entry of the log: 100 KB of names as people write them.
const PINS_PER_ENTRY: usize = 1000;

/// Opens the task's variable set, or finds the one that it has opened.
pub async fn open_set(task: &TaskContext) -> Result<VariableSetId, Interrupted> {
    let deployment = task.task.deployment.clone().unwrap_or_default();
    let open = Command::VariableSetOpen { task: task.id(), epoch: task.fence.epoch(), deployment };
    match task.ports.log.propose(Proposal::own(open)).await?.outcome.accepted()? {
        Outcome::VariableSet(set) => Ok(set),
        other => unreachable!("opening a set was answered with {other:?}"),
    }
}

/// Pins everything that a deploy refers to. A name that was needed to read the documents keeps the version in `seen`;
/// others get the newest one, or the one that the last deploy of their provider saw. What has no version stays
/// unpinned, and fails where it is used.
pub async fn pin(
    task: &TaskContext,
    set: VariableSetId,
    references: &References,
    seen: &BTreeMap<VariableName, u64>,
) -> Result<(), Interrupted> {
    let pins = missing(task, set, references, seen);
    propose(task, set, pins).await
}

/// Pins the newest versions of these.
pub(super) async fn pin_newest(
    task: &TaskContext,
    set: VariableSetId,
    names: &[VariableName],
) -> Result<(), Interrupted> {
    let references = References { own: names.iter().cloned().collect(), ..References::default() };
    pin(task, set, &references, &BTreeMap::new()).await
}

fn missing(
    task: &TaskContext,
    set: VariableSetId,
    references: &References,
    seen: &BTreeMap<VariableName, u64>,
) -> Vec<VariablePin> {
    let view = task.view();
    let state = State::new(&*view);
    let set = state.variable_set(set).unwrap_or_default();
    let newest = |name: &VariableName| state.latest_variable(name).map(|variable| variable.version);
    let mut pins = Vec::new();
    for name in references.own.iter().filter(|name| !set.pins.contains_key(*name)) {
        if let Some(version) = seen.get(name).copied().or_else(|| newest(name)) {
            pins.push(VariablePin { name: name.clone(), version, provider: None });
        }
    }
    for (provider, names) in &references.linked {
        let pinned = set.linked.get(provider);
        let deployed = state.deployed_variable_set(provider).map(|set| set.pins).unwrap_or_default();
        for name in names.iter().filter(|name| !pinned.is_some_and(|pins| pins.contains_key(*name))) {
            if let Some(version) = deployed.get(name).copied().or_else(|| newest(name)) {
                let provider: Option<DeploymentName> = Some(provider.clone());
                pins.push(VariablePin { name: name.clone(), version, provider });
            }
        }
    }
    pins
}

/// Has pins committed.
pub(super) async fn propose(
    task: &TaskContext,
    set: VariableSetId,
    pins: Vec<VariablePin>,
) -> Result<(), Interrupted> {
    for pins in pins.chunks(PINS_PER_ENTRY) {
        let pin =
            Command::VariablesPin { task: task.id(), epoch: task.fence.epoch(), set, pins: pins.to_vec() };
        task.ports.log.propose(Proposal::own(pin)).await?.outcome.accepted()?;
    }
    Ok(())
}
