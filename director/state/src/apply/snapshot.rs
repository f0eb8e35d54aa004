//! Snapshots of disks. Their rows come before the snapshots, and stay with the disk: also when that becomes an orphan.

use model::snapshot::Snapshot;
use model::task::TaskError;
use model::*;

use super::deed::Deed;
use super::event::{Audit, audit};
use super::tx::{Tx, invalid};
use crate::command::Refusal;
use crate::log::FLEET_USER;
use crate::rows::TaskRow;
use crate::tables::*;

/// What `SnapshotDisk` is to take.
pub(super) struct Taking<'a> {
    pub instance: &'a InstanceId,
    pub disk: &'a DiskId,
    pub snapshot: &'a SnapshotId,
    pub clean: bool,
}

/// `SnapshotDisk` is about to be done.
pub(super) fn begin(tx: &mut Tx<'_>, taking: Taking<'_>) -> Result<(), Refusal> {
    let Taking { instance, disk, snapshot: id, clean } = taking;
    match tx.get(&SNAPSHOTS, id) {
        Some(known) if known.disk == *disk => return Ok(()),
        Some(_) => return Err(Refusal::Exists { what: "snapshot".into(), name: id.to_string() }),
        None => {}
    }
    let owner = tx.need(&INSTANCES, instance, "instance")?;
    let row = tx.need(&DISKS, disk, "disk")?;
    if row.instance != *instance {
        return Err(invalid(format!("a snapshot of disk {disk}"), format!("it is not {instance}'s")));
    }
    let (slug, cpi) = (owner.slug(), row.cpi);
    let snapshot =
        Snapshot { id: id.clone(), cid: None, disk: disk.clone(), cpi, slug, created_at: tx.at, clean };
    put(tx, &snapshot);
    Ok(())
}

/// `SnapshotDisk` gave a snapshot.
pub(super) fn taken(tx: &mut Tx<'_>, id: &SnapshotId, cid: &SnapshotCid) -> Result<(), Refusal> {
    let mut snapshot = tx.need(&SNAPSHOTS, id, "snapshot")?;
    snapshot.cid = Some(cid.clone());
    tx.put(&SNAPSHOTS, id, &snapshot);
    Ok(())
}

/// `SnapshotDisk` failed, or the cloud has no snapshots: there is none.
pub(super) fn not_taken(tx: &mut Tx<'_>, id: &SnapshotId) {
    if tx.get(&SNAPSHOTS, id).is_some_and(|snapshot| snapshot.cid.is_none()) {
        forget(tx, id);
    }
}

/// Files a snapshot.
pub(super) fn put(tx: &mut Tx<'_>, snapshot: &Snapshot) {
    tx.put(&SNAPSHOTS, &snapshot.id, snapshot);
    tx.put(&SNAPSHOTS_OF, &(snapshot.disk.clone(), snapshot.id.clone()), &());
}

/// A snapshot is gone.
pub(super) fn forget(tx: &mut Tx<'_>, id: &SnapshotId) {
    let Some(snapshot) = tx.get(&SNAPSHOTS, id) else { return };
    tx.delete(&SNAPSHOTS, id);
    tx.delete(&SNAPSHOTS_OF, &(snapshot.disk, id.clone()));
}

/// A disk is gone, and with it all its snapshots.
pub(super) fn forget_all(tx: &mut Tx<'_>, deed: &Deed<'_>, disk: &DiskId) {
    for snapshot in tx.state().snapshots_of(disk) {
        forget(tx, &snapshot.id);
        let event = Audit {
            task: Some(deed.task),
            parent: deed.audit,
            action: "delete",
            object_type: "snapshot",
            object_name: snapshot.cid.map(|cid| cid.to_string()),
            instance: Some(snapshot.slug),
            ..Audit::default()
        };
        audit(tx, event);
    }
}

/// A task that was to take snapshots has failed. Nobody waits for those that the fleet takes by itself: that is an alert, with
/// the title that BOSH's director gives it.
pub(super) fn alert(tx: &mut Tx<'_>, task: &TaskRow, error: &TaskError) {
    if task.user.as_str() != FLEET_USER {
        return;
    }
    let message = format!("director - snapshot failure. Severity 3: {}", error.message);
    let event = Audit {
        task: Some(task),
        action: "create",
        object_type: "alert",
        object_name: Some("director".into()),
        context: [("message".to_owned(), message.into())].into(),
        ..Audit::default()
    };
    audit(tx, event);
}
