//! Compares what we did with what the reference did, leaving out what varies from run to run.
//!
//! Left out on purpose: which automatic address each of several new instances gets (the world adopts the recorded
//! ones afterwards), the order inside a zone (the reference sorts by random UUIDs), reasons that come from the
//! reference's own settings (`dns` without local DNS, `blobstore_config`, `nats_config`, `trusted_certs`), and with
//! them instances that were listed for such reasons alone; that old VMs are told to power off when they are swapped (ours have
//! no director any more from that moment on, and are deleted within minutes).

use std::collections::{BTreeMap, BTreeSet};

use model::plan::Step;
use model::step::Action;
use model::*;
use serde_json::{Value, json};

use super::adopt;
use super::perform::Event;
use super::runner::{Outcome, Snapshot};
use super::world::World;

/// Which of our instances and agents the recording's labels stand for.
#[derive(Clone, Default)]
pub struct Labels {
    pub instances: BTreeMap<String, InstanceId>,
    /// The instance of every VM so far.
    vms: BTreeMap<String, String>,
}

/// Reasons that the reference finds in its own settings.
const OWN_REASONS: [&str; 4] = ["dns", "blobstore_config", "nats_config", "trusted_certs"];

/// Agreement, or how we differ.
pub type Verdict = Result<(), String>;

/// Whether the order of a step's stages means anything.
#[derive(Clone, Copy, PartialEq)]
pub enum Sequence {
    Serial,
    /// Some groups go at once.
    Parallel,
}

/// Compares two values.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, recorded: T) -> Verdict {
    if ours == recorded {
        Ok(())
    } else {
        Err(format!("{what}:\n  ours     {ours:?}\n  recorded {recorded:?}"))
    }
}

/// Reads a text.
pub fn text(value: &Value) -> String {
    // One early recording doubles the brackets of labels.
    value.as_str().unwrap_or_default().replace("<<", "<").replace(">>", ">")
}

/// Reads a list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Compares one step, and takes over from the recording what was left to chance.
pub fn outcome(
    world: &mut World,
    before: &Snapshot,
    labels: &mut Labels,
    deployment: &DeploymentName,
    recorded: &Value,
    ours: &Outcome,
    sequence: Sequence,
) -> Verdict {
    learn(world, labels, deployment, recorded, ours);
    compare_error(labels, recorded, ours)?;
    let planned = ours.plan.is_some();
    let dry = planned && ours.performed.events.is_empty() && ours.performed.agent_calls.is_empty();
    if !planned {
        return Ok(());
    }
    let mut own_reasons = listed_for_own_reasons(recorded);
    own_reasons.extend(rows_of_failed_plans(labels, recorded));
    compare_changes(labels, recorded, ours, &own_reasons)?;
    if !(dry && list(&recorded["event_log"]).len() <= 2) {
        compare_instances(world, labels, deployment, recorded)?;
        compare_fates(world, before, labels, recorded)?;
        compare_events(labels, recorded, ours, &own_reasons, sequence)?;
    }
    compare_created_vms(recorded, ours)?;
    compare_snapshots(recorded, ours)?;
    compare_agent_calls(before, labels, recorded, ours, !own_reasons.is_empty())?;
    adopt::addresses(world, labels, deployment, recorded)?;
    adopt::ranks(world, labels, recorded);
    remember_vms(labels, recorded);
    Ok(())
}

/// Finds out which of our instances a label stands for when it appears: the one in the same seat.
fn learn(world: &World, labels: &mut Labels, deployment: &DeploymentName, recorded: &Value, ours: &Outcome) {
    let known: BTreeSet<InstanceId> = labels.instances.values().cloned().collect();
    let planned = ours.plan.iter().flat_map(|p| &p.targets).map(|t| &t.spec);
    let stored = world.instances.iter().map(|i| &i.spec);
    let seats: Vec<_> = stored.chain(planned).filter(|s| s.deployment == *deployment).cloned().collect();
    for row in list(&recorded["instances"]) {
        let label = text(&row["instance"]);
        if labels.instances.contains_key(&label) {
            continue;
        }
        let seat = seats
            .iter()
            .find(|s| s.group.as_str() == row["group"] && row["index"] == s.index && !known.contains(&s.id));
        if let Some(seat) = seat {
            labels.instances.insert(label, seat.id.clone());
        }
    }
}

