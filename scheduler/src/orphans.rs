//! Deleting for good what no instance uses any more: disks after some days, VMs at the next opportunity.

use std::collections::BTreeSet;

use model::plan::{OnFailure, Plan, Unit};
use model::step::Action;
use model::*;

use crate::steps::{Steps, Units};
use crate::stored;

/// As many at once as the reference's pool has threads; clouds throttle beyond that.
const DELETIONS_AT_ONCE: u32 = 32;

/// An orphaned VM: its agent, and its cloud's id, if that was ever learned.
pub type OrphanOfVm = (AgentId, Option<VmCid>);

/// An orphaned disk: our id, and its cloud's, if that was ever learned.
pub type OrphanOfDisk = (DiskId, Option<DiskCid>);

/// Plans the deletion of orphaned disks.
pub fn plan_orphaned_disks(disks: &[OrphanOfDisk]) -> Plan {
    plan_orphans(&[], disks)
}

/// Plans the deletion of orphaned VMs.
pub fn plan_orphaned_vms(vms: &[OrphanOfVm]) -> Plan {
    plan_orphans(vms, &[])
}

/// Plans the deletion of orphans: VMs first, disks may hang on them. Their lines show what clouds call them, as in BOSH.
pub fn plan_orphans(vms: &[OrphanOfVm], disks: &[OrphanOfDisk]) -> Plan {
    let mut units = Units::default();
    let of_vm = |(agent, cid): &OrphanOfVm| {
        let label = cid.as_ref().map_or_else(|| format!("VM of agent {agent}"), VmCid::to_string);
        (label, Action::DeleteOrphanedVm { agent: agent.clone() })
    };
    let of_disk = |(disk, cid): &OrphanOfDisk| {
        let label = cid.as_ref().map_or_else(|| format!("disk {disk}"), DiskCid::to_string);
        (label, Action::DeleteOrphanedDisk { disk: disk.clone() })
    };
    let vms = deletions(&mut units, vms.iter().map(of_vm));
    let disks = deletions(&mut units, disks.iter().map(of_disk));
    let phases = [("Deleting orphaned vms", vms), ("Deleting orphaned disks", disks)]
        .into_iter()
        .filter(|(_, units)| !units.is_empty())
        .map(|(title, units)| stored::phase(Some(title), DELETIONS_AT_ONCE, units))
        .collect();
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

fn deletions(units: &mut Units, deletions: impl Iterator<Item = (String, Action)>) -> Vec<Unit> {
    let unit = |(label, action)| {
        let mut steps = Steps::default();
        steps.push(action);
        let unit = units.unit(label, BTreeSet::new(), steps);
        // One that can't be deleted says nothing about the others.
        Unit { on_failure: OnFailure::GoOn, ..unit }
    };
    deletions.map(unit).collect()
}
