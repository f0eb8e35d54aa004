//! Carries a plan out on the world in memory, writing down what agents and the cloud would have been asked.

use std::collections::BTreeMap;

use model::instance::{Disk, Instance, Vm};
use model::ip::Block;
use model::plan::{Plan, Target};
use model::release::CompiledPackage;
use model::step::{Action, DrainKind, VmRole};
use model::task::TaskError;
use model::*;
use scheduler::input::HeldAddress;
use serde_json::{Value, json};

use super::world::World;

/// A line of progress.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub stage: String,
    pub tags: Vec<String>,
    pub total: u32,
    pub task: String,
}

/// What happened.
#[derive(Default)]
pub struct Performed {
    pub events: Vec<Event>,
    /// Requests by agent.
    pub agent_calls: BTreeMap<AgentId, Vec<String>>,
    pub created_vms: Vec<Value>,
    pub snapshots: usize,
    pub error: Option<TaskError>,
    /// Which instance each agent belonged to.
    pub owners: BTreeMap<AgentId, InstanceId>,
}

/// What goes wrong in this step.
#[derive(Default)]
pub struct Faults {
    /// Instances whose jobs do not come up.
    pub failing: Vec<InstanceId>,
    /// Groups for which the cloud has no room.
    pub no_room: Vec<GroupName>,
}

/// Accepts a plan and carries it out.
pub fn perform(world: &mut World, plan: &Plan, faults: &Faults) -> Performed {
    let targets: BTreeMap<&InstanceId, &Target> = plan.targets.iter().map(|t| (&t.spec.id, t)).collect();
    let mut run = Run { world, plan, targets, faults, done: Performed::default() };
    run.accept();
    for phase in &plan.phases {
        for stage in &phase.stages {
            for wave in &stage.waves {
                let mut allowed = wave.units.len();
                for (at, unit) in wave.units.iter().enumerate() {
                    if !unit.cleanup
                        && (at >= allowed || (run.done.error.is_some() && allowed == wave.units.len()))
                    {
                        continue;
                    }
                    if let Some(title) = &stage.title {
                        run.done.events.push(Event {
                            stage: title.clone(),
                            tags: stage.tags.clone(),
                            total: stage.total,
                            task: unit.label.clone(),
                        });
                    }
                    for step in &unit.steps {
                        if let Err(error) = run.step(&step.action) {
                            run.done.error.get_or_insert(error);
                            allowed = allowed.min(at + wave.max_in_flight as usize);
                            break;
                        }
                    }
                }
            }
        }
    }
    run.done
}

struct Run<'a> {
    world: &'a mut World,
    plan: &'a Plan,
    targets: BTreeMap<&'a InstanceId, &'a Target>,
    faults: &'a Faults,
    done: Performed,
}

