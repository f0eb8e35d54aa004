//! Snapshots over gRPC.

use model::{DeploymentName, SnapshotCid};
use proto::v1 as pb;
use proto::v1::snapshots_server::Snapshots;
use service::List;
use service::ops::SnapshotsOf;
use tonic::{Request, Response, Status};

use super::artifacts::started;
use super::convert::{given, page};
use super::request_id;
use crate::door::Door;
use crate::error_map::status;

/// Returns group and UUID or index, if an instance is named.
fn named(of: &Option<pb::InstanceSelector>) -> Option<(&str, &str)> {
    of.as_ref().map(|of| (of.group.as_str(), of.id_or_index.as_str()))
}

#[tonic::async_trait]
impl Snapshots for Door {
    async fn list(
        &self,
        request: Request<pb::ListSnapshotsRequest>,
    ) -> Result<Response<pb::ListSnapshotsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ListSnapshotsRequest { deployment, instance, page: wire } = request.into_inner();
        let name = DeploymentName::new(deployment);
        let listed = self.service.snapshots(&caller, &name, named(&instance), &page(wire)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        Ok(Response::new(pb::ListSnapshotsResponse {
            snapshots: rows.into_iter().flat_map(shown).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn take(
        &self,
        request: Request<pb::TakeSnapshotsRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::TakeSnapshotsRequest { request_id: id, deployment, instance } = request.into_inner();
        let (key, name) = (request_id(&id), DeploymentName::new(deployment));
        let queued = self.service.take_snapshots(&caller, key, &name, named(&instance)).await;
        queued.map(started).map_err(status)
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteSnapshotsRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::DeleteSnapshotsRequest { request_id: id, deployment, cid } = request.into_inner();
        let (key, name) = (request_id(&id), DeploymentName::new(deployment));
        let cid = given(cid).map(SnapshotCid::new);
        let queued = self.service.delete_snapshots(&caller, key, &name, cid).await;
        queued.map(started).map_err(status)
    }
}

fn shown(row: SnapshotsOf) -> Vec<pb::Snapshot> {
    let spec = row.instance.spec;
    let one = |(cid, snapshot): (SnapshotCid, model::snapshot::Snapshot)| pb::Snapshot {
        cid: cid.to_string(),
        group: spec.group.to_string(),
        index: spec.index,
        instance_id: spec.id.to_string(),
        disk_id: snapshot.disk.to_string(),
        created_at_unix_ms: snapshot.created_at.0,
        clean: snapshot.clean,
    };
    row.snapshots.into_iter().map(one).collect()
}
