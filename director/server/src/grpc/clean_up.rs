//! Clean-up over gRPC.

use proto::v1 as pb;
use proto::v1::clean_up_server::CleanUp;
use service::ops::{self, LeftoverRows};
use tonic::{Request, Response, Status};

use super::artifacts::started;
use super::request_id;
use crate::door::Door;
use crate::error_map::status;
use crate::fleet::log::now;

#[tonic::async_trait]
impl CleanUp for Door {
    async fn start(&self, request: Request<pb::CleanUpRequest>) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::CleanUpRequest { request_id: id, all, keep_orphaned_disks } = request.into_inner();
        let wish = ops::CleanUp { all, keep_orphaned_disks, now: now() };
        self.service.clean_up(&caller, request_id(&id), wish).await.map(started).map_err(status)
    }

    async fn preview(
        &self,
        request: Request<pb::CleanUpPreviewRequest>,
    ) -> Result<Response<pb::CleanUpPreviewResponse>, Status> {
        let caller = self.caller(&request).await?;
        let pb::CleanUpPreviewRequest { all, keep_orphaned_disks } = request.into_inner();
        let wish = ops::CleanUp { all, keep_orphaned_disks, now: now() };
        let LeftoverRows { releases, stemcells, disks, vms, exports, dns_blobs } =
            self.service.leftovers(&caller, wish).await.map_err(status)?;
        let of_stemcell =
            |row: &model::stemcell::StemcellRecord| format!("{}/{}", row.stemcell.name, row.stemcell.version);
        let mut stemcells: Vec<String> = stemcells.iter().map(of_stemcell).collect();
        // One row for each CPI.
        stemcells.dedup();
        Ok(Response::new(pb::CleanUpPreviewResponse {
            releases: releases.iter().map(|r| format!("{}/{}", r.name, r.version)).collect(),
            stemcells,
            orphaned_vms: vms
                .into_iter()
                .map(|o| o.vm.cid.map_or_else(|| o.vm.agent.to_string(), |cid| cid.to_string()))
                .collect(),
            orphaned_disks: disks
                .into_iter()
                .map(|o| o.disk.cid.map_or_else(|| o.disk.id.to_string(), |cid| cid.to_string()))
                .collect(),
            exported_releases: exports.iter().map(ToString::to_string).collect(),
            dns_blobs: dns_blobs.iter().map(ToString::to_string).collect(),
        }))
    }
}
