//! Secrets that were rotated: what a VM or disk was made with is compared with what it would be made with now.

use std::collections::{BTreeMap, BTreeSet};

use model::{VariableName, VariableSetId};
use serde_json::Value;
use state::State;

use super::Sight;
use crate::context::TaskContext;

/// Returns, for each of `before`, the names whose value in that set is not the one that this deploy sees.
pub fn rotated(
    task: &TaskContext,
    before: &BTreeSet<VariableSetId>,
    sight: Sight<'_>,
) -> BTreeMap<VariableSetId, BTreeSet<VariableName>> {
    let view = task.view();
    let state = State::new(&*view);
    let set = match sight {
        Sight::Set(set) => state.variable_set(set),
        Sight::DryRun(_) => None,
    };
    let pins = set.map(|set| set.pins).unwrap_or_default();
    let version_now = |name: &VariableName| match sight {
        Sight::Set(_) => pins.get(name).copied(),
        Sight::DryRun(_) => state.latest_variable(name).map(|variable| variable.version),
    };
    let open = |name: &VariableName, version: u64| -> Option<Value> {
        let variable = state.variable(name, version)?;
        task.ports.vault.open(name.as_str(), &variable.sealed).ok()
    };
    let differs = |name: &VariableName, old: u64| {
        if matches!(sight, Sight::DryRun(stand_ins) if stand_ins.contains_key(name)) {
            return true;
        }
        // A name that is not used any more changes nothing.
        let Some(new) = version_now(name) else { return false };
        // A new version may bring the old value: only values count.
        new != old && open(name, new) != open(name, old)
    };
    let mut rotated = BTreeMap::new();
    for id in before {
        let Some(set) = state.variable_set(*id) else { continue };
        let names = set.pins.iter().filter(|(name, version)| differs(name, **version));
        let names: BTreeSet<VariableName> = names.map(|(name, _)| name.clone()).collect();
        if !names.is_empty() {
            rotated.insert(*id, names);
        }
    }
    rotated
}
