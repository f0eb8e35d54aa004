//! What a recording shows of the director that it was made on: its settings, its config server, what went wrong.
//!
//! Nothing here knows a scenario's name, so that any folder of recordings can be judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::cloud_config::{CloudConfig, VmResources};
use model::instance::Instance;
use model::interpolate::{self, MANIFEST_LATER, placeholders};
use model::manifest::variable::absolute_name;
use model::*;
use serde_json::Value;

use super::compare::{list, text};
use super::perform::Faults;
use super::world::World;

/// Returns whether agents got local DNS records.
pub fn has_local_dns(steps: &[Value]) -> bool {
    steps.iter().any(|s| !s["outcome"]["dns_records"].is_null())
}

/// Returns whether there was a config server.
pub fn has_config_server(steps: &[Value]) -> bool {
    steps.iter().any(|s| !s["outcome"]["config_server_calls"].is_null())
}

/// Returns addresses that somebody outside the scenario held: the reference takes the lowest that is free, so whatever
/// it passed over in the first deploy was not.
pub fn held_by_others(steps: &[Value]) -> Vec<IpAddr> {
    let Some(first) = steps.iter().find(|s| !s["manifest"].is_null()) else { return Vec::new() };
    let config = steps.iter().find_map(|s| s["cloud_config"].as_object());
    let Some(Ok(cloud)) = config.map(|config| CloudConfig::parse(config, &[])) else { return Vec::new() };
    let rows = list(&first["outcome"]["instances"]).iter();
    let taken: BTreeSet<IpAddr> =
        rows.flat_map(|row| list(&row["ips"])).filter_map(|ip| text(ip).parse().ok()).collect();
    let mut held = Vec::new();
    for subnet in cloud.networks.iter().flat_map(|n| &n.subnets) {
        let Some((range, _)) = subnet.range else { continue };
        let picked = |ip: &IpAddr| !subnet.is_reserved(*ip) && !subnet.is_static(*ip);
        let Some(last) = taken.iter().rfind(|ip| range.contains(**ip) && picked(ip)) else { continue };
        held.extend(
            range.addresses().take_while(|ip| ip < last).filter(|ip| picked(ip) && !taken.contains(ip)),
        );
    }
    held
}

/// Returns what a cloud was asked about sizes in a step, and what it said.
pub fn sizes(step: &Value) -> Vec<(VmResources, Value)> {
    let calls = list(&step["outcome"]["cpi_calls"]).iter();
    let calls = calls.filter(|c| c["method"] == "calculate_vm_cloud_properties");
    calls
        .map(|call| {
            let size = |key: &str| call["arguments"][0][key].as_u64().unwrap();
            let resources = VmResources {
                cpu: u32::try_from(size("cpu")).unwrap(),
                ram_mib: size("ram"),
                ephemeral_disk_mib: size("ephemeral_disk_size"),
            };
            (resources, call["result"].clone())
        })
        .collect()
}

/// Returns what the variables' values were in a step, as far as it shows them: in what the cloud was told, in what was
/// rendered, or in the complaint about a value. `cloud_config` is the one that it was planned with.
pub fn secrets(
    steps: &[Value],
    at: usize,
    cloud_config: &Value,
    deployment: &str,
) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let step = &steps[at];
    let manifest = &step["manifest"];
    let groups = || list(&manifest["instance_groups"]).iter();
    for call in list(&step["outcome"]["cpi_calls"]).iter().filter(|c| c["method"] == "create_vm") {
        groups().for_each(|group| read_off(&group["env"], &call["env_without_bosh"], &mut found));
        for kind in ["azs", "vm_types", "vm_extensions"] {
            for item in list(&cloud_config[kind]) {
                read_off(&item["cloud_properties"], &call["cloud_properties"], &mut found);
            }
        }
    }
    for shown in list(&step["outcome"]["rendered"]).iter().map(|r| &r["files"]["dump/config/spec.json"]) {
        for job in groups().flat_map(|g| list(&g["jobs"])).filter(|j| j["name"] == "dump") {
            read_off(&job["properties"]["a"], &shown["a"], &mut found);
            read_off(&job["properties"]["b"]["c"], &shown["b.c"], &mut found);
        }
    }
    if let Some(document) = manifest.as_object() {
        for name in interpolate::names(document, MANIFEST_LATER) {
            if let Some(value) = found.get(&name).cloned().or_else(|| made_up(steps, at)) {
                found.insert(name, value);
            }
        }
    }
    for call in list(&step["outcome"]["config_server_calls"]).iter().filter(|c| c["made_new"] == true) {
        // It is new; nothing shows what it is.
        let name = text(&call["body"]["name"]);
        let relative = name.strip_prefix(&format!("/TestDirector/{deployment}/")).unwrap_or(&name);
        found.entry(relative.to_owned()).or_insert_with(|| format!("made in step {at}").into());
    }
    let absolute = |name: String| absolute_name(&name, "TestDirector", deployment).unwrap();
    found.into_iter().map(|(name, value)| (absolute(name), value)).collect()
}

