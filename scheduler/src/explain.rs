//! Plans as text for people: what `dctl deploy --dry-run` shows, and what tests compare.
//!
//! One line per unit; the same plan always gives the same text. UUIDs are left out where `group/index` says as much.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::instance::InstanceState;
use model::plan::{Fate, Plan, Target, Unit};
use model::*;

/// Renders a plan.
pub fn explain(plan: &Plan) -> String {
    let mut out = String::new();
    let targets: BTreeMap<&InstanceId, &Target> = plan.targets.iter().map(|t| (&t.spec.id, t)).collect();
    let mut listed: Vec<&Target> = plan.targets.iter().filter(|t| t.fate != Fate::Untouched).collect();
    listed.sort_by_key(|t| (t.compilation, &t.spec.group, t.spec.index));
    for target in listed.iter().filter(|t| !t.compilation) {
        describe(&mut out, target);
    }
    for stage in plan.phases.iter().flat_map(|p| &p.stages) {
        let tags =
            if stage.tags.is_empty() { String::new() } else { format!(" [{}]", stage.tags.join(", ")) };
        let title = stage.title.as_deref().unwrap_or("(silent)");
        // Writing into a string cannot fail.
        let _ = writeln!(out, "{title}{tags}");
        for (at, wave) in stage.waves.iter().enumerate() {
            if stage.waves.len() > 1 {
                let _ = writeln!(out, "  wave {}, {} at once", at + 1, wave.max_in_flight);
            }
            for unit in &wave.units {
                let _ = writeln!(out, "  {}", describe_unit(unit, &targets));
            }
        }
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn describe(out: &mut String, target: &Target) {
    let fate = match target.fate {
        Fate::New => "create",
        Fate::Untouched => "keep",
        Fate::Updated => "update",
        Fate::Recreated => "recreate",
        Fate::Deleted => "delete",
    };
    let spec = &target.spec;
    let mut facts = Vec::new();
    facts.extend(spec.az.as_ref().map(|az| format!("az={az}")));
    facts.extend(spec.networks.iter().filter_map(|n| n.ip).map(|ip| format!("ip={ip}")));
    facts.extend(spec.disks().map(|disk| match &disk.name {
        None => format!("disk={}M", disk.size_mib),
        Some(name) => format!("disk[{name}]={}M", disk.size_mib),
    }));
    match target.state {
        InstanceState::Started => {}
        InstanceState::Stopped => facts.push("stopped".into()),
        InstanceState::Detached => facts.push("detached".into()),
    }
    if !target.changes.is_empty() {
        let changes: Vec<String> = target.changes.iter().map(|c| name_of(*c)).collect();
        facts.push(format!("because of {}", changes.join(", ")));
    }
    let _ = writeln!(out, "{fate} {}/{} {}", spec.group, spec.index, facts.join(" "));
}

/// A change's name as audit events show it.
fn name_of(change: model::plan::Change) -> String {
    match serde_json::to_value(change) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{change:?}"),
    }
}

fn describe_unit(unit: &Unit, targets: &BTreeMap<&InstanceId, &Target>) -> String {
    let steps: Vec<&str> = unit.steps.iter().map(|s| s.action.name()).collect();
    let owner = unit.steps.first().and_then(|s| s.action.instance()).and_then(|id| targets.get(id));
    let canary = if unit.label.ends_with("(canary)") { " (canary)" } else { "" };
    let label = match owner {
        Some(target) if !target.compilation => {
            format!("{}/{}{canary}", target.spec.group, target.spec.index)
        }
        Some(target) => unit.label.replace(target.spec.group.as_str(), "compilation"),
        None => unit.label.clone(),
    };
    let after: Vec<String> = unit.after.iter().map(|n| n.to_string()).collect();
    let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(",")) };
    format!("#{} {label}{after}: {}", unit.no, steps.join(" "))
}
