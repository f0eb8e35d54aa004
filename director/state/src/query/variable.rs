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

    /// Returns the set of a deployment's last success.
    pub fn deployed_variable_set(&self, deployment: &DeploymentName) -> Option<VariableSet> {
        let record = DEPLOYMENTS.get(self.kv, deployment)?.record?;
        self.variable_set(record.variable_set)
    }
}
