//! The planner's input, read out of one revision of the state.

use std::collections::BTreeMap;

use model::config::StoredConfig;
use model::instance::{Disk, Instance, Vm};
use model::plan::DeploymentRecord;
use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::task::{DeployOptions, InstanceFilter, StateChange};
use model::{DeploymentName, InstanceId, VariableName, VariableSetId};
use rand::Rng as _;
use scheduler::input::{
    AgentObservation, DeploymentFacts, Director, HeldAddress, PlanInput, Seed, VariableFacts,
};
use state::State;

use super::observe;
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::variables::references;

/// Owned facts; the planner borrows from them.
pub struct Facts {
    /// The director.
    pub director: Director,
    /// Whether the deployment exists.
    pub exists: bool,
    /// Releases in the director.
    pub releases: Vec<ReleaseVersion>,
    name: DeploymentName,
    generation: u64,
    record: Option<DeploymentRecord>,
    instances: Vec<Instance>,
    vms: Vec<Vm>,
    disks: Vec<Disk>,
    agents: BTreeMap<InstanceId, AgentObservation>,
    seed: Seed,
    configs: Vec<StoredConfig>,
    addresses: Vec<HeldAddress>,
    stemcells: Vec<StemcellRecord>,
    compiled: Vec<CompiledPackage>,
    others: Vec<DeploymentRecord>,
    variables: VariableFacts,
}

impl Facts {
    /// Reads everything that a task of this deployment may be planned from.
    pub fn read(context: &TaskContext) -> Self {
        let view = context.view();
        let state = State::new(&*view);
        let name = context.task.deployment.clone().unwrap_or_default();
        let deployment = state.deployment(&name);
        let instances = state.instances(&name);
        let disks = instances.iter().flat_map(|i| state.disks(&i.spec.id)).collect();
        let cluster = state.cluster();
        let director = Director {
            name: cluster.as_ref().map(|c| c.director_name.clone()).unwrap_or_default(),
            uuid: cluster.map(|c| c.director_uuid).unwrap_or_default(),
            threads_max: context.ports.options.threads_max as u32,
            ..Director::default()
        };
        let others = state.deployments().into_iter().filter(|d| d.name != name).filter_map(|d| d.record);
        Self {
            director,
            exists: deployment.is_some(),
            releases: state.releases(),
            generation: deployment.as_ref().map_or(0, |d| d.generation),
            record: deployment.and_then(|d| d.record),
            vms: state.deployment_vms(&name),
            instances,
            disks,
            agents: BTreeMap::new(),
            seed: Seed(rand::rng().random()),
            configs: state.latest_configs(),
            addresses: held(&state),
            stemcells: state.stemcells(),
            compiled: state.compiled_packages(),
            others: others.collect(),
            variables: VariableFacts { available: true, ..VariableFacts::default() },
            name,
        }
    }

    /// Asks the agents.
    pub async fn observe(&mut self, context: &TaskContext) -> Result<(), Interrupted> {
        self.agents = observe::observe(context, &self.instances, &self.vms).await?;
        Ok(())
    }

    /// Returns whether an instance should have a living VM and has none.
    pub fn needs_vm(&self, id: &InstanceId) -> bool {
        let wanted = self.instances.iter().any(|i| i.spec.id == *id && i.expects_vm() && !i.ignore);
        let has_vm = self.vms.iter().any(|vm| vm.instance == *id && vm.is_current());
        let answered = matches!(self.agents.get(id), Some(AgentObservation::Answered { .. }));
        wanted && !(has_vm && answered)
    }

    /// Opens the values that the manifest refers to where they are needed at planning time.
    pub fn set_variables(&mut self, context: &TaskContext, set: VariableSetId, manifest_text: &str) {
        let view = context.view();
        let state = State::new(&*view);
        let pins = state.variable_set(set).map(|set| set.pins).unwrap_or_default();
        let texts = self.configs.iter().map(|c| c.content.as_str()).chain([manifest_text]);
        let mut values = BTreeMap::new();
        for name in texts.flat_map(references) {
            let name = match name.starts_with('/') {
                true => VariableName::new(name),
                false => VariableName::new(format!("/{}/{}/{name}", self.director.name, self.name)),
            };
            let variable = match pins.get(&name) {
                Some(version) => state.variable(&name, *version),
                None => state.latest_variable(&name),
            };
            let opened = variable.and_then(|v| context.ports.vault.open(name.as_str(), &v.sealed).ok());
            if let Some(value) = opened {
                values.insert(name, value);
            }
        }
        self.variables = VariableFacts { available: true, values, set, ..VariableFacts::default() };
    }

    /// Borrows the deployment.
    pub fn deployment(&self) -> DeploymentFacts<'_> {
        DeploymentFacts {
            name: &self.name,
            generation: self.generation,
            record: self.record.as_ref(),
            instances: &self.instances,
            vms: &self.vms,
            disks: &self.disks,
            agents: &self.agents,
            seed: self.seed,
        }
    }

    /// Borrows everything.
    pub fn plan_input<'a>(
        &'a self,
        manifest_text: &'a str,
        options: &'a DeployOptions,
        change: Option<(StateChange, &'a InstanceFilter)>,
    ) -> PlanInput<'a> {
        PlanInput {
            director: &self.director,
            deployment: self.deployment(),
            manifest_text,
            options,
            change,
            configs: &self.configs,
            addresses: &self.addresses,
            releases: &self.releases,
            stemcells: &self.stemcells,
            compiled: &self.compiled,
            others: &self.others,
            teams: &[],
            variables: &self.variables,
        }
    }
}

fn held(state: &State<'_>) -> Vec<HeldAddress> {
    let held = |a: state::records::AddressRecord| HeldAddress {
        ip: a.ip,
        network: a.network,
        kind: a.kind,
        instance: Some(a.instance),
        holder: a.slug,
        deployment: a.deployment,
    };
    state.addresses().into_iter().map(held).collect()
}
