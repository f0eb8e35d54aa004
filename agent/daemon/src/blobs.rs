//! Blobs to and from a director, whichever one serves the agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use model::BlobDigest;
use proto::agent::v1::agent_blobs_client::AgentBlobsClient;
use proto::agent::v1::{BlobChunk, GetBlobRequest};
use retry::Verdict;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::agent::Link;
use crate::error::ActionError;

/// Tries over whichever director there is: long enough for a leader change, short enough for a deploy.
const TRY: retry::Policy = retry::Policy {
    initial: Duration::from_millis(300),
    max: Duration::from_secs(5),
    total: Some(Duration::from_secs(120)),
};

/// A transfer that makes no progress for this long is tried again elsewhere.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// How much is sent at once; the protocol's bound.
const PIECE_BYTES: usize = 256 << 10;

/// A blob that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its address.
    pub digest: BlobDigest,
    /// Its length.
    pub size_bytes: u64,
}

/// Where an agent gets blobs from and puts them.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Downloads a blob to a new file, readable by its owner only. The content is verified; no file is left on failure.
    async fn fetch(&self, digest: &BlobDigest, to: &Path) -> Result<(), ActionError>;

    /// Uploads a file. Twice equals once: blobs are addressed by their content.
    async fn store(&self, from: &Path) -> Result<Stored, ActionError>;
}

/// Blobs over the agent's own connection.
pub struct DirectorBlobs {
    link: Link,
}

impl DirectorBlobs {
    /// Returns the blobs that can be reached over `link`.
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    async fn fetch_once(&self, digest: &BlobDigest, to: &Path) -> Result<(), Verdict<ActionError>> {
        let mut client = AgentBlobsClient::new(self.link.channel().await);
        let get = client.get(GetBlobRequest { digest: digest.to_string() });
        let mut pieces = in_time(get).await.map_err(|status| verdict(digest, &status))?.into_inner();
        let mut file =
            private_file(to).await.map_err(|e| Verdict::Fatal(ActionError::file("create", to)(e)))?;
        let mut hasher = Sha256::new();
        loop {
            let piece = in_time(pieces.message()).await.map_err(|status| verdict(digest, &status))?;
            let Some(BlobChunk { data }) = piece else { break };
            hasher.update(&data);
            let written = file.write_all(&data).await;
            written.map_err(|e| Verdict::Fatal(ActionError::file("write", to)(e)))?;
        }
        file.flush().await.map_err(|e| Verdict::Fatal(ActionError::file("write", to)(e)))?;
        if hex::encode(hasher.finalize()) != digest.as_str() {
            return Err(Verdict::Again(ActionError::failed(format!(
                "blob {digest} arrived with another content"
            ))));
        }
        Ok(())
    }

    async fn store_once(&self, from: &Path) -> Result<Stored, Verdict<ActionError>> {
        let open = tokio::fs::File::open(from).await;
        let mut file = open.map_err(|e| Verdict::Fatal(ActionError::file("open", from)(e)))?;
        let (sender, receiver) = mpsc::channel::<BlobChunk>(4);
        let mut client = AgentBlobsClient::new(self.link.channel().await);
        // Owns the sender: its end is the end of the upload.
        let read = async move {
            loop {
                let mut data = bytes::BytesMut::with_capacity(PIECE_BYTES);
                let n = file.read_buf(&mut data).await.map_err(ActionError::file("read", from))?;
                if n == 0 {
                    return Ok::<_, ActionError>(());
                }
                let sent = sender.send(BlobChunk { data: data.freeze() });
                // A receiver that is gone, or stalls, reports through the call itself.
                if !matches!(tokio::time::timeout(STALLED_AFTER, sent).await, Ok(Ok(()))) {
                    return Ok(());
                }
            }
        };
        let put = client.put(ReceiverStream::new(receiver));
        let (read, stored) = tokio::join!(read, put);
        read.map_err(Verdict::Fatal)?;
        let stored = stored.map_err(|status| {
            let error = ActionError::failed(format!("cannot upload a blob: {}", status.message()));
            if is_passing(status.code()) { Verdict::Again(error) } else { Verdict::Fatal(error) }
        })?;
        let stored = stored.into_inner();
        Ok(Stored { digest: stored.digest.into(), size_bytes: stored.size_bytes })
    }
}

#[async_trait]
impl Blobs for DirectorBlobs {
    async fn fetch(&self, digest: &BlobDigest, to: &Path) -> Result<(), ActionError> {
        let fetched = retry::with_backoff(TRY, || self.fetch_once(digest, to)).await;
        if fetched.is_err() {
            // Already reporting the real trouble.
            let _ = tokio::fs::remove_file(to).await;
        }
        fetched
    }

    async fn store(&self, from: &Path) -> Result<Stored, ActionError> {
        retry::with_backoff(TRY, || self.store_once(from)).await
    }
}

async fn private_file(path: &Path) -> std::io::Result<tokio::fs::File> {
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path).await
}

async fn in_time<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, tonic::Status> {
    match tokio::time::timeout(STALLED_AFTER, call).await {
        Ok(result) => result,
        Err(_) => Err(tonic::Status::unavailable("the transfer makes no progress")),
    }
}

fn is_passing(code: Code) -> bool {
    !matches!(
        code,
        Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::ResourceExhausted
    )
}

fn verdict(digest: &BlobDigest, status: &tonic::Status) -> Verdict<ActionError> {
    let error = ActionError::failed(format!("cannot download blob {digest}: {}", status.message()));
    if is_passing(status.code()) { Verdict::Again(error) } else { Verdict::Fatal(error) }
}

/// Blobs in a directory, for tests and for machines without a director: a file per digest.
pub struct DirectoryBlobs {
    directory: PathBuf,
}

impl DirectoryBlobs {
    /// Returns the blobs in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }
}

#[async_trait]
impl Blobs for DirectoryBlobs {
    async fn fetch(&self, digest: &BlobDigest, to: &Path) -> Result<(), ActionError> {
        let from = self.directory.join(digest.as_str());
        tokio::fs::copy(&from, to).await.map(drop).map_err(ActionError::file("copy", &from))
    }

    async fn store(&self, from: &Path) -> Result<Stored, ActionError> {
        let content = tokio::fs::read(from).await.map_err(ActionError::file("read", from))?;
        let digest = hex::encode(Sha256::digest(&content));
        let to = self.directory.join(&digest);
        tokio::fs::write(&to, &content).await.map_err(ActionError::file("write", &to))?;
        Ok(Stored { digest: digest.into(), size_bytes: content.len() as u64 })
    }
}
