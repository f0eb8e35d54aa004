//! Snapshots: volumes with a copy of what was on a disk. They belong to the daemon, and outlive disks and VMs.
//!
//! Where nobody writes to the disk (jobs are stopped before an update) the copy is the disk. What is written while it is
//! being made is in it or not. Order of locks: the snapshot's, then the disk's.

use bollard::Docker;
use bollard::query_parameters as query;
use cpi_api::{CpiErrorKind, SnapshotDisk};
use cpi_host::Scope;
use model::SnapshotCid;
use serde::{Deserialize, Serialize};

use crate::cloud::Cloud;
use crate::disk;
use crate::errand::{self, Beside};
use crate::error::DockerError;
use crate::names::{ID, Kind};

/// Written last: a snapshot without it is half-made.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    is_whole: bool,
    metadata: cpi_api::Metadata,
}

/// Takes a snapshot; one that is there already is the answer too.
pub(crate) fn take(cloud: &Cloud, scope: &Scope, request: &SnapshotDisk) -> Result<SnapshotCid, DockerError> {
    let cid = cloud.names.snapshot(&request.snapshot_id);
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if is_whole(cloud, &cid)? {
        return Ok(cid);
    }
    if let Err(error) = copy(cloud, scope, &cid, request) {
        match cloud.daemon.remove_volume(cid.as_str()) {
            Ok(()) => lock.retire(),
            // Nobody finds it: it has no record.
            Err(left) => tracing::warn!(snapshot = %cid, error = %left, "half a snapshot is left"),
        }
        return Err(error);
    }
    cloud.store.put_record(cid.as_str(), &Record { is_whole: true, metadata: request.metadata.clone() })?;
    Ok(cid)
}

/// Returns whether the snapshot is there. Waits for whoever is taking it; removes what a dead one left half-made.
pub(crate) fn exists(cloud: &Cloud, scope: &Scope, cid: &SnapshotCid) -> Result<bool, DockerError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if is_whole(cloud, cid)? {
        return Ok(true);
    }
    remove(cloud, cid)?;
    lock.retire();
    Ok(false)
}

/// Removes a snapshot.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &SnapshotCid) -> Result<(), DockerError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    remove(cloud, cid)?;
    lock.retire();
    Ok(())
}

fn is_whole(cloud: &Cloud, cid: &SnapshotCid) -> Result<bool, DockerError> {
    let record: Record = cloud.store.record(cid.as_str())?;
    let labels = cloud.daemon.volume(cid.as_str())?;
    Ok(record.is_whole && cloud.names.is_ours(labels.as_ref(), Kind::Snapshot))
}

fn remove(cloud: &Cloud, cid: &SnapshotCid) -> Result<(), DockerError> {
    cloud.daemon.remove(&cloud.names.errand(cid.as_str()))?;
    let labels = cloud.daemon.volume(cid.as_str())?;
    if cloud.names.is_ours(labels.as_ref(), Kind::Snapshot) {
        cloud.daemon.remove_volume(cid.as_str())?;
    }
    cloud.store.forget(cid.as_str())
}

fn copy(cloud: &Cloud, scope: &Scope, cid: &SnapshotCid, request: &SnapshotDisk) -> Result<(), DockerError> {
    let _lock = cloud.store.lock_object(request.disk.as_str(), scope)?;
    disk::existing(cloud, &request.disk)?;
    let image = some_image(cloud)?;
    // A taker that died may have left half a copy, and the errand that was at it.
    remove(cloud, cid)?;
    let mut labels = cloud.names.labels(Kind::Snapshot);
    labels.insert(ID.to_owned(), request.snapshot_id.to_string());
    cloud.daemon.create_volume(cid.as_str(), labels)?;
    let by = Beside { object: cid.as_str(), image: &image };
    errand::copy(cloud, scope, &by, request.disk.as_str(), cid.as_str())
}

/// Returns an image that can copy: any stemcell's can.
fn some_image(cloud: &Cloud) -> Result<String, DockerError> {
    let ours = cloud.names.filter(Kind::Stemcell, None);
    let options = query::ListImagesOptionsBuilder::new().filters(&ours).build();
    let list = async |docker: Docker| docker.list_images(Some(options)).await;
    let images = cloud.daemon.ask("list", "images", list)?;
    images.into_iter().next().map(|image| image.id).ok_or_else(|| {
        DockerError::refused(
            CpiErrorKind::NotSupported,
            "no stemcell is there whose programs could copy a disk",
        )
    })
}
