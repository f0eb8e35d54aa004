//! Resolving placeholders with the versions that a variable set has pinned.

use std::cell::RefCell;
use std::collections::BTreeMap;

use model::task::TaskError;
use model::{DeploymentName, ErrorCode, VariableName};
use serde_json::Value;
use state::State;
use state::log::View;
use state::records::VariableSet;

use super::placeholder::{Piece, Reference, pieces};
use crate::context::TaskContext;
use crate::error::StepError;
use crate::ports::Vault;

/// What stands in the place of values that a dry run does not generate.
pub type StandIns = BTreeMap<VariableName, Value>;

/// Resolves the references of one deployment.
pub struct Resolver {
    view: View,
    vault: std::sync::Arc<dyn Vault>,
    prefix: String,
    set: Option<VariableSet>,
    /// Values opened so far: an instance's jobs refer to the same few again and again.
    opened: RefCell<BTreeMap<VariableName, Value>>,
}

impl Resolver {
    /// Makes the resolver for a task: with the set that its plan names, else the one that it opened, else the last
    /// that was deployed.
    pub fn for_task(task: &TaskContext) -> Result<Self, StepError> {
        let view = task.view();
        let state = State::new(&*view);
        let deployment = task.task.deployment.clone().unwrap_or_default();
        let set = state
            .plan_variable_set(task.id())
            .and_then(|id| state.variable_set(id))
            .or_else(|| state.variable_set_of_task(task.id()))
            .or_else(|| state.deployed_variable_set(&deployment));
        let director = state.cluster().map(|c| c.director_name).unwrap_or_default();
        Ok(Self::new(view, task.ports.vault.clone(), &director, &deployment, set))
    }

    /// Makes the resolver for a task that shows what it would do: the newest values, and `stand_ins` for those that it
    /// would make.
    pub fn for_dry_run(task: &TaskContext, stand_ins: &StandIns) -> Self {
        let view = task.view();
        let director = State::new(&*view).cluster().map(|c| c.director_name).unwrap_or_default();
        let deployment = task.task.deployment.clone().unwrap_or_default();
        let resolver = Self::new(view, task.ports.vault.clone(), &director, &deployment, None);
        resolver.opened.borrow_mut().extend(stand_ins.clone());
        resolver
    }

    fn new(
        view: View,
        vault: std::sync::Arc<dyn Vault>,
        director: &str,
        deployment: &DeploymentName,
        set: Option<VariableSet>,
    ) -> Self {
        Self { view, vault, prefix: format!("/{director}/{deployment}/"), set, opened: RefCell::default() }
    }

    /// Returns `value` with every placeholder replaced. All failures are reported together.
    pub fn resolve(&self, value: &Value) -> Result<Value, StepError> {
        let mut failures = Vec::new();
        let resolved = self.walk(value, &mut failures);
        if failures.is_empty() {
            return Ok(resolved);
        }
        failures.sort();
        failures.dedup();
        Err(StepError::Failed(TaskError::new(ErrorCode::ConfigServerFetchError, failures.join("\n"))))
    }

    fn walk(&self, value: &Value, failures: &mut Vec<String>) -> Value {
        match value {
            Value::String(text) if text.contains("((") => self.text(text, failures),
            Value::Array(items) => items.iter().map(|item| self.walk(item, failures)).collect(),
            Value::Object(entries) => {
                entries.iter().map(|(key, value)| (key.clone(), self.walk(value, failures))).collect()
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str, failures: &mut Vec<String>) -> Value {
        let pieces = pieces(text);
        if let [Piece::Reference(reference)] = pieces.as_slice() {
            // A whole-value placeholder keeps the value's type.
            return self.lookup(reference).unwrap_or_else(|failure| {
                failures.push(failure);
                Value::Null
            });
        }
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Reference(reference) => match self.lookup(&reference) {
                    Ok(Value::String(text)) => out.push_str(&text),
                    Ok(Value::Number(number)) if !number.is_f64() => out.push_str(&number.to_string()),
                    Ok(_) => failures.push(format!(
                        "- Failed to substitute placeholder: Can not replace '(({}))' in a text with a value that is \
                         neither text nor integer",
                        reference.name
                    )),
                    Err(failure) => failures.push(failure),
                },
            }
        }
        Value::String(out)
    }

    fn lookup(&self, reference: &Reference) -> Result<Value, String> {
        let name = match reference.name.starts_with('/') {
            true => VariableName::new(reference.name.clone()),
            false => VariableName::new(format!("{}{}", self.prefix, reference.name)),
        };
        let mut value = self.open(&name)?;
        for key in &reference.keys {
            value = match value {
                Value::Object(mut entries) => entries.remove(key).ok_or_else(|| {
                    format!("- Failed to fetch variable '{name}' from config server: Expected parent to have key '{key}'")
                })?,
                _ => {
                    return Err(format!(
                        "- Failed to fetch variable '{name}' from config server: Expected parent of '{key}' to be a hash"
                    ));
                }
            };
        }
        Ok(value)
    }

    fn open(&self, name: &VariableName) -> Result<Value, String> {
        if let Some(value) = self.opened.borrow().get(name) {
            return Ok(value.clone());
        }
        let missing = || {
            format!(
                "- Failed to find variable '{name}' from config server: HTTP Code '404', Error: 'not found'"
            )
        };
        let state = State::new(&*self.view);
        let pinned = self.set.as_ref().and_then(|set| set.pins.get(name));
        let variable = match pinned {
            Some(version) => state.variable(name, *version),
            None => state.latest_variable(name),
        };
        let variable = variable.ok_or_else(missing)?;
        let value = self.vault.open(name.as_str(), &variable.sealed).map_err(|e| format!("- {e}"))?;
        self.opened.borrow_mut().insert(name.clone(), value.clone());
        Ok(value)
    }
}