/// Remembers which VM belonged to whom.
pub fn remember_vms(labels: &mut Labels, recorded: &Value) {
    let rows = list(&recorded["instances"]).iter().filter(|row| row["vm"].is_string());
    labels.vms.extend(rows.map(|row| (text(&row["vm"]), text(&row["instance"]))));
}

/// Replaces our UUIDs by labels; one that nobody knows is `<new>` on both sides.
fn label_text(labels: &Labels, ours: &str) -> String {
    let mut out = ours.to_owned();
    for (label, id) in &labels.instances {
        out = out.replace(id.as_str(), label);
    }
    let is_uuid = |word: &str| word.len() == 36 && word.bytes().filter(|b| *b == b'-').count() == 4;
    let words: Vec<String> = out
        .split(['/', '\'', ' ', '('])
        .filter(|w| is_uuid(w) || (w.starts_with("<instance-") && !labels.instances.contains_key(*w)))
        .map(str::to_owned)
        .collect();
    words.iter().fold(out, |out, word| out.replace(word.as_str(), "<new>"))
}

fn compare_error(labels: &Labels, recorded: &Value, ours: &Outcome) -> Verdict {
    let wanted = &recorded["error"];
    let ours = ours.error.as_ref().map(|e| (u64::from(e.code), label_text(labels, &e.message)));
    // The CPI's name for a request is its own.
    if text(&wanted["message"]).contains("no room") {
        return same("error code", ours.map(|e| e.0), wanted["code"].as_u64());
    }
    // A slip of the reference in Ruby; what counts is that both refuse.
    if text(&wanted["message"]).starts_with("undefined method") {
        return same("refusal", ours.is_some(), true);
    }
    let recorded = wanted["code"].as_u64().map(|code| (code, label_text(labels, &text(&wanted["message"]))));
    same("error", ours, recorded)
}

/// Instances that the reference listed although nothing about them changed.
fn listed_for_own_reasons(recorded: &Value) -> BTreeSet<String> {
    list(&recorded["audit"])
        .iter()
        .filter(|a| a["context"]["changes"].is_array())
        .filter(|a| {
            let reasons: Vec<String> = list(&a["context"]["changes"]).iter().map(text).collect();
            // Without a VM, `nats_config` always differs: the reference lists detached instances at every deploy,
            // and does nothing to them.
            reasons.iter().all(|r| OWN_REASONS.contains(&r.as_str()))
                || reasons.iter().any(|r| r == "nats_config")
        })
        .map(|a| text(&a["instance"]).split('/').nth(1).unwrap_or_default().to_owned())
        .collect()
}

/// Instances that the reference deletes although they never were more than a row of a plan that failed.
fn rows_of_failed_plans(labels: &Labels, recorded: &Value) -> BTreeSet<String> {
    list(&recorded["event_log"])
        .iter()
        .filter(|e| e["stage"] == "Deleting unneeded instances")
        .filter_map(|e| text(&e["task"]).split(['/', ' ']).nth(1).map(str::to_owned))
        .filter(|label| !labels.instances.contains_key(label))
        .collect()
}

fn compare_changes(
    labels: &Labels,
    recorded: &Value,
    ours: &Outcome,
    own_reasons: &BTreeSet<String>,
) -> Verdict {
    for event in list(&recorded["audit"]).iter().filter(|a| a["context"]["changes"].is_array()) {
        let label = text(&event["instance"]).split('/').nth(1).unwrap_or_default().to_owned();
        if own_reasons.contains(&label) {
            continue;
        }
        let wanted: BTreeSet<String> = list(&event["context"]["changes"])
            .iter()
            .map(text)
            .filter(|c| !OWN_REASONS.contains(&c.as_str()))
            .collect();
        let id = labels.instances.get(&label).ok_or(format!("nobody is {label}"))?;
        let target = ours.plan.iter().flat_map(|p| &p.targets).find(|t| t.spec.id == *id);
        let changes = target.iter().flat_map(|t| &t.changes).map(|c| text(&serde_json::to_value(c).unwrap()));
        let changes: BTreeSet<String> =
            changes.filter(|change| wanted.contains(change) || !is_of_swapped_vm(change, id, ours)).collect();
        // What never finished is done anew as a whole; which other reasons there are then does not matter.
        if !(changes.contains("dirty") && wanted.contains("dirty")) {
            same(&format!("changes of {label}"), changes, wanted)?;
        }
    }
    Ok(())
}

