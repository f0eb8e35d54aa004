//! What may still appear in a cloud after its caller was told nothing and has looked in vain. Here it is remembered, and filed
//! as an orphan once it is there and nobody has a claim on it. When to look is the executor's business.

use model::instance::{Disk, Vm};
use model::snapshot::Snapshot;
use model::*;

use super::event::{Audit, audit, report_leak};
use super::task::working;
use super::tx::Tx;
use super::{disk, dynamic_disk, snapshot, vm};
use crate::command::{Outcome, Refusal};
use crate::records::{Latecomer, Orphan, OrphanedDisk, OrphanedVm, Sought};
use crate::tables::*;

/// `LatecomerPut`. What is expected already is looked for anew, for as long as this one.
pub(super) fn put(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    sought: &Sought,
    look_for_ms: u64,
) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    let orphan = match sought {
        Sought::Vm(agent) => Orphan::Vm(Box::new(as_vm(tx, agent)?)),
        Sought::Disk(disk) => Orphan::Disk(Box::new(as_disk(tx, disk)?)),
        Sought::Snapshot(id) => Orphan::Snapshot(Box::new(tx.need(&SNAPSHOTS, id, "snapshot")?)),
    };
    let row = match tx.get(&LATECOMERS, sought) {
        Some(known) => Latecomer { left_ms: known.left_ms.max(look_for_ms), task: task.id, orphan, ..known },
        None => {
            let report = Audit {
                task: Some(&task),
                action: "expect",
                object_type: kind(sought),
                object_name: Some(sought.to_string()),
                ..Audit::default()
            };
            let id = audit(tx, report);
            let sought = sought.clone();
            Latecomer { id, sought, orphan, task: task.id, at: tx.at, left_ms: look_for_ms }
        }
    };
    tx.put(&LATECOMERS, sought, &row);
    Ok(Outcome::Done)
}

/// `LatecomerLooked`.
pub(super) fn looked(
    tx: &mut Tx<'_>,
    epoch: Epoch,
    sought: &Sought,
    found: &[String],
    left_ms: (u64, u64),
) -> Result<Outcome, Refusal> {
    tx.fence(epoch)?;
    let row = tx.need(&LATECOMERS, sought, "latecomer")?;
    for cid in found {
        match (sought, &row.orphan) {
            (Sought::Vm(agent), Orphan::Vm(orphan)) => file_vm(tx, &row, agent, orphan, VmCid::new(cid)),
            (Sought::Disk(disk), Orphan::Disk(orphan)) => {
                file_disk(tx, &row, disk, orphan, DiskCid::new(cid));
            }
            (Sought::Snapshot(id), Orphan::Snapshot(taken)) => {
                file_snapshot(tx, &row, id, taken, SnapshotCid::new(cid));
            }
            (Sought::Vm(_) | Sought::Disk(_) | Sought::Snapshot(_), _) => {}
        }
    }
    let (before, after) = left_ms;
    match after {
        // Meanwhile another call was not answered: its time has just begun.
        _ if before != row.left_ms => {}
        0 => {
            tx.delete(&LATECOMERS, sought);
            about(tx, &row, "give_up", sought.to_string());
        }
        left_ms => tx.put(&LATECOMERS, sought, &Latecomer { left_ms, ..row }),
    }
    Ok(Outcome::Done)
}

/// `LeakClear` of what is on the list because it may still appear. Returns whether there is such a one.
pub(super) fn clear(tx: &mut Tx<'_>, id: EventId) -> bool {
    let row = tx.rows(&LATECOMERS).map(|(_, row)| row).find(|row| row.id == id);
    let Some(row) = row else { return false };
    tx.delete(&LATECOMERS, &row.sought);
    about(tx, &row, "clear", row.sought.to_string());
    true
}

fn about(tx: &mut Tx<'_>, row: &Latecomer, action: &str, object_name: String) {
    let task = tx.get(&TASKS, &row.task);
    let event = Audit {
        task: task.as_ref(),
        parent: Some(row.id),
        action,
        object_type: kind(&row.sought),
        object_name: Some(object_name),
        ..Audit::default()
    };
    audit(tx, event);
}

fn kind(sought: &Sought) -> &'static str {
    match sought {
        Sought::Vm(_) => "vm",
        Sought::Disk(_) => "disk",
        Sought::Snapshot(_) => "snapshot",
    }
}

/// Returns the VM's row as an orphan's.
fn as_vm(tx: &Tx<'_>, agent: &AgentId) -> Result<OrphanedVm, Refusal> {
    if let Some(orphan) = tx.get(&ORPHANED_VMS, agent) {
        return Ok(orphan);
    }
    let vm = tx.need(&VMS, agent, "VM of agent")?;
    Ok(vm::as_orphan(tx, vm))
}

