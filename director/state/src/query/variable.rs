//! Variables and variable sets.

use model::*;

use super::State;
use crate::kv::Direction;
use crate::records::{Variable, VariableSet};
use crate::tables::*;

impl State<'_> {
    /// Returns a version of a variable.
    pub fn variable(&self, name: &VariableName, version: u64) -> Option<Variable> {
        VARIABLES.get(self.kv, &(name.clone(), version))
    }

    /// Returns the newest version of a variable.
    pub fn latest_variable(&self, name: &VariableName) -> Option<Variable> {
        VARIABLES.rows_of(self.kv, name, Direction::Reverse).map(|(_, variable)| variable).next()
    }

    /// Returns a variable set.
    pub fn variable_set(&self, id: VariableSetId) -> Option<VariableSet> {
        VARIABLE_SETS.get(self.kv, &id)
    }

    /// Returns the set that a task opened.
    pub fn variable_set_of_task(&self, task: TaskId) -> Option<VariableSet> {
        VARIABLE_SET_BY_TASK.get(self.kv, &task).and_then(|id| self.variable_set(id))
    }

    /// Returns the sets of a deployment, newest first.
    pub fn variable_sets(&self, deployment: &DeploymentName) -> Vec<VariableSet> {
        let ids = VARIABLE_SETS_OF.rows_of(self.kv, deployment, Direction::Reverse);
        ids.filter_map(|((_, id), ())| self.variable_set(id)).collect()
    }

    /// Returns the sets that say which versions a task sees for an instance, the one that counts most first.
    ///
    /// A deploy sees its own set and no other. Other tasks see what was deployed last; for an instance that a failed
    /// deploy has changed, what that deploy saw; and what goes with its spec, where it is older (an ignored instance).
    pub fn variable_sets_for(&self, task: TaskId, instance: &InstanceId) -> Vec<VariableSet> {
        let own = self.plan_variable_set(task).and_then(|id| self.variable_set(id));
        if let Some(own) = own.or_else(|| self.variable_set_of_task(task)) {
            return vec![own];
        }
        let Some(instance) = self.instance(instance) else { return Vec::new() };
        let deployed = self.deployed_variable_set(&instance.spec.deployment);
        let mut sets: Vec<VariableSet> =
            deployed.into_iter().chain(self.variable_set(instance.variable_set)).collect();
        sets.sort_by_key(|set| std::cmp::Reverse(set.id));
        sets.dedup_by_key(|set| set.id);
        sets
    }

    /// Returns the set of a deployment's last success.
    pub fn deployed_variable_set(&self, deployment: &DeploymentName) -> Option<VariableSet> {
        let record = DEPLOYMENTS.get(self.kv, deployment)?.record?;
        self.variable_set(record.variable_set)
    }
}
