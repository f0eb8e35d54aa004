//! A world in memory: what the director's state and the cloud would hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::config::StoredConfig;
use model::dns::DnsSubject;
use model::instance::{Disk, Instance, Vm};
use model::managed_network::ManagedNetwork;
use model::plan::{DeploymentRecord, Plan};
use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::task::DeployOptions;
use model::*;
use scheduler::input::{
    AgentObservation, DeploymentFacts, Director, HeldAddress, PlanInput, Seed, VariableFacts, VmProperties,
};
use serde_json::Value;

/// Everything there is.
#[derive(Clone)]
pub struct World {
    pub director: Director,
    pub instances: Vec<Instance>,
    pub vms: Vec<Vm>,
    /// Agents in VMs made ahead which do not answer.
    pub silent_spares: BTreeSet<AgentId>,
    pub orphaned_vms: Vec<Vm>,
    pub disks: Vec<Disk>,
    pub addresses: Vec<HeldAddress>,
    pub records: BTreeMap<DeploymentName, DeploymentRecord>,
    pub configs: Vec<StoredConfig>,
    pub compiled: Vec<CompiledPackage>,
    pub releases: Vec<ReleaseVersion>,
    pub stemcells: Vec<StemcellRecord>,
    pub variables: VariableFacts,
    pub vm_properties: VmProperties,
    /// None: numbers are given as they are needed.
    pub dns_numbers: BTreeMap<DnsSubject, u32>,
    /// None: directors make no networks.
    pub managed_networks: Option<Vec<ManagedNetwork>>,
    pub seed: u8,
}

/// One deployment's share of the world, for planning.
pub struct View {
    pub name: DeploymentName,
    pub record: Option<DeploymentRecord>,
    pub instances: Vec<Instance>,
    pub vms: Vec<Vm>,
    pub disks: Vec<Disk>,
    pub agents: BTreeMap<InstanceId, AgentObservation>,
    pub silent_spares: BTreeSet<AgentId>,
    pub others: Vec<DeploymentRecord>,
    pub seed: Seed,
}

impl World {
    pub fn new() -> Self {
        Self {
            director: Director {
                name: "TestDirector".into(),
                uuid: "deadbeef".into(),
                ..Director::default()
            },
            instances: Vec::new(),
            vms: Vec::new(),
            silent_spares: BTreeSet::new(),
            orphaned_vms: Vec::new(),
            disks: Vec::new(),
            addresses: Vec::new(),
            records: BTreeMap::new(),
            configs: Vec::new(),
            compiled: Vec::new(),
            releases: super::fixture::releases(),
            stemcells: super::fixture::stemcells(),
            variables: VariableFacts::default(),
            vm_properties: VmProperties::new(),
            dns_numbers: BTreeMap::new(),
            managed_networks: None,
            seed: 0,
        }
    }

    /// Adds the snapshots that a director takes which is to take some, as that of the recordings was.
    pub fn with_snapshots(&self, plan: Plan) -> Plan {
        let current = self.disks.iter().filter(|disk| disk.active);
        let mut disks = scheduler::CurrentDisks::new();
        for disk in current {
            disks.entry(disk.instance.clone()).or_default().push(disk.id.clone());
        }
        scheduler::with_snapshots(plan, &disks, Seed([self.seed; 32]))
    }

    /// Stores a new version of a config.
    pub fn put_config(&mut self, kind: &str, name: &str, content: String) {
        self.configs.retain(|c| (c.kind.as_str(), c.name.as_str()) != (kind, name));
        self.configs.push(StoredConfig {
            id: ConfigId(self.configs.len() as u64),
            kind: kind.into(),
            name: name.into(),
            content,
            team: None,
            created_at: Timestamp(0),
            deleted: false,
        });
    }

    /// Reads one deployment; the agents of `failing` instances say so.
    pub fn view(&mut self, name: &DeploymentName, failing: &[InstanceId]) -> View {
        self.seed += 1;
        let instances: Vec<Instance> =
            self.instances.iter().filter(|i| i.spec.deployment == *name).cloned().collect();
        let mine = |id: &InstanceId| instances.iter().any(|i| i.spec.id == *id);
        let vms: Vec<Vm> = self.vms.iter().filter(|v| mine(&v.instance)).cloned().collect();
        let observe = |vm: &Vm| {
            let owner = instances.iter().find(|i| i.spec.id == vm.instance).unwrap();
            let state = match () {
                () if failing.contains(&vm.instance) => "failing",
                () if owner.state == instance::InstanceState::Started => "running",
                () => "stopped",
            };
            (vm.instance.clone(), AgentObservation::Answered { job_state: state.into() })
        };
        View {
            name: name.clone(),
            record: self.records.get(name).cloned(),
            agents: vms.iter().filter(|vm| vm.is_current()).map(observe).collect(),
            silent_spares: self.silent_spares.clone(),
            vms,
            disks: self.disks.iter().filter(|d| mine(&d.instance)).cloned().collect(),
            others: self.records.values().filter(|r| r.name != *name).cloned().collect(),
            seed: Seed([self.seed; 32]),
            instances,
        }
    }

