//! Resolving placeholders with the versions that variable sets have pinned.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::fields::Checked;
use model::instance::provider_of;
use model::interpolate::resolve_value;
use model::manifest::variable::absolute_name;
use model::task::{TaskError, TaskKind};
use model::{DeploymentName, ErrorCode, InstanceId, VariableName, VariableSetId};
use serde_json::Value;
use state::State;
use state::log::View;
use state::records::{Variable, VariableSet};

use crate::context::TaskContext;
use crate::error::StepError;
use crate::ports::Vault;

/// What stands in the place of values that a dry run does not generate.
pub type StandIns = BTreeMap<VariableName, Value>;

/// What planning sees of variables.
#[derive(Clone, Copy)]
pub enum Sight<'a> {
    /// The versions that a set has pinned.
    Set(VariableSetId),
    /// The newest ones, and stand-ins for what would be made: it is a dry run.
    DryRun(&'a StandIns),
}

/// Which versions are seen.
enum Versions {
    /// The newest there are. (A dry run has no set.)
    Newest,
    /// Those that a set has pinned, the first one that has decides.
    Pinned { sets: Vec<VariableSet>, missing: Missing },
}

/// What a name means that no set has pinned.
#[derive(Clone, Copy)]
enum Missing {
    /// A deploy pins what it finds, so there was nothing to be found.
    NoSuchVariable,
    /// Other tasks see only what a deploy has seen (540008).
    NeverDeployed,
}

/// Resolves the references of one deployment.
pub struct Resolver {
    view: View,
    vault: Arc<dyn Vault>,
    director: String,
    deployment: DeploymentName,
    versions: Versions,
    /// Values opened so far, by whose name it is and the name: an instance's jobs refer to the same few again and again.
    opened: RefCell<BTreeMap<(Option<DeploymentName>, VariableName), Value>>,
}

impl Resolver {
    /// Makes the resolver for what a task does to an instance.
    pub fn for_instance(task: &TaskContext, instance: &InstanceId) -> Self {
        let view = task.view();
        let sets = State::new(&*view).variable_sets_for(task.id(), instance);
        Self::pinned(task, view, sets)
    }

    /// Makes the resolver for planning, which sees the same for all instances.
    pub fn for_planning(task: &TaskContext, sight: Sight<'_>) -> Self {
        let view = task.view();
        let stand_ins = match sight {
            Sight::DryRun(stand_ins) => stand_ins,
            Sight::Set(set) => {
                let set = State::new(&*view).variable_set(set);
                return Self::pinned(task, view, set.into_iter().collect());
            }
        };
        let resolver = Self::new(task, view, Versions::Newest);
        let values = stand_ins.iter().map(|(name, value)| ((None, name.clone()), value.clone()));
        resolver.opened.borrow_mut().extend(values);
        resolver
    }

    fn pinned(task: &TaskContext, view: View, sets: Vec<VariableSet>) -> Self {
        let missing = match task.task.kind {
            TaskKind::Deploy { .. } => Missing::NoSuchVariable,
            _ => Missing::NeverDeployed,
        };
        Self::new(task, view, Versions::Pinned { sets, missing })
    }

    fn new(task: &TaskContext, view: View, versions: Versions) -> Self {
        Self {
            director: State::new(&*view).cluster().map(|c| c.director_name).unwrap_or_default(),
            deployment: task.task.deployment.clone().unwrap_or_default(),
            vault: task.ports.vault.clone(),
            view,
            versions,
            opened: RefCell::default(),
        }
    }

    /// Returns `value` with every placeholder replaced. All failures are reported together.
    pub fn resolve(&self, value: &Value) -> Result<Value, StepError> {
        resolve_value(value, &|name| self.look_up(None, name)).map_err(StepError::Failed)
    }

    /// Returns a link's content with every placeholder replaced, by values of the deployment that provides it.
    pub fn resolve_link(&self, link: &Value) -> Result<Value, StepError> {
        let provider = provider_of(link).filter(|provider| *provider != self.deployment);
        resolve_value(link, &|name| self.look_up(provider.as_ref(), name)).map_err(StepError::Failed)
    }

    fn look_up(&self, provider: Option<&DeploymentName>, written: &str) -> Checked<Value> {
        let deployment = provider.unwrap_or(&self.deployment);
        let name = VariableName::new(absolute_name(written, &self.director, deployment.as_str())?);
        let key = (provider.cloned(), name);
        if let Some(value) = self.opened.borrow().get(&key) {
            return Ok(value.clone());
        }
        let (provider, name) = &key;
        let variable = self.variable(provider.as_ref(), name)?;
        let told = |e: crate::ports::VaultError| TaskError::plain(e.to_string());
        let value = self.vault.open(name.as_str(), &variable.sealed).map_err(told)?;
        self.opened.borrow_mut().insert(key.clone(), value.clone());
        Ok(value)
    }

    fn variable(&self, provider: Option<&DeploymentName>, name: &VariableName) -> Checked<Variable> {
        let state = State::new(&*self.view);
        let (found, missing) = match &self.versions {
            Versions::Newest => (state.latest_variable(name), Missing::NoSuchVariable),
            Versions::Pinned { sets, missing } => {
                let version = sets.iter().find_map(|set| match provider {
                    None => set.pins.get(name),
                    Some(provider) => set.linked.get(provider)?.get(name),
                });
                (version.and_then(|version| state.variable(name, *version)), *missing)
            }
        };
        found.ok_or_else(|| match missing {
            Missing::NoSuchVariable => TaskError::new(
                ErrorCode::ConfigServerFetchError,
                format!("Failed to find variable '{name}' from config server: HTTP Code '404', Error: 'not found'"),
            ),
            Missing::NeverDeployed => TaskError::new(
                ErrorCode::ConfigServerInconsistentVariableState,
                format!(
                    "Expected variable '{name}' to be already versioned in deployment '{}': no deploy has seen it, so \
                     deploy first",
                    self.deployment
                ),
            ),
        })
    }
}