/// Of an instance whose VM is swapped the reference asks why once the new VM is made: what that has instead is no reason
/// any more.
fn is_of_swapped_vm(change: &str, id: &InstanceId, ours: &Outcome) -> bool {
    let mut steps = ours.plan.iter().flat_map(|p| p.units()).flat_map(|unit| &unit.steps);
    let swaps = |step: &Step| matches!(&step.action, Action::ElectVm { instance, .. } if instance == id);
    ["cloud_properties", "stemcell", "env"].contains(&change) && steps.any(swaps)
}

fn compare_instances(
    world: &World,
    labels: &Labels,
    deployment: &DeploymentName,
    recorded: &Value,
) -> Verdict {
    let mut rows = BTreeMap::new();
    for row in list(&recorded["instances"]) {
        let lost = row["vm"].is_null() && recorded["task_state"] != "done";
        if !lost {
            let disks: Vec<u64> = list(&row["disks"]).iter().filter_map(|d| d["size"].as_u64()).collect();
            let summary = json!([
                row["group"],
                row["index"],
                row["az"],
                row["bootstrap"],
                row["state"],
                row["ignore"],
                row["vm"].is_string(),
                disks
            ]);
            rows.insert(text(&row["instance"]), summary.to_string());
        }
    }
    let mut ours = BTreeMap::new();
    for instance in world.instances.iter().filter(|i| i.spec.deployment == *deployment) {
        let has_vm = world.vms.iter().any(|v| v.instance == instance.spec.id);
        if !has_vm && recorded["task_state"] != "done" {
            continue;
        }
        let label = label_text(labels, instance.spec.id.as_str());
        let disks: Vec<u64> =
            world.disks.iter().filter(|d| d.instance == instance.spec.id).map(|d| d.spec.size_mib).collect();
        let spec = &instance.spec;
        let summary = json!([
            spec.group,
            spec.index,
            spec.az,
            spec.bootstrap,
            instance.state,
            instance.ignore,
            has_vm,
            disks
        ]);
        ours.insert(label, summary.to_string());
    }
    same("instances", ours, rows)
}

/// An instance keeps its VM here if and only if it did there.
fn compare_fates(world: &World, before: &Snapshot, labels: &Labels, recorded: &Value) -> Verdict {
    for row in list(&recorded["instances"]) {
        let Some(id) = labels.instances.get(&text(&row["instance"])) else { continue };
        let Some(vm) = world.vms.iter().find(|v| v.instance == *id) else { continue };
        let kept = before.agents.contains_key(&vm.agent);
        same(&format!("{} keeps its VM", row["instance"]), kept, row["change"] == "same vm")?;
    }
    Ok(())
}

/// One stage in a form in which order inside a zone does not matter.
#[derive(Debug, PartialEq)]
struct StageSummary {
    total: usize,
    canaries: usize,
    /// Runs of instances of one zone, each sorted.
    runs: Vec<BTreeSet<String>>,
}