/// Where a document has a whole placeholder, what came of it has the value.
fn read_off(document: &Value, shown: &Value, found: &mut BTreeMap<String, Value>) {
    match (document, shown) {
        (_, Value::Null) => {}
        (Value::String(text), value) => {
            if let [name] = placeholders(text).collect::<Vec<_>>()[..]
                && (*text == format!("(({name}))") || *text == format!("((!{name}))"))
                && !name.contains('.')
            {
                found.insert(name.to_owned(), value.clone());
            }
        }
        (Value::Object(map), Value::Object(_)) => {
            map.iter().for_each(|(key, item)| read_off(item, &shown[key], found));
        }
        _ => {}
    }
}

/// The stand-in for a config server makes up passwords that say what they are. One that a manifest was read with shows
/// in what came of it; all of a scenario agree where only one was ever made.
fn made_up(steps: &[Value], at: usize) -> Option<Value> {
    let search = |value: &Value| -> BTreeSet<String> {
        let shown = value.to_string();
        let starts = shown.match_indices("generated-password-").map(|(start, _)| start);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        starts.map(|start| shown[start..].chars().take_while(|c| is_part(*c)).collect()).collect()
    };
    let here = search(&steps[at]["outcome"]);
    let all = || steps.iter().flat_map(|s| search(&s["outcome"])).collect::<BTreeSet<String>>();
    let candidates = if here.is_empty() { all() } else { here };
    (candidates.len() == 1).then(|| candidates.into_iter().next().map(Value::String)).flatten()
}

/// What went wrong in a step.
#[derive(Default)]
pub struct Trouble {
    pub faults: Faults,
    /// Instances whose agents said so already before the step.
    pub failing_before: Vec<InstanceId>,
}

/// Reads out of the failed lines of progress who failed, and how.
pub fn trouble(world: &World, deployment: &DeploymentName, step: &Value) -> Trouble {
    let mut trouble = Trouble::default();
    let outcome = &step["outcome"];
    for line in list(&outcome["event_log"]).iter().filter(|e| e["state"] == "failed") {
        let task = text(&line["task"]).replace(" (canary)", "");
        let Some((slug, index)) = task.rsplit_once(" (") else { continue };
        let (Some((group, label)), index) = (slug.split_once('/'), index.trim_end_matches(')')) else {
            continue;
        };
        let error = text(&line["error"]);
        if error.contains("no room") {
            trouble.faults.no_room.push(group.into());
        }
        if !error.contains("is not running after update") {
            continue;
        }
        let is_it = |i: &&Instance| {
            i.spec.deployment == *deployment
                && i.spec.group.as_str() == group
                && i.spec.index.to_string() == index
        };
        let Some(instance) = world.instances.iter().find(is_it) else { continue };
        trouble.faults.failing.push(instance.spec.id.clone());
        // Its state was a reason to touch it, or the only one, which the reference does not even write down.
        let reasons = changes(outcome, label);
        if reasons.is_empty() || reasons.iter().any(|r| r == "state") {
            trouble.failing_before.push(instance.spec.id.clone());
        }
    }
    trouble
}

fn changes(outcome: &Value, label: &str) -> Vec<String> {
    let of_it = list(&outcome["audit"]).iter().filter(|a| text(&a["instance"]).ends_with(label));
    of_it.flat_map(|a| list(&a["context"]["changes"])).map(text).collect()
}
