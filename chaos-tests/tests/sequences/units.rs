//! Whose a call is: per VM, with its agent and its disks, what was asked about it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::calls::Call;

/// A VM with its agent.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Whose VM it is, `db/0`; none, if nobody has said so.
    pub instance: Option<String>,
    /// What was asked about it, and at which place among all calls.
    pub calls: Vec<(usize, Call)>,
}

/// What calls tell about who is who.
#[derive(Default)]
struct Names {
    agent_of_vm: BTreeMap<String, String>,
    instance_of: BTreeMap<String, String>,
    /// The VM or agent that a disk was last named with.
    place_of_disk: BTreeMap<String, String>,
}

/// Methods whose first argument is a VM.
const OF_VMS: [&str; 6] =
    ["delete_vm", "has_vm", "reboot_vm", "set_vm_metadata", "attach_disk", "detach_disk"];
/// Methods of the CPI whose first argument is a disk.
const OF_DISKS: [&str; 4] = ["delete_disk", "set_disk_metadata", "snapshot_disk", "resize_disk"];
/// Methods of agents whose last argument, or only one, is a disk that it has.
const AGENTS_DISKS: [&str; 5] =
    ["add_persistent_disk", "mount_disk", "unmount_disk", "migrate_disk", "remove_persistent_disk"];

impl Names {
    fn learn(&mut self, call: &Call) {
        let first = call.name(0).unwrap_or_default().to_owned();
        match (call.method.as_str(), &call.agent) {
            ("create_vm", _) => {
                let vm = call.result.get(0).unwrap_or(&call.result).as_str();
                vm.map(|vm| self.agent_of_vm.insert(vm.to_owned(), first.clone()));
            }
            ("set_vm_metadata", _) => {
                if let Some(instance) = instance(&call.arguments[1]["job"], &call.arguments[1]["index"]) {
                    let key = self.key(&first);
                    self.instance_of.insert(key, instance);
                }
            }
            ("get_state", Some(agent)) => {
                let state = &call.reply["value"];
                if let Some(instance) = instance(&state["job"]["name"], &state["index"]) {
                    self.instance_of.insert(agent.clone(), instance);
                }
            }
            _ => {}
        }
        if let Some((disk, place)) = self.disk_and_place(call) {
            self.place_of_disk.insert(disk, place);
        }
    }

    /// Returns a disk that a call names together with a VM or an agent.
    fn disk_and_place(&self, call: &Call) -> Option<(String, String)> {
        let (first, second) = (call.name(0), call.name(1));
        match (call.method.as_str(), &call.agent) {
            ("attach_disk" | "detach_disk", None) => Some((second?.to_owned(), self.key(first?))),
            ("create_disk", None) => Some((call.result.as_str()?.to_owned(), self.key(call.name(2)?))),
            (method, Some(agent)) if AGENTS_DISKS.contains(&method) => {
                Some((first?.to_owned(), agent.clone()))
            }
            _ => None,
        }
    }

    /// Returns the agent of a VM, or the VM itself if its agent is not known.
    fn key(&self, vm: &str) -> String {
        // In recordings both are numbered alike.
        let alike = || vm.strip_prefix("<vm-").map(|number| format!("<agent-{number}"));
        self.agent_of_vm.get(vm).cloned().or_else(alike).unwrap_or_else(|| vm.to_owned())
    }

    /// Returns the unit that a call belongs to; none for one that is about no VM. Whether a disk is there is asked when nobody
    /// has it.
    fn unit_of(&self, call: &Call, later: &[Call]) -> Option<String> {
        if let Some(agent) = &call.agent {
            return Some(agent.clone());
        }
        match call.method.as_str() {
            "create_vm" => call.name(0).map(str::to_owned),
            "create_disk" => call.name(2).map(|vm| self.key(vm)),
            method if OF_VMS.contains(&method) => call.name(0).map(|vm| self.key(vm)),
            method if OF_DISKS.contains(&method) => {
                let disk = call.name(0)?;
                let next = later.iter().find_map(|call| {
                    self.disk_and_place(call).filter(|(named, _)| named == disk).map(|(_, place)| place)
                });
                let own =
                    call.arguments.get(1).and_then(|facts| facts["agent_id"].as_str()).map(str::to_owned);
                own.or_else(|| self.place_of_disk.get(disk).cloned()).or(next)
            }
            _ => None,
        }
    }
}

fn instance(group: &Value, index: &Value) -> Option<String> {
    let group = group.as_str()?;
    let index = index.as_str().map_or_else(|| index.to_string(), str::to_owned);
    Some(if group.starts_with("compilation-") { "compilation".into() } else { format!("{group}/{index}") })
}

/// Sorts calls by VM, in the order in which VMs were first named. `earlier` says who is who.
pub fn of(earlier: &[Call], calls: &[Call]) -> Vec<Unit> {
    let mut names = Names::default();
    earlier.iter().chain(calls).for_each(|call| names.learn(call));
    names.place_of_disk.clear();
    earlier.iter().for_each(|call| names.learn(call));
    let mut units: Vec<(String, Unit)> = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        names.learn(call);
        let Some(key) = names.unit_of(call, &calls[at..]) else { continue };
        let found = units.iter().position(|(known, _)| *known == key);
        let unit = found.unwrap_or_else(|| {
            let instance = names.instance_of.get(&key).cloned();
            units.push((key, Unit { instance, calls: Vec::new() }));
            units.len() - 1
        });
        units[unit].1.calls.push((at, call.clone()));
    }
    joined(units)
}

/// Joins VMs of which nobody has said which agent is theirs with agents of which nobody has said whose they are: the VM that is
/// made next is of the same instance; where none is, they come in the same order. Whoever answers nothing is asked in
/// vain, and not for much.
fn joined(units: Vec<(String, Unit)>) -> Vec<Unit> {
    let is_vm = |key: &str| key.bytes().all(|byte| byte.is_ascii_digit());
    let (strays, others): (Vec<_>, Vec<_>) = units.into_iter().partition(|(key, _)| is_vm(key));
    let mut others: Vec<Unit> = others.into_iter().map(|(_, unit)| unit).collect();
    let in_vain = |call: &Call| ["get_state", "delete_arp_entries"].contains(&call.method.as_str());
    let is_silent = |unit: &Unit| unit.calls.iter().all(|(_, call)| in_vain(call));
    for (at, (_, stray)) in strays.into_iter().enumerate() {
        let made = |unit: &Unit| {
            let after = |(at, call): &&(usize, Call)| *at > stray.calls[0].0 && call.method == "create_vm";
            Some((unit.calls.iter().find(after)?.0, unit.instance.clone()))
        };
        let next = others.iter().filter_map(made).min();
        let home = match &next {
            Some(_) => others.iter().position(|unit| unit.instance.is_none() && is_silent(unit)),
            None => Some(at).filter(|at| *at < others.len()),
        };
        let instance = next.and_then(|(_, instance)| instance);
        match home {
            Some(home) => {
                others[home].instance = instance.or(others[home].instance.take());
                others[home].calls.extend(stray.calls);
                others[home].calls.sort_by_key(|(at, _)| *at);
            }
            None => others.push(Unit { instance, ..stray }),
        }
    }
    others.sort_by_key(|unit| unit.calls[0].0);
    others
}