/// Returns the disk's row as an orphan's.
fn as_disk(tx: &Tx<'_>, id: &DiskId) -> Result<OrphanedDisk, Refusal> {
    if let Some(orphan) = tx.get(&ORPHANED_DISKS, id) {
        return Ok(orphan);
    }
    if let Some(disk) = dynamic_disk::with_id(tx, id) {
        return Ok(dynamic_disk::as_orphan(tx, disk));
    }
    let disk = tx.need(&DISKS, id, "disk")?;
    Ok(disk::as_orphan(tx, disk))
}

/// Files a VM that has appeared, unless it is somebody's, or may be: that of a step which does not know yet what it made.
fn file_vm(tx: &mut Tx<'_>, row: &Latecomer, agent: &AgentId, orphan: &OrphanedVm, cid: VmCid) {
    let claimed = tx.get(&VMS, agent).map(|vm| vm.cid);
    let filed = tx.get(&ORPHANED_VMS, agent).map(|orphan| orphan.vm.cid);
    // The agent's id may be that of another VM, of which this one is a double.
    let double = AgentId::new(format!("{agent}.{cid}"));
    let is_known = filed.as_ref().is_some_and(|filed| filed.as_ref() == Some(&cid));
    if is_known || may_be(claimed.as_ref(), &cid) || tx.has(&ORPHANED_VMS, &double) {
        return;
    }
    let is_double = claimed.is_some() || filed.is_some_and(|filed| filed.is_some());
    let agent = if is_double { double } else { agent.clone() };
    about(tx, row, "orphan", cid.to_string());
    let vm = Vm { agent: agent.clone(), cid: Some(cid), ..orphan.vm.clone() };
    tx.put(&ORPHANED_VMS, &agent, &OrphanedVm { vm, orphaned_at: tx.at, ..orphan.clone() });
}

/// As [`file_vm`], for a disk.
fn file_disk(tx: &mut Tx<'_>, row: &Latecomer, id: &DiskId, orphan: &OrphanedDisk, cid: DiskCid) {
    let claimed = tx.get(&DISKS, id).map(|disk| disk.cid);
    let claimed = claimed.or_else(|| dynamic_disk::with_id(tx, id).map(|disk| disk.cid));
    let filed = tx.get(&ORPHANED_DISKS, id).map(|orphan| orphan.disk.cid);
    let double = DiskId::new(format!("{id}.{cid}"));
    let is_known = filed.as_ref().is_some_and(|filed| filed.as_ref() == Some(&cid));
    if is_known || may_be(claimed.as_ref(), &cid) || tx.has(&ORPHANED_DISKS, &double) {
        return;
    }
    let is_double = claimed.is_some() || filed.is_some_and(|filed| filed.is_some());
    let id = if is_double { double } else { id.clone() };
    about(tx, row, "orphan", cid.to_string());
    let disk = Disk { id: id.clone(), cid: Some(cid), ..orphan.disk.clone() };
    tx.put(&ORPHANED_DISKS, &id, &OrphanedDisk { disk, orphaned_at: tx.at, ..orphan.clone() });
}

/// Files a snapshot that has appeared with the others of its disk, with which it goes. Where that is gone, nobody would delete
/// it: then it is a leak.
fn file_snapshot(tx: &mut Tx<'_>, row: &Latecomer, id: &SnapshotId, taken: &Snapshot, cid: SnapshotCid) {
    let claimed = tx.get(&SNAPSHOTS, id).map(|snapshot| snapshot.cid);
    let double = SnapshotId::new(format!("{id}.{cid}"));
    if may_be(claimed.as_ref(), &cid) || tx.has(&SNAPSHOTS, &double) {
        return;
    }
    if !tx.has(&DISKS, &taken.disk) && !tx.has(&ORPHANED_DISKS, &taken.disk) {
        let what = format!("snapshot {cid} of a disk of '{}' that is gone, which was taken late", taken.slug);
        let known = tx.rows(&LEAKS).any(|(_, leak)| leak.what == what);
        if !known {
            report_leak(tx, None, Some(row.task), &what);
        }
        return;
    }
    about(tx, row, "orphan", cid.to_string());
    let id = if claimed.is_some() { double } else { id.clone() };
    snapshot::put(tx, &Snapshot { id, cid: Some(cid), ..taken.clone() });
}

/// Returns whether an instance's row stands for this thing, or may: one without an id of the cloud's does not know yet.
fn may_be<T: PartialEq>(row: Option<&Option<T>>, cid: &T) -> bool {
    row.is_some_and(|of| of.as_ref().is_none_or(|of| of == cid))
}
