//! The planner's input, read out of one revision of the state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use model::config::StoredConfig;
use model::dns::DnsSubject;
use model::instance::{Disk, Instance, Vm};
use model::managed_network::ManagedNetwork;
use model::manifest::variable::absolute_name;
use model::plan::DeploymentRecord;
use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::task::{DeployOptions, TaskError, TaskKind};
use model::{AgentId, DeploymentName, InstanceId, VariableName, VariableSetId};
use rand::Rng as _;
use scheduler::input::{
    AgentObservation, DeploymentFacts, Director, HeldAddress, PlanInput, Seed, StateChangeRequest,
    VariableFacts, VmProperties,
};
use sha2::{Digest as _, Sha256};
use state::State;
use state::command::Command;
use state::log::Proposal;

use super::{observe, sizes};
use crate::context::TaskContext;
use crate::dns::{DOMAIN, NUMBERED_MAX};
use crate::error::Interrupted;
use crate::networks;
use crate::variables::{self, Sight, references};

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
    silent_spares: BTreeSet<AgentId>,
    seed: Seed,
    configs: Vec<StoredConfig>,
    addresses: Vec<HeldAddress>,
    stemcells: Vec<StemcellRecord>,
    compiled: Vec<CompiledPackage>,
    others: Vec<DeploymentRecord>,
    variables: VariableFacts,
    vm_properties: VmProperties,
    dns_numbers: BTreeMap<DnsSubject, u32>,
    /// None if directors make none.
    managed_networks: Option<Vec<ManagedNetwork>>,
    /// Versions whose values the documents are read with.
    seen: BTreeMap<VariableName, u64>,
}

/// What an operator wants of a deployment.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// The manifest.
    pub manifest_text: &'a str,
    /// How to go about it.
    pub options: &'a DeployOptions,
    /// Other states for some instances.
    pub change: Option<&'a StateChangeRequest<'a>>,
}