fn summarize(
    events: &[Event],
    zone: &dyn Fn(&str) -> String,
    skip: &BTreeSet<String>,
) -> BTreeMap<(String, Vec<String>), StageSummary> {
    let mut stages: BTreeMap<(String, Vec<String>), StageSummary> = BTreeMap::new();
    let mut zones: BTreeMap<(String, Vec<String>), String> = BTreeMap::new();
    for event in events {
        let name = event.task.replace(" (canary)", "");
        let label = name.split(['/', ' ']).nth(1).unwrap_or_default().to_owned();
        if skip.contains(&label) {
            continue;
        }
        let key = (event.stage.clone(), event.tags.clone());
        let summary =
            stages.entry(key.clone()).or_insert(StageSummary { total: 0, canaries: 0, runs: Vec::new() });
        summary.total += 1;
        // Where one instance was left out, another is the canary.
        summary.canaries += usize::from(event.task.contains("(canary)") && skip.is_empty());
        // Only updates take turns; everything else runs side by side.
        let here = if event.stage == "Updating instance" { zone(&label) } else { String::new() };
        if zones.get(&key) != Some(&here) {
            zones.insert(key, here);
            summary.runs.push(BTreeSet::new());
        }
        summary.runs.last_mut().unwrap().insert(name);
    }
    stages
}

fn compare_events(
    labels: &Labels,
    recorded: &Value,
    ours: &Outcome,
    own_reasons: &BTreeSet<String>,
    sequence: Sequence,
) -> Verdict {
    // Stages about the reference's own bookkeeping.
    let prepared = [
        "Preparing deployment",
        "Preparing package compilation",
        "Deleting properties",
        "Removing deployment artifacts",
    ];
    let events = |state: &str| -> Vec<Event> {
        list(&recorded["event_log"])
            .iter()
            .filter(|e| e["state"] == state && !prepared.contains(&text(&e["stage"]).as_str()))
            .map(|e| Event {
                stage: text(&e["stage"]),
                tags: list(&e["tags"]).iter().map(text).collect(),
                total: e["total"].as_u64().unwrap_or(0) as u32,
                task: text(&e["task"]),
            })
            .collect()
    };
    let wanted = events("started");
    let done: Vec<Event> = ours
        .performed
        .events
        .iter()
        .map(|e| Event { task: label_text(labels, &e.task), ..e.clone() })
        .collect();
    let zones: BTreeMap<String, String> =
        list(&recorded["instances"]).iter().map(|r| (text(&r["instance"]), r["az"].to_string())).collect();
    let zone = |label: &str| zones.get(label).cloned().unwrap_or_default();
    same("events", summarize(&done, &zone, own_reasons), summarize(&wanted, &zone, own_reasons))?;
    let order = |events: &[Event]| {
        let mut seen: Vec<(String, Vec<String>)> = Vec::new();
        for event in events.iter().filter(|e| {
            let label = e.task.split(['/', ' ']).nth(1).unwrap_or_default();
            !own_reasons.contains(label)
        }) {
            let key = (event.stage.clone(), event.tags.clone());
            if !seen.contains(&key) {
                seen.push(key);
            }
        }
        seen
    };
    if sequence == Sequence::Serial {
        same("order of stages", order(&done), order(&wanted))?;
    }
    if own_reasons.is_empty() {
        let totals = |events: &[Event]| -> BTreeSet<(String, Vec<String>, u32)> {
            events.iter().map(|e| (e.stage.clone(), e.tags.clone(), e.total)).collect()
        };
        same("totals", totals(&done), totals(&wanted))?;
    }
    Ok(())
}

fn compare_created_vms(recorded: &Value, ours: &Outcome) -> Verdict {
    let canonical = |value: &Value| -> String {
        fn sort(value: &Value) -> Value {
            match value {
                Value::Object(map) => {
                    let sorted: BTreeMap<String, Value> =
                        map.iter().map(|(k, v)| (k.clone(), sort(v))).collect();
                    serde_json::to_value(sorted).unwrap()
                }
                Value::Array(items) => items.iter().map(sort).collect(),
                other => other.clone(),
            }
        }
        sort(value).to_string()
    };
    let mut wanted: Vec<String> = Vec::new();
    for call in list(&recorded["cpi_calls"]).iter().filter(|c| c["method"] == "create_vm") {
        let mut networks = call["networks"].clone();
        for network in networks.as_object_mut().into_iter().flatten().map(|(_, n)| n) {
            network.as_object_mut().unwrap().remove("ip");
        }
        wanted.push(canonical(&json!({
            "cloud_properties": call["cloud_properties"],
            "networks": networks,
            "disks": list(&call["disks"]).len(),
            "env_without_bosh": call["env_without_bosh"],
        })));
    }
    let mut created: Vec<String> = ours.performed.created_vms.iter().map(canonical).collect();
    wanted.sort();
    created.sort();
    if text(&recorded["error"]["message"]).contains("no room") {
        // The call that failed is recorded or not, depending on when the others were done.
        return Ok(());
    }
    same("create_vm calls", created, wanted)
}