impl Run<'_> {
    fn accept(&mut self) {
        for target in &self.plan.targets {
            if self.world.instance_mut(&target.spec.id).is_none() {
                self.world.instances.push(Instance {
                    spec: target.spec.clone(),
                    state: target.state,
                    update_completed: false,
                    ignore: false,
                    compilation: target.compilation,
                    variable_set: VariableSetId(0),
                });
            }
        }
        for taken in &self.plan.reservations {
            let owner = self.world.instances.iter().find(|i| i.spec.id == taken.instance).expect("a holder");
            let (holder, deployment) = (owner.slug(), owner.spec.deployment.clone());
            let block = Block::starting(taken.ip, taken.prefix);
            let free = self.world.addresses.iter().all(|a| !Block::starting(a.ip, a.prefix).overlaps(&block));
            assert!(free, "{} is given out twice", taken.ip);
            self.world.addresses.push(HeldAddress {
                ip: taken.ip,
                prefix: taken.prefix,
                network: taken.network.clone(),
                kind: taken.kind,
                instance: Some(taken.instance.clone()),
                holder,
                deployment,
            });
        }
    }

    fn say(&mut self, agent: &AgentId, call: impl Into<String>) {
        self.done.agent_calls.entry(agent.clone()).or_default().push(call.into());
    }

    fn store(&mut self, id: &InstanceId) {
        let target = self.targets[id];
        let instance = self.world.instance_mut(id).expect("accepted");
        instance.spec = target.spec.clone();
        instance.state = target.state;
    }

    fn step(&mut self, action: &Action) -> Result<(), TaskError> {
        if self.vm_step(action)? || self.disk_step(action) || self.record_step(action) {
            return Ok(());
        }
        match action {
            Action::Prepare { agent, .. } => self.say(agent, "prepare"),
            Action::RunScript { agent, script, .. } => {
                self.say(agent, format!("run_script {}", script.file_name()));
            }
            Action::Drain { agent, drain, .. } => {
                let kind = if *drain == DrainKind::Update { "update" } else { "shutdown" };
                self.say(agent, format!("drain {kind}"));
            }
            Action::StopJobs { agent, .. } => self.say(agent, "stop"),
            Action::Apply { instance, agent } => {
                self.say(agent, "apply");
                self.store(instance);
            }
            Action::StartJobs { agent, .. } => self.say(agent, "start"),
            Action::Watch { instance, agent, .. } => {
                self.say(agent, "get_state");
                if self.faults.failing.contains(instance) {
                    let spec = &self.targets[instance].spec;
                    return Err(TaskError::new(
                        ErrorCode::AgentJobNotRunning,
                        format!("'{}/{} ({})' is not running after update.", spec.group, spec.id, spec.index),
                    ));
                }
            }
            Action::CompilePackage { agent, package, .. } => {
                self.say(agent, "compile_package");
                self.world.compiled.push(CompiledPackage {
                    key: package.clone(),
                    build: 1,
                    blob: "b".into(),
                    digest: String::new(),
                    size_bytes: 1,
                });
            }
            other => panic!("the world does not know {}", other.name()),
        }
        Ok(())
    }

    fn vm_step(&mut self, action: &Action) -> Result<bool, TaskError> {
        match action {
            Action::CreateVm { instance, agent, role } => {
                let spec = &self.targets[instance].spec;
                self.done.owners.insert(agent.clone(), instance.clone());
                if self.faults.no_room.contains(&spec.group) {
                    return Err(TaskError::plain("no room for this vm"));
                }
                let disks = self.world.disks.iter().filter(|d| d.instance == *instance && d.active).count();
                self.done.created_vms.push(json!({
                    "cloud_properties": self.world.reveal(&spec.cloud_properties)?,
                    "networks": spec.networks.iter().map(network).collect::<serde_json::Map<_, _>>(),
                    "disks": disks,
                    "env_without_bosh": self.world.reveal(&spec.env)?,
                }));
                self.world.vms.push(Vm {
                    agent: agent.clone(),
                    instance: instance.clone(),
                    cid: Some(format!("vm-of-{agent}").into()),
                    cpi: spec.cpi.clone(),
                    stemcell: spec.stemcell.clone(),
                    cloud_properties: spec.cloud_properties.clone(),
                    env: spec.env.clone(),
                    networks: spec.networks.clone(),
                    created_at: Timestamp(0),
                    active: *role == VmRole::Current,
                    bound: true,
                    variable_set: VariableSetId(0),
                });
            }
            Action::ElectVm { instance, agent, instead_of } => {
                if let Some(old) = instead_of {
                    self.leave(instance, old);
                }
                let vm = self.world.vms.iter_mut().find(|v| v.agent == *agent).expect("a VM to elect");
                vm.active = true;
                let networks = vm.networks.clone();
                self.world.instance_mut(instance).expect("accepted").spec.networks = networks;
                let current = self.world.vms.iter().filter(|v| v.instance == *instance && v.active).count();
                assert_eq!(current, 1, "VMs that {instance} works with");
            }
            Action::DeleteVm { instance, agent } => {
                let before = self.world.vms.len();
                self.world.vms.retain(|v| v.agent != *agent);
                assert!(before > self.world.vms.len() || !self.faults.no_room.is_empty(), "no VM of {agent}");
                self.done.owners.insert(agent.clone(), instance.clone());
            }
            Action::OrphanVm { instance, agent } => self.leave(instance, agent),
            Action::UpdateSettings { agent, .. } => self.say(agent, "update_settings"),
            Action::BindVm { agent, .. } => {
                self.say(agent, "apply");
                self.say(agent, "get_state");
            }
            Action::SetVmMetadata { .. } | Action::AwaitAgent { .. } => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Leaves a VM and its addresses to be deleted later.
    fn leave(&mut self, instance: &InstanceId, agent: &AgentId) {
        let at = self.world.vms.iter().position(|v| v.agent == *agent).expect("a VM to leave");
        let vm = self.world.vms.remove(at);
        let of_vm = |a: &&mut HeldAddress| vm.networks.iter().any(|n| n.ip == Some(a.ip));
        self.world.addresses.iter_mut().filter(of_vm).for_each(|a| a.instance = None);
        self.world.orphaned_vms.push(vm);
        self.done.owners.insert(agent.clone(), instance.clone());
    }

    /// The executor knows no other disks than those of the state.
    fn need_disk(&self, id: &DiskId) {
        assert!(self.world.disks.iter().any(|d| d.id == *id), "disk {id} is not known");
    }

    /// A disk with a name is the instance's one of that name as soon as it is attached.
    fn take_name(&mut self, id: &DiskId) {
        let attached = self.world.disks.iter().find(|d| d.id == *id).expect("a disk").clone();
        let of_name = |d: &&mut Disk| d.instance == attached.instance && d.spec.name == attached.spec.name;
        if !attached.spec.is_mounted() {
            self.world.disks.iter_mut().filter(of_name).for_each(|d| d.active = d.id == *id);
        }
    }

    fn disk_step(&mut self, action: &Action) -> bool {
        match action {
            Action::SnapshotDisk { disk, .. }
            | Action::AttachDisk { disk, .. }
            | Action::SetDiskMetadata { disk, .. }
            | Action::UnmountDisk { disk, .. }
            | Action::DetachDisk { disk, .. }
            | Action::OrphanDisk { disk, .. } => self.need_disk(disk),
            Action::MigrateDisk { from, to, .. } => {
                self.need_disk(from);
                self.need_disk(to);
            }
            _ => {}
        }
        match action {
            Action::CreateDisk { instance, disk, name, .. } => {
                let wanted = self.targets[instance].spec.disk(name.as_ref());
                let spec = wanted.cloned().expect("a disk is wanted");
                self.world.disks.push(Disk {
                    id: disk.clone(),
                    cid: Some(format!("cid-{disk}").into()),
                    instance: instance.clone(),
                    cpi: "".into(),
                    spec,
                    active: false,
                    variable_set: VariableSetId(0),
                });
            }
            Action::SnapshotDisk { .. } => self.done.snapshots += 1,
            Action::AttachDisk { agent, disk, .. } => {
                self.say(agent, "add_persistent_disk");
                self.take_name(disk);
            }
            Action::MountDisk { instance, agent, disk } => {
                self.say(agent, format!("mount_disk {disk}"));
                let is_other = |d: &Disk| d.instance == *instance && d.active && d.spec.is_mounted();
                let other = self.world.disks.iter().any(is_other);
                let mounted = self.world.disks.iter_mut().find(|d| d.id == *disk).expect("a disk");
                mounted.active = mounted.active || !other;
            }
            Action::MigrateDisk { agent, from, to, .. } => {
                self.say(agent, "migrate_disk");
                for disk in &mut self.world.disks {
                    disk.active = (disk.active && disk.id != *from) || disk.id == *to;
                }
            }
            Action::CheckDisks { agent, .. } => self.say(agent, "list_disk"),
            Action::UnmountDisk { agent, disk, .. } => self.say(agent, format!("unmount_disk {disk}")),
            Action::DetachDisk { agent, .. } => self.say(agent, "remove_persistent_disk"),
            Action::OrphanDisk { disk, .. } => self.world.disks.retain(|d| d.id != *disk),
            Action::SetDiskMetadata { .. } => {}
            _ => return false,
        }
        true
    }

    fn record_step(&mut self, action: &Action) -> bool {
        match action {
            Action::BeginUpdate { instance } => {
                self.world.instance_mut(instance).expect("accepted").update_completed = false;
            }
            Action::CompleteUpdate { instance } => {
                self.world.instance_mut(instance).expect("accepted").update_completed = true;
            }
            Action::ReleaseAddresses { instance } => {
                let wanted: Vec<_> =
                    self.targets[instance].spec.networks.iter().filter_map(|n| n.ip).collect();
                let stays = |a: &HeldAddress| a.instance.as_ref() != Some(instance) || wanted.contains(&a.ip);
                self.world.addresses.retain(stays);
            }
            Action::SaveInstance { instance } => self.store(instance),
            Action::DeleteInstance { instance } => {
                self.world.instances.retain(|i| i.spec.id != *instance);
                self.world.addresses.retain(|a| a.instance.as_ref() != Some(instance));
                let vms = self.world.vms.iter().filter(|v| v.instance == *instance).count();
                assert_eq!(vms, 0, "an instance goes away before its VM");
            }
            Action::SaveDeployment if self.done.error.is_none() => {
                let record = self.plan.record.clone().expect("a record");
                self.world.records.insert(record.name.clone(), record);
            }
            Action::SaveDeployment | Action::SaveErrand { .. } => {}
            Action::DeleteDeployment => {
                self.world.records.remove(self.plan.deployment.as_ref().expect("a deployment"));
            }
            _ => return false,
        }
        true
    }
}

/// A network as the CPI is given it, without the address.
fn network(settings: &model::instance::NetworkSettings) -> (String, Value) {
    use model::instance::NetworkKind::{Dynamic, Manual, Vip};
    let mut out = json!({
        "type": match settings.kind { Manual => "manual", Dynamic => "dynamic", Vip => "vip" },
        "prefix": settings.prefix,
        "cloud_properties": settings.cloud_properties,
    });
    if settings.kind != Vip {
        if !settings.defaults.is_empty() {
            out["default"] = json!(settings.defaults);
        }
        if !settings.dns.is_empty() {
            out["dns"] = json!(settings.dns);
        }
    }
    if settings.kind == Manual {
        out["netmask"] = json!(settings.netmask);
        out["gateway"] = json!(settings.gateway);
    }
    (settings.name.to_string(), out)
}