/// Returns what is deployed with: the newest version of each config, or the versions of which somebody saw what they would
/// do. Those hold also if they were replaced or deleted since.
fn configs(state: &State<'_>, kind: &TaskKind) -> Vec<StoredConfig> {
    let latest = state.latest_configs();
    let TaskKind::Deploy { options: DeployOptions { configs: Some(pinned), .. }, .. } = kind else {
        return latest;
    };
    let pinned = pinned.iter().filter_map(|id| state.config(*id));
    let pinned = pinned.map(|config| StoredConfig { deleted: false, ..config });
    let others = latest.into_iter().filter(|config| !["cloud", "runtime"].contains(&config.kind.as_str()));
    pinned.chain(others).collect()
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
            addresses: own_addresses(&state),
            local_dns: context.ports.options.local_dns,
            dns_domain: DOMAIN.into(),
            ..Director::default()
        };
        let others = state.deployments().into_iter().filter(|d| d.name != name).filter_map(|d| d.record);
        Self {
            director,
            exists: deployment.is_some(),
            releases: state.releases(),
            vm_properties: VmProperties::new(),
            dns_numbers: state.dns_numbers(&name).into_iter().collect(),
            generation: deployment.as_ref().map_or(0, |d| d.generation),
            record: deployment.and_then(|d| d.record),
            vms: state.deployment_vms(&name),
            instances,
            disks,
            agents: BTreeMap::new(),
            silent_spares: BTreeSet::new(),
            seed: Seed(rand::rng().random()),
            configs: configs(&state, &context.task.kind),
            addresses: held(&state),
            stemcells: state.stemcells().into_iter().filter(|s| !s.retired).collect(),
            compiled: state.compiled_packages(),
            others: others.collect(),
            variables: VariableFacts { available: true, ..VariableFacts::default() },
            managed_networks: state.makes_networks().then(|| state.networks()),
            seen: BTreeMap::new(),
            name,
        }
    }

    /// Asks the agents.
    pub async fn observe(&mut self, context: &TaskContext) -> Result<(), Interrupted> {
        self.agents = observe::observe(context, &self.instances, &self.vms).await?;
        self.silent_spares = observe::silent_spares(context, &self.vms).await?;
        Ok(())
    }

    /// Asks the agent of one instance: what is wanted of it must not wait for the others.
    pub async fn observe_one(&mut self, context: &TaskContext, id: &InstanceId) -> Result<(), Interrupted> {
        let one = self.instances.iter().find(|instance| instance.spec.id == *id);
        self.agents =
            observe::observe(context, one.map(std::slice::from_ref).unwrap_or_default(), &self.vms).await?;
        Ok(())
    }

    /// Returns the deployment's instances.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// Returns their disks.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// Returns the VM that an instance works with.
    pub fn current_vm(&self, id: &InstanceId) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.instance == *id && vm.is_current())
    }

    /// Returns what an instance's agent said, if it was asked.
    pub fn observed(&self, id: &InstanceId) -> Option<&AgentObservation> {
        self.agents.get(id)
    }

    /// Opens the values that the documents refer to: some are needed to read them.
    pub fn set_variables(&mut self, context: &TaskContext, set: VariableSetId, manifest_text: &str) {
        let view = context.view();
        let state = State::new(&*view);
        let pins = state.variable_set(set).map(|set| set.pins).unwrap_or_default();
        let texts = self.configs.iter().map(|c| c.content.as_str()).chain([manifest_text]);
        let (mut values, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for written in texts.flat_map(references) {
            let name = absolute_name(written, &self.director.name, self.name.as_str());
            let Ok(name) = name.map(VariableName::new) else { continue };
            let variable = match pins.get(&name) {
                Some(version) => state.variable(&name, *version),
                None => state.latest_variable(&name),
            };
            let Some(variable) = variable else { continue };
            if let Ok(value) = context.ports.vault.open(name.as_str(), &variable.sealed) {
                values.insert(name.clone(), value);
                seen.insert(name, variable.version);
            }
        }
        self.seen = seen;
        self.variables = VariableFacts { available: true, values, set, ..VariableFacts::default() };
    }

    /// Returns the versions whose values the documents were read with.
    pub fn seen(&self) -> &BTreeMap<VariableName, u64> {
        &self.seen
    }

    /// Finds out which secrets VMs and disks were made with and are not those of this deploy.
    pub fn note_rotations(&mut self, context: &TaskContext, sight: Sight<'_>) {
        let vms = self.vms.iter().map(|vm| vm.variable_set);
        let before = vms.chain(self.disks.iter().map(|disk| disk.variable_set)).collect();
        self.variables.rotated = variables::rotated(context, &before, sight);
    }

    /// Returns the digest of what an errand last ran well on.
    pub fn last_run_of(&self, context: &TaskContext, errand: &str) -> Option<String> {
        let view = context.view();
        State::new(&*view).errand(&self.name, errand)
    }

    /// Returns a digest over the versions of the variables that the deployment last succeeded with.
    pub fn versions_of_variables(&self, context: &TaskContext) -> String {
        let view = context.view();
        let set = self.record.as_ref().and_then(|r| State::new(&*view).variable_set(r.variable_set));
        let mut digest = Sha256::new();
        for (name, version) in set.map(|set| set.pins).unwrap_or_default() {
            digest.update(format!("{name} {version}\n"));
        }
        hex::encode(digest.finalize())
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
            silent_spares: &self.silent_spares,
            seed: self.seed,
        }
    }

    /// Takes configs and versions of variables from the last success instead of the newest; returns its variable set.
    pub fn take_back_to_last_success(&mut self, context: &TaskContext, manifest_text: &str) -> VariableSetId {
        let view = context.view();
        let state = State::new(&*view);
        let record = self.record.as_ref();
        self.configs = record.iter().flat_map(|r| &r.configs).filter_map(|id| state.config(*id)).collect();
        // They counted then, whatever became of them since.
        self.configs.iter_mut().for_each(|config| config.deleted = false);
        let set = record.map(|r| r.variable_set).unwrap_or_default();
        self.set_variables(context, set, manifest_text);
        set
    }

    /// Asks clouds what VMs of the sizes need that are wanted. The inner error is a document's or a cloud's.
    pub async fn ask_for_sizes(
        &mut self,
        context: &TaskContext,
        wish: Wish<'_>,
    ) -> Result<Result<(), TaskError>, Interrupted> {
        let wanted = match scheduler::vm_sizes(&self.plan_input(wish)) {
            Ok(wanted) => wanted,
            Err(error) => return Ok(Err(error)),
        };
        Ok(sizes::ask(context, &wanted).await?.map(|properties| self.vm_properties = properties))
    }

    /// Sees to it that the networks are there that the deployment uses and that directors make.
    pub async fn settle_networks(
        &mut self,
        context: &TaskContext,
        wish: Wish<'_>,
    ) -> Result<Result<(), TaskError>, Interrupted> {
        let wanted = match scheduler::managed_networks(&self.plan_input(wish)) {
            Ok(wanted) if wanted.is_empty() => return Ok(Ok(())),
            Ok(wanted) => wanted,
            Err(error) => return Ok(Err(error)),
        };
        let settled = networks::settle(context, &wanted).await?;
        let view = context.view();
        self.managed_networks = Some(State::new(&*view).networks());
        Ok(settled)
    }

    /// Sees to it that what short names tell has numbers. A dry run, which leaves nothing behind, is told those that would be next.
    pub async fn number(
        &mut self,
        context: &TaskContext,
        subjects: &[DnsSubject],
        is_dry_run: bool,
    ) -> Result<Result<(), TaskError>, Interrupted> {
        if is_dry_run {
            let view = context.view();
            self.dns_numbers.extend(State::new(&*view).dns_numbers_if_next(subjects));
            return Ok(Ok(()));
        }
        if !context.knows_second_level() {
            let text = "short DNS names can't be used until all members of the fleet are of this version";
            return Ok(Err(TaskError::plain(text)));
        }
        let epoch = context.fence.epoch();
        for subjects in subjects.chunks(NUMBERED_MAX) {
            let number = Command::DnsNumber { epoch, subjects: subjects.to_vec() };
            context.propose(Proposal::own(number)).await??;
        }
        let view = context.view();
        self.dns_numbers = State::new(&*view).dns_numbers(&self.name).into_iter().collect();
        Ok(Ok(()))
    }

    /// Borrows everything.
    pub fn plan_input<'a>(&'a self, wish: Wish<'a>) -> PlanInput<'a> {
        PlanInput {
            director: &self.director,
            deployment: self.deployment(),
            manifest_text: wish.manifest_text,
            options: wish.options,
            change: wish.change,
            configs: &self.configs,
            addresses: &self.addresses,
            releases: &self.releases,
            stemcells: &self.stemcells,
            compiled: &self.compiled,
            others: &self.others,
            variables: &self.variables,
            vm_properties: &self.vm_properties,
            dns_numbers: &self.dns_numbers,
            managed_networks: self.managed_networks.as_deref(),
        }
    }
}

/// Returns the addresses that directors listen on, as far as they are given as addresses.
fn own_addresses(state: &State<'_>) -> Vec<IpAddr> {
    let texts = |m: state::records::Member| [m.api_address, m.peer_address, m.agent_address];
    let parse = |text: String| text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let found: BTreeSet<IpAddr> = state.members().into_iter().flat_map(texts).filter_map(parse).collect();
    found.into_iter().collect()
}

fn held(state: &State<'_>) -> Vec<HeldAddress> {
    let held = |a: state::records::AddressRecord| HeldAddress {
        ip: a.ip,
        prefix: a.prefix,
        network: a.network,
        kind: a.kind,
        instance: a.orphan.is_none().then_some(a.instance),
        holder: a.slug,
        deployment: a.deployment,
    };
    state.addresses().into_iter().map(held).collect()
}