    /// Resolves placeholders, as the executor does at the moment of use.
    pub fn reveal(&self, value: &Value) -> Result<Value, task::TaskError> {
        let map = value.as_object().expect("a mapping");
        let lookup = |name: &str| {
            let absolute = manifest::variable::absolute_name(name, &self.director.name, "p")?;
            let found = self.variables.values.get(absolute.as_str()).cloned();
            found.ok_or_else(|| self.unrevealed(&absolute))
        };
        interpolate::resolve(map, &[], &lookup).map(Value::Object)
    }

    fn unrevealed(&self, name: &str) -> task::TaskError {
        match self.variables.available {
            true => panic!("no value for {name} was recorded"),
            false => task::TaskError::new(
                ErrorCode::ConfigServerDisabledError,
                format!(
                    "Failed to fetch variable '{name}' from config server: Director is not configured with a config server"
                ),
            ),
        }
    }

    /// Replaces the placeholders whose values are known, in what templates print.
    pub fn reveal_known(&self, value: &Value, deployment: &DeploymentName) -> Value {
        match value {
            Value::String(text) => self.reveal_text(text, deployment),
            Value::Array(items) => items.iter().map(|item| self.reveal_known(item, deployment)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, item)| (key.clone(), self.reveal_known(item, deployment))).collect()
            }
            other => other.clone(),
        }
    }

    fn reveal_text(&self, text: &str, deployment: &DeploymentName) -> Value {
        let mut out = text.to_owned();
        for placeholder in interpolate::placeholders(text) {
            let (name, keys) = interpolate::split_keys(placeholder);
            let absolute = manifest::variable::absolute_name(name, &self.director.name, deployment.as_str());
            let value = absolute.ok().and_then(|name| self.variables.values.get(name.as_str()));
            let value = value.and_then(|value| keys.iter().try_fold(value, |value, key| value.get(*key)));
            match value {
                Some(whole) if text == format!("(({placeholder}))") => return whole.clone(),
                Some(Value::String(part)) => out = out.replace(&format!("(({placeholder}))"), part),
                _ => {}
            }
        }
        Value::String(out)
    }

    /// Stores a secret; instances that were updated with another value will see that it was rotated.
    pub fn put_secret(&mut self, name: &str, value: Value) {
        let before = self.variables.values.insert(name.into(), value.clone());
        if before.is_some_and(|before| before != value) {
            self.variables.rotated.entry(VariableSetId(0)).or_default().insert(name.into());
        }
    }

    /// Takes an address for somebody outside the scenario.
    pub fn hold(&mut self, ip: IpAddr) {
        self.addresses.push(HeldAddress {
            ip,
            prefix: None,
            network: "a".into(),
            kind: instance::AddressKind::Automatic,
            instance: None,
            holder: "somebody".into(),
            deployment: "elsewhere".into(),
        });
    }

    /// Gives an instance another UUID, wherever it is mentioned.
    pub fn rename(&mut self, old: &InstanceId, new: &InstanceId) {
        fn replace<T: serde::Serialize + serde::de::DeserializeOwned>(value: &mut T, old: &str, new: &str) {
            let text = serde_json::to_string(value).unwrap();
            if text.contains(old) {
                *value = serde_json::from_str(&text.replace(old, new)).unwrap();
            }
        }
        let (old, new) = (old.as_str(), new.as_str());
        self.instances.iter_mut().for_each(|i| replace(i, old, new));
        self.vms.iter_mut().for_each(|v| replace(v, old, new));
        self.disks.iter_mut().for_each(|d| replace(d, old, new));
        self.records.values_mut().for_each(|r| replace(r, old, new));
        for address in &mut self.addresses {
            replace(&mut address.instance, old, new);
            address.holder = address.holder.replace(old, new);
        }
    }

    pub fn instance_mut(&mut self, id: &InstanceId) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|i| i.spec.id == *id)
    }
}

impl View {
    /// Puts together what a deploy is planned from.
    pub fn input<'a>(
        &'a self,
        world: &'a World,
        manifest_text: &'a str,
        options: &'a DeployOptions,
    ) -> PlanInput<'a> {
        PlanInput {
            director: &world.director,
            deployment: self.facts(),
            manifest_text,
            options,
            change: None,
            configs: &world.configs,
            addresses: &world.addresses,
            releases: &world.releases,
            stemcells: &world.stemcells,
            compiled: &world.compiled,
            others: &self.others,
            variables: &world.variables,
            vm_properties: &world.vm_properties,
            dns_numbers: &world.dns_numbers,
            managed_networks: world.managed_networks.as_deref(),
        }
    }

    pub fn facts(&self) -> DeploymentFacts<'_> {
        DeploymentFacts {
            name: &self.name,
            generation: 1,
            record: self.record.as_ref(),
            instances: &self.instances,
            vms: &self.vms,
            disks: &self.disks,
            agents: &self.agents,
            silent_spares: &self.silent_spares,
            seed: self.seed,
        }
    }
}