/// The recordings do not say of which disk each was.
fn compare_snapshots(recorded: &Value, ours: &Outcome) -> Verdict {
    let taken = list(&recorded["cpi_calls"]).iter().filter(|call| call["method"] == "snapshot_disk").count();
    if recorded["error"].is_null() { same("snapshots", ours.performed.snapshots, taken) } else { Ok(()) }
}

/// Calls by instance, the old VM's before the new one's; those to compile workers under `worker`.
type Calls = BTreeMap<String, Vec<Vec<String>>>;

fn compare_agent_calls(
    before: &Snapshot,
    labels: &Labels,
    recorded: &Value,
    ours: &Outcome,
    forget_post_deploy: bool,
) -> Verdict {
    let after: BTreeMap<String, String> = list(&recorded["instances"])
        .iter()
        .filter(|r| r["vm"].is_string())
        .map(|r| (text(&r["vm"]), text(&r["instance"])))
        .collect();
    let mut by_vm: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in list(&recorded["agent_calls"]).iter().map(text) {
        let (vm, call) = line.split_once(' ').unwrap();
        by_vm.entry(vm.to_owned()).or_default().push(call.to_owned());
    }
    let mut wanted = Calls::new();
    for (vm, calls) in by_vm {
        let owner = labels.vms.get(&vm).or(after.get(&vm)).cloned().unwrap_or_else(|| "worker".into());
        // The question that every deploy starts with is the executor's, not the plan's.
        let asked =
            usize::from(labels.vms.contains_key(&vm) && calls.first().is_some_and(|c| c == "get_state"));
        let calls = tidy(calls.into_iter().skip(asked), forget_post_deploy);
        if !calls.is_empty() {
            wanted.entry(owner).or_default().push(calls);
        }
    }
    let mut done = Calls::new();
    for (agent, calls) in &ours.performed.agent_calls {
        let id = before.agents.get(agent).or(ours.performed.owners.get(agent));
        let label = id.and_then(|id| labels.instances.iter().find(|(_, known)| *known == id));
        let owner = label.map_or_else(|| "worker".into(), |(label, _)| label.clone());
        let calls = tidy(calls.iter().cloned(), forget_post_deploy);
        if !calls.is_empty() {
            done.entry(owner).or_default().push(calls);
        }
    }
    for calls in wanted.values_mut().chain(done.values_mut()) {
        calls.sort();
    }
    if recorded["error"].is_null() { same("agent calls", done, wanted) } else { Ok(()) }
}

fn tidy(calls: impl Iterator<Item = String>, forget_post_deploy: bool) -> Vec<String> {
    let calls: Vec<String> = calls.collect();
    let is_called = |method: &str| calls.iter().any(|c| c.split(' ').next() == Some(method));
    // The reference asks a VM that was made ahead for a disk that it never had, and to forget it.
    let never_had_it = is_called("remove_persistent_disk")
        && !is_called("add_persistent_disk")
        && !is_called("unmount_disk");
    let about_disks = ["list_disk", "remove_persistent_disk"];
    calls
        .into_iter()
        .filter(|c| !["delete_arp_entries", "sync_dns", "shutdown"].contains(&c.as_str()))
        .filter(|c| !(never_had_it && about_disks.contains(&c.as_str())))
        .filter(|c| !(forget_post_deploy && c == "run_script post-deploy"))
        .map(|c| match c.split_once(' ') {
            Some((method @ ("mount_disk" | "unmount_disk"), _)) => method.to_owned(),
            _ => c,
        })
        .collect()
}
