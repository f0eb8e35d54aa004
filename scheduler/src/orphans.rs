//! Deleting for good what no instance uses any more: disks after some days, VMs at the next opportunity.

use std::collections::BTreeSet;

use model::plan::{OnFailure, Plan, Unit};
use model::step::Action;
use model::*;

use crate::steps::{Steps, Units};
use crate::stored;

/// As many at once as the reference's pool has threads; clouds throttle beyond that.
const DELETIONS_AT_ONCE: u32 = 32;

/// Plans the deletion of orphaned disks.
pub fn plan_orphaned_disks(disks: &[DiskId]) -> Plan {
    let deletion = |disk: &DiskId| {
        (format!("Deleting orphaned disk {disk}"), Action::DeleteOrphanedDisk { disk: disk.clone() })
    };
    plan("Deleting orphaned disks", disks.iter().map(deletion))
}

/// Plans the deletion of orphaned VMs.
pub fn plan_orphaned_vms(agents: &[AgentId]) -> Plan {
    let deletion = |agent: &AgentId| {
        let label = format!("Deleting orphaned VM of agent {agent}");
        (label, Action::DeleteOrphanedVm { agent: agent.clone() })
    };
    plan("Deleting orphaned vms", agents.iter().map(deletion))
}

fn plan(title: &str, deletions: impl Iterator<Item = (String, Action)>) -> Plan {
    let mut units = Units::default();
    let deletions: Vec<Unit> = deletions
        .map(|(label, action)| {
            let mut steps = Steps::default();
            steps.push(action);
            let unit = units.unit(label, BTreeSet::new(), steps);
            // One that can't be deleted says nothing about the others.
            Unit { on_failure: OnFailure::GoOn, ..unit }
        })
        .collect();
    let phases = match deletions.is_empty() {
        true => Vec::new(),
        false => vec![stored::phase(Some(title), DELETIONS_AT_ONCE, deletions)],
    };
    Plan {
        deployment: None,
        generation: 0,
        targets: Vec::new(),
        reservations: Vec::new(),
        phases,
        record: None,
        warnings: Vec::new(),
        dns_subjects: Vec::new(),
    }
}
