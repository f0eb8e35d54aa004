//! Blobs in and out, streamed.

use std::io;
use std::pin::Pin;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use model::BlobDigest;
use proto::v1 as pb;
use proto::v1::blobs_server::Blobs;
use release::{BlobError, Blobstore as _};
use service::Right;
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::{Request, Response, Status, Streaming};

use crate::door::{Door, at_most};
use crate::error_map::{of_blob, status, unavailable};

/// Bytes in one message.
const PART_BYTES: usize = 256 * 1024;

/// Tells a damaged copy from a disk that can't be read: reading on elsewhere helps against both.
fn of_read(error: io::Error) -> Status {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<BlobError>()) {
        Some(damaged) => of_blob(damaged),
        None => unavailable(error.to_string()),
    }
}

#[async_trait]
impl Blobs for Door {
    async fn upload(
        &self,
        request: Request<Streaming<pb::UploadBlobRequest>>,
    ) -> Result<Response<pb::UploadBlobResponse>, Status> {
        let caller = self.caller(&request).await?;
        self.service.may_upload(&caller, Right::Upload).map_err(status)?;
        let parts = request.into_inner().map(|part| part.map(|p| p.data).map_err(io::Error::other));
        let mut reader = StreamReader::new(Box::pin(at_most(self.upload_bytes_max, parts)));
        let stored = self.blobs.put(&mut reader).await.map_err(|e| of_blob(&e))?;
        Ok(Response::new(pb::UploadBlobResponse {
            digest: stored.digest.to_string(),
            size_bytes: stored.bytes,
        }))
    }

    type DownloadStream = Pin<Box<dyn Stream<Item = Result<pb::BlobPart, Status>> + Send>>;

    async fn download(
        &self,
        request: Request<pb::DownloadBlobRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let caller = self.caller(&request).await?;
        self.service.may_download(&caller).map_err(status)?;
        let digest = BlobDigest::new(request.into_inner().digest);
        let reader = self.blobs.get(&digest).await.map_err(|e| of_blob(&e))?;
        let parts = ReaderStream::with_capacity(reader, PART_BYTES).map(|part| match part {
            Ok(data) => Ok(pb::BlobPart { data }),
            Err(error) => Err(of_read(error)),
        });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn stat(
        &self,
        request: Request<pb::StatBlobRequest>,
    ) -> Result<Response<pb::StatBlobResponse>, Status> {
        let caller = self.caller(&request).await?;
        let digest = BlobDigest::new(request.into_inner().digest);
        let record = self.service.blob(&caller, &digest).await.map_err(status)?;
        Ok(Response::new(match record {
            None => pb::StatBlobResponse::default(),
            Some(record) => pb::StatBlobResponse {
                exists: true,
                size_bytes: record.size_bytes,
                nodes: record.nodes.into_iter().map(|n| n.0).collect(),
            },
        }))
    }
}
