//! Snapshots of disks: take and delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cpi_api::{Cpi, CpiErrorKind, Found, Metadata, SnapshotDisk};
use model::instance::InstanceSpec;
use model::snapshot::Snapshot;
use model::step::StepOutcome;
use model::{DiskId, InstanceId, SnapshotCid, SnapshotId};
use state::State;
use state::records::Sought;

use super::disk::row_with_cid;
use super::once::{self, Search};
use crate::context::StepContext;
use crate::error::StepError;

/// Takes the snapshot, or adopts the one that an earlier leader's call took. A cloud that has none is passed over.
pub async fn take(
    cx: &StepContext,
    instance: &InstanceId,
    disk: &DiskId,
    snapshot: &SnapshotId,
) -> Result<StepOutcome, StepError> {
    let target = cx.task.target(instance)?;
    let (row, disk_cid) = row_with_cid(cx, disk)?;
    let search = Search {
        cpi: &row.cpi,
        sought: Sought::Snapshot(snapshot.clone()),
        what: format!("a snapshot of disk '{disk_cid}' of '{}' with id {snapshot}", cx.slug(instance)),
    };
    let metadata = metadata(cx, &target.spec);
    let request = SnapshotDisk { snapshot_id: snapshot.clone(), disk: disk_cid, metadata };
    let has_none = AtomicBool::new(false);
    let taking = async {
        let call = |cpi: Arc<dyn Cpi>, call| async move { cpi.snapshot_disk(&call, request).await };
        let answer = cx.cloud_raw(&row.cpi, "snapshot-disk", None, call).await?;
        Ok(match answer {
            Err(error) if error.kind == CpiErrorKind::NotImplemented => {
                has_none.store(true, Ordering::Relaxed);
                Ok(SnapshotCid::default())
            }
            other => other,
        })
    };
    let cid = once::make(cx, search, taking).await?;
    if has_none.load(Ordering::Relaxed) {
        cx.task.debug(&format!("CPI '{}' takes no snapshots: none of disk {disk}", row.cpi));
        return Ok(StepOutcome::Done);
    }
    Ok(StepOutcome::SnapshotTaken { cid: SnapshotCid::new(cid) })
}

/// Whose disk it is, for whoever looks at the cloud's own list.
fn metadata(cx: &StepContext, spec: &InstanceSpec) -> Metadata {
    let view = cx.task.view();
    let state = State::new(&*view);
    let cluster = state.cluster();
    let (name, uuid) = cluster.map(|c| (c.director_name, c.director_uuid)).unwrap_or_default();
    let mut metadata: Metadata = spec.tags.clone();
    metadata.insert("director_name".into(), name);
    metadata.insert("director_uuid".into(), uuid);
    metadata.insert("deployment".into(), spec.deployment.to_string());
    metadata.insert("job".into(), spec.group.to_string());
    metadata.insert("index".into(), spec.index.to_string());
    metadata.insert("instance_id".into(), spec.id.to_string());
    if let Some(vm) = state.active_vm(&spec.id) {
        metadata.insert("agent_id".into(), vm.agent.to_string());
    }
    metadata
}

/// Deletes a snapshot.
pub async fn delete(cx: &StepContext, id: &SnapshotId) -> Result<StepOutcome, StepError> {
    let snapshot = {
        let view = cx.task.view();
        State::new(&*view).snapshot(id)
    };
    let Some(snapshot) = snapshot else { return Ok(StepOutcome::Done) };
    Ok(match remove(cx, snapshot).await? {
        None => StepOutcome::Done,
        Some(what) => StepOutcome::MayHaveLeaked { what },
    })
}

/// Deletes all snapshots of a disk, which is about to be deleted itself.
pub(super) async fn delete_all_of(cx: &StepContext, disk: &DiskId) -> Result<(), StepError> {
    let snapshots = {
        let view = cx.task.view();
        State::new(&*view).snapshots_of(disk)
    };
    for snapshot in snapshots {
        if let Some(what) = remove(cx, snapshot).await? {
            cx.leaked(what).await;
        }
    }
    Ok(())
}

/// Has the cloud delete what there is of a snapshot; returns what may be left, where nobody can tell.
async fn remove(cx: &StepContext, snapshot: Snapshot) -> Result<Option<String>, StepError> {
    let Snapshot { id, cid, cpi, slug, .. } = snapshot;
    let cids = match cid {
        Some(cid) => vec![cid],
        // Its taking was broken off, and nobody could be asked what came of it.
        None => {
            let (part, wanted) = (format!("find-{id}"), id.clone());
            let call = |cpi: Arc<dyn Cpi>, call| async move { cpi.find_snapshot(&call, &wanted).await };
            match cx.cloud(&cpi, &part, None, call).await? {
                Found::These(cids) => cids,
                Found::CannotTell => {
                    let what = format!(
                        "snapshot with id {id} of a disk of '{slug}', taken by a call whose answer was lost"
                    );
                    return Ok(Some(what));
                }
            }
        }
    };
    if cids.is_empty() {
        once::may_appear(cx, &Sought::Snapshot(id.clone())).await?;
    }
    for cid in cids {
        let part = format!("delete-{cid}");
        let call = |cpi: Arc<dyn Cpi>, call| async move { cpi.delete_snapshot(&call, &cid).await };
        match cx.cloud_raw(&cpi, &part, None, call).await? {
            Ok(()) => {}
            // Some clouds say of a snapshot that is gone what they say of a disk.
            Err(error) if error.kind == CpiErrorKind::DiskNotFound => {}
            Err(error) => return Err(StepError::from_cpi(error, cx.task.fence.epoch())),
        }
    }
    Ok(None)
}
