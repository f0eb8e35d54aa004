//! A world in memory: what the director's state and the cloud would hold.

use std::collections::BTreeMap;

use model::config::StoredConfig;
use model::instance::{Disk, Instance, Vm};
use model::plan::DeploymentRecord;
use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::*;
use scheduler::input::{AgentObservation, DeploymentFacts, Director, HeldAddress, Seed, VariableFacts};

/// Everything there is.
pub struct World {
    pub director: Director,
    pub instances: Vec<Instance>,
    pub vms: Vec<Vm>,
    pub disks: Vec<Disk>,
    pub addresses: Vec<HeldAddress>,
    pub records: BTreeMap<DeploymentName, DeploymentRecord>,
    pub configs: Vec<StoredConfig>,
    pub compiled: Vec<CompiledPackage>,
    pub releases: Vec<ReleaseVersion>,
    pub stemcells: Vec<StemcellRecord>,
    pub variables: VariableFacts,
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
            disks: Vec::new(),
            addresses: Vec::new(),
            records: BTreeMap::new(),
            configs: Vec::new(),
            compiled: Vec::new(),
            releases: super::fixture::releases(),
            stemcells: super::fixture::stemcells(),
            variables: VariableFacts::default(),
            seed: 0,
        }
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
            agents: vms.iter().map(observe).collect(),
            vms,
            disks: self.disks.iter().filter(|d| mine(&d.instance)).cloned().collect(),
            others: self.records.values().filter(|r| r.name != *name).cloned().collect(),
            seed: Seed([self.seed; 32]),
            instances,
        }
    }

    /// Resolves placeholders, as the executor does at the moment of use.
    pub fn reveal(&self, value: &serde_json::Value) -> serde_json::Value {
        let map = value.as_object().expect("a mapping");
        let lookup = |name: &str| {
            let absolute = manifest::variable::absolute_name(name, &self.director.name, "p")?;
            let found = self.variables.values.get(absolute.as_str()).cloned();
            found.ok_or_else(|| task::TaskError::plain(format!("no value for {absolute}")))
        };
        serde_json::Value::Object(interpolate::resolve(map, &[], &lookup).expect("all values are known"))
    }

    /// Stores a secret; instances that were updated with another value will see that it was rotated.
    pub fn put_secret(&mut self, name: &str, value: &str) {
        if self.variables.values.insert(name.into(), value.into()).is_some() {
            self.variables.rotated.entry(VariableSetId(0)).or_default().insert(name.into());
        }
    }

    /// Takes an address for somebody outside the scenario.
    pub fn hold(&mut self, ip: &str) {
        self.addresses.push(HeldAddress {
            ip: ip.parse().unwrap(),
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
    pub fn facts(&self) -> DeploymentFacts<'_> {
        DeploymentFacts {
            name: &self.name,
            generation: 1,
            record: self.record.as_ref(),
            instances: &self.instances,
            vms: &self.vms,
            disks: &self.disks,
            agents: &self.agents,
            seed: self.seed,
        }
    }
}
