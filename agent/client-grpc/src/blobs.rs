//! `AgentBlobs`: content-addressed blobs, both ways, in pieces.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::{AgentId, BlobDigest};
use proto::agent::v1::agent_blobs_server::AgentBlobs;
use proto::agent::v1::{BlobChunk, GetBlobRequest, PutBlobResponse};
use tonic::{Request, Response, Status, Streaming};

use crate::hub::AgentHub;
use crate::identity;
use crate::peer_certificate::agent_of;
use crate::ports::BlobAccessError;

/// Largest piece that is sent; what the store gives in larger ones is cut.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// The service; see the module's header.
pub(crate) struct BlobService {
    hub: Arc<AgentHub>,
}

impl BlobService {
    pub(crate) fn new(hub: Arc<AgentHub>) -> Self {
        Self { hub }
    }
}

impl BlobService {
    async fn admitted<T>(&self, request: &Request<T>) -> Result<AgentId, Status> {
        let peer = agent_of(request)?;
        self.hub.parts.identity.admit(&peer).await.map_err(|error| identity::status(&error))?;
        Ok(peer.agent)
    }
}

#[tonic::async_trait]
impl AgentBlobs for BlobService {
    type GetStream = BoxStream<'static, Result<BlobChunk, Status>>;

    async fn get(&self, request: Request<GetBlobRequest>) -> Result<Response<Self::GetStream>, Status> {
        let agent = self.admitted(&request).await?;
        let digest = BlobDigest::from(request.into_inner().digest);
        let content = self.hub.parts.blobs.get(&agent, &digest).await.map_err(|error| status(&error))?;
        let pieces = content.flat_map(|piece| {
            let pieces: Vec<Result<BlobChunk, Status>> = match piece {
                Ok(mut bytes) => {
                    let mut pieces = Vec::with_capacity(bytes.len().div_ceil(PIECE_BYTES_MAX));
                    while !bytes.is_empty() {
                        let data = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
                        pieces.push(Ok(BlobChunk { data }));
                    }
                    pieces
                }
                Err(error) => vec![Err(status(&error))],
            };
            futures::stream::iter(pieces)
        });
        Ok(Response::new(pieces.boxed()))
    }

    async fn put(&self, request: Request<Streaming<BlobChunk>>) -> Result<Response<PutBlobResponse>, Status> {
        let agent = self.admitted(&request).await?;
        let pieces = request.into_inner().map(|piece| match piece {
            Ok(piece) => Ok(piece.data),
            Err(status) => Err(BlobAccessError::Unavailable { reason: status.message().to_owned() }),
        });
        let stored =
            self.hub.parts.blobs.put(&agent, pieces.boxed()).await.map_err(|error| status(&error))?;
        Ok(Response::new(PutBlobResponse {
            digest: stored.digest.to_string(),
            size_bytes: stored.size_bytes,
        }))
    }
}

fn status(error: &BlobAccessError) -> Status {
    match error {
        BlobAccessError::NotFound { .. } => Status::not_found(error.to_string()),
        BlobAccessError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
        BlobAccessError::Unavailable { .. } => Status::unavailable(error.to_string()),
    }
}
