//! Files up and blobs down: streamed, checked against their address, begun again elsewhere when a replica fails.

use std::fs::File;
use std::io::{Read as _, Write};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use camino::Utf8Path;
use proto::v1::blobs_client::BlobsClient;
use proto::v1::{DownloadBlobRequest, StatBlobRequest, UploadBlobRequest};
use sha2::{Digest as _, Sha256};

use super::{Failed, Fleet, Kind, failure, refused};
use crate::call;
use crate::error::Error;

/// Size of one message of an upload: large enough to be fast, small enough for every server's limit.
const PART_BYTES: usize = 64 << 10;
/// Broken downloads in a row that bring no byte further, before we give up.
const FRUITLESS_MAX: u32 = 10;

/// A blob that the fleet holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Its SHA-256.
    pub digest: String,
    /// Its length.
    pub size_bytes: u64,
}

/// Returns a file's blob address and length.
pub fn hash_file(path: &Utf8Path) -> Result<Uploaded, Error> {
    let mut file = File::open(path).map_err(Error::file("read", path))?;
    let (mut sha, mut size_bytes, mut part) = (Sha256::new(), 0, vec![0; PART_BYTES]);
    loop {
        let count = file.read(&mut part).map_err(Error::file("read", path))?;
        if count == 0 {
            return Ok(Uploaded { digest: hex(&sha.finalize()), size_bytes });
        }
        sha.update(&part[..count]);
        size_bytes += count as u64;
    }
}

impl Fleet {
    /// Brings a file into the fleet unless it is there already. `progress` hears how many bytes of this attempt are sent.
    pub async fn upload(
        &self,
        path: &Utf8Path,
        progress: impl Fn(u64) + Clone + Send + Sync + 'static,
    ) -> Result<Uploaded, Error> {
        let local = hash_file(path)?;
        let known = call!(self, BlobsClient.stat(StatBlobRequest { digest: local.digest.clone() })).await?;
        if known.exists {
            progress(local.size_bytes);
            return Ok(local);
        }
        let unreadable: Arc<OnceLock<std::io::Error>> = Arc::default();
        let answer = self
            .try_all("BlobsClient.upload", async |link| {
                let parts = Parts::open(path, progress.clone(), unreadable.clone());
                let answer = BlobsClient::new(link).upload(tokio_stream::iter(parts)).await;
                answer.map(tonic::Response::into_inner).map_err(Failed::Status)
            })
            .await;
        // Whatever the fleet made of the part that it got: this is the cause.
        if let Some(source) = Arc::into_inner(unreadable).and_then(OnceLock::into_inner) {
            return Err(Error::file("read", path)(source));
        }
        let answer = answer?;
        if answer.digest != local.digest {
            return Err(Error::Usage(format!("`{path}` changed while it was uploaded: try again")));
        }
        Ok(local)
    }

    /// Writes a blob's content to `out`. A stream that breaks is opened again elsewhere, and what we have is skipped.
    pub async fn download(&self, digest: &str, out: &mut dyn Write) -> Result<u64, Error> {
        let (mut sha, mut written, mut fruitless) = (Sha256::new(), 0, 0);
        loop {
            let before = written;
            match self.download_once(digest, &mut written, &mut sha, out).await {
                Ok(()) => break,
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Stream(status)) => {
                    fruitless = if written > before { 0 } else { fruitless + 1 };
                    if failure::kind(&status) == Kind::Final {
                        return Err(refused("BlobsClient.download", &status));
                    }
                    if fruitless == FRUITLESS_MAX {
                        return Err(self.lost("BlobsClient.download", &status));
                    }
                    self.move_on();
                }
            }
        }
        let actual = hex(&sha.finalize());
        if actual != digest {
            return Err(Error::Protocol(format!("blob {digest} arrived with SHA-256 {actual}")));
        }
        Ok(written)
    }

    async fn download_once(
        &self,
        digest: &str,
        written: &mut u64,
        sha: &mut Sha256,
        out: &mut dyn Write,
    ) -> Result<(), Broken> {
        let request = DownloadBlobRequest { digest: digest.to_owned() };
        let open = self.open("BlobsClient.download", async |link| {
            BlobsClient::new(link).download(request.clone()).await
        });
        let mut stream = open.await.map_err(Broken::Final)?;
        let mut skip = *written;
        while let Some(part) = stream.message().await.map_err(Broken::Stream)? {
            let known = skip.min(part.data.len() as u64);
            skip -= known;
            let fresh = &part.data[known as usize..];
            out.write_all(fresh).map_err(|error| Broken::Final(error.into()))?;
            sha.update(fresh);
            *written += fresh.len() as u64;
        }
        Ok(())
    }
}

enum Broken {
    Stream(tonic::Status),
    Final(Error),
}

/// A file as messages. Reading blocks, for as long as a local disk takes for one part: nobody else shares this thread.
struct Parts<P> {
    file: Option<File>,
    sent: u64,
    progress: P,
    unreadable: Arc<OnceLock<std::io::Error>>,
}

impl<P: Fn(u64)> Parts<P> {
    fn open(path: &Utf8Path, progress: P, unreadable: Arc<OnceLock<std::io::Error>>) -> Self {
        let file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                unreadable.get_or_init(|| error);
                None
            }
        };
        Self { file, sent: 0, progress, unreadable }
    }
}

impl<P: Fn(u64)> Iterator for Parts<P> {
    type Item = UploadBlobRequest;

    fn next(&mut self) -> Option<UploadBlobRequest> {
        let mut part = vec![0; PART_BYTES];
        match self.file.as_mut()?.read(&mut part) {
            Ok(0) => None,
            Ok(count) => {
                part.truncate(count);
                self.sent += count as u64;
                (self.progress)(self.sent);
                Some(UploadBlobRequest { data: Bytes::from(part) })
            }
            Err(error) => {
                self.unreadable.get_or_init(|| error);
                None
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
