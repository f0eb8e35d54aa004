//! Archives that others keep: whoever leads fetches them into the fleet's blobs, and goes on as with one that was uploaded.
//!
//! A new leader begins anew. Where the digest is the one that names blobs, an archive that the fleet holds already is not
//! fetched once more. What has another digest than the announced one is never stored.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use model::task::{OutputKind, RemoteArchive, TaskError};
use model::{BlobDigest, ErrorCode};
use release::digest::{Algorithm, Hasher, MultiDigest};
use serde_json::Value;
use state::State;
use state::command::TaskEnd;
use tokio::io::{AsyncRead, ReadBuf};

use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::ports::ArchiveError;
use crate::prepare::Lines;

/// Where the archive of an upload is.
#[derive(Clone, Copy, Debug)]
pub enum Archive<'a> {
    /// It was brought: this blob.
    Stored(&'a BlobDigest),
    /// Somebody else keeps it.
    Remote(&'a RemoteArchive),
}

/// What is fetched, in the words and numbers that BOSH has for it.
pub(super) struct Remote {
    /// `release` or `stemcell`.
    pub noun: &'static str,
    /// The stage of the upload that fetching is a part of; each part is its own stage if absent.
    pub stage: Option<&'static str>,
    /// The error for another content than the announced one.
    pub wrong_digest: ErrorCode,
}

impl Archive<'_> {
    /// Returns how many parts the fetching has.
    pub(super) fn parts(self) -> u32 {
        match self {
            Self::Stored(_) => 0,
            Self::Remote(archive) => 1 + u32::from(archive.digest.is_some()),
        }
    }

    /// Returns the blob that the archive is by now, or how the task ends without one.
    pub(super) async fn stored(
        self,
        context: &TaskContext,
        lines: &Lines<'_>,
        remote: &Remote,
    ) -> Result<Result<BlobDigest, TaskEnd>, Interrupted> {
        let archive = match self {
            Self::Stored(blob) => return Ok(Ok(blob.clone())),
            Self::Remote(archive) => archive,
        };
        let downloading = format!("Downloading remote {}", remote.noun);
        let verifying = format!("Verifying remote {}", remote.noun);
        let stage = |part| remote.stage.unwrap_or(part);
        // A stage of its own begins to count anew.
        let second = if remote.stage.is_some() { 2 } else { 1 };
        lines.started(stage(&downloading), &downloading, 1).await?;
        let error = match fetch(context, archive, remote).await? {
            Err(NotFetched::Cancelled) => return Ok(Err(TaskEnd::Cancelled)),
            Err(NotFetched::Failed(error)) => {
                lines.ended_badly(stage(&downloading), &downloading, 1, &error).await?;
                return Ok(Err(TaskEnd::Error(error)));
            }
            Ok(blob) => {
                // Once it is read, nobody needs it.
                context.may_leave(vec![blob.clone()]).await?;
                lines.finished(stage(&downloading), &downloading, 1).await?;
                if archive.digest.is_some() {
                    lines.done(stage(&verifying), &verifying, second).await?;
                }
                return Ok(Ok(blob));
            }
            Err(NotFetched::Another(error)) => error,
        };
        lines.finished(stage(&downloading), &downloading, 1).await?;
        lines.started(stage(&verifying), &verifying, second).await?;
        lines.ended_badly(stage(&verifying), &verifying, second, &error).await?;
        Ok(Err(TaskEnd::Error(error)))
    }
}

/// Why there is no blob.
enum NotFetched {
    Cancelled,
    Failed(TaskError),
    /// It is not what was announced.
    Another(TaskError),
}

async fn fetch(
    context: &TaskContext,
    archive: &RemoteArchive,
    remote: &Remote,
) -> Result<Result<BlobDigest, NotFetched>, Interrupted> {
    let expected = match archive.digest.as_deref().map(MultiDigest::parse).transpose() {
        Ok(expected) => expected,
        Err(error) => {
            return Ok(Err(NotFetched::Another(TaskError::new(remote.wrong_digest, error.to_string()))));
        }
    };
    if let Some(held) = expected.as_ref().and_then(|expected| held(context, expected)) {
        return Ok(Ok(held));
    }
    let opened = context.ports.vault.open(RemoteArchive::SEALED_AS, &archive.location);
    let url = match opened {
        Ok(Value::String(url)) => url,
        Ok(_) => return Ok(Err(NotFetched::Failed(TaskError::plain("a location of an archive is a text")))),
        Err(error) => return Ok(Err(NotFetched::Failed(TaskError::plain(error.to_string())))),
    };
    context.fence.check()?;
    tokio::select! {
        fetched = store(context, &url, expected, remote) => Ok(fetched),
        () = context.cancelled.cancelled() => Ok(Err(NotFetched::Cancelled)),
        lost = context.fence.lost() => Err(lost.into()),
    }
}

/// Returns the blob that the digest names, if the fleet has it.
fn held(context: &TaskContext, expected: &MultiDigest) -> Option<BlobDigest> {
    let (Algorithm::Sha256, hex) = expected.strongest() else { return None };
    let blob = BlobDigest::new(hex);
    let view = context.view();
    State::new(&*view).held_blob(&blob).map(|_| blob)
}

/// Has the store read what the URL leads to.
async fn store(
    context: &TaskContext,
    url: &str,
    expected: Option<MultiDigest>,
    remote: &Remote,
) -> Result<BlobDigest, NotFetched> {
    let noun = remote.noun;
    let content = context.ports.archives.open(url).await.map_err(|error| {
        explain(context, noun, &error);
        NotFetched::Failed(match error {
            ArchiveError::NotFound { url } => {
                TaskError::new(ErrorCode::ResourceNotFound, format!("No {noun} found at '{url}'."))
            }
            ArchiveError::TooManyRedirects { url } => {
                TaskError::new(ErrorCode::ResourceError, format!("Too many redirects at '{url}'."))
            }
            ArchiveError::Failed { .. } => broken(noun),
        })
    })?;
    let mut content =
        Watched { content, hashed: expected.is_some().then(Hasher::default), expected, ended: None };
    let error = match context.ports.blobs.put(&mut content).await {
        Ok(stored) => return Ok(stored.digest),
        Err(error) => error,
    };
    Err(match content.ended {
        Some(Ended::BrokenOff) => {
            explain(context, noun, &error);
            NotFetched::Failed(broken(noun))
        }
        Some(Ended::Another(text)) => NotFetched::Another(TaskError::new(remote.wrong_digest, text)),
        // The store's own trouble: there is no room, or nobody to hold a copy.
        None => NotFetched::Failed(TaskError::plain(error.to_string())),
    })
}

fn broken(noun: &str) -> TaskError {
    let text = format!("Downloading remote {noun} failed. Check task debug log for details.");
    TaskError::new(ErrorCode::ResourceError, text)
}

/// Tells developers what went wrong, down to its cause.
fn explain(context: &TaskContext, noun: &str, error: &dyn Error) {
    let mut text = format!("Downloading remote {noun} failed: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text.push('\n');
    context.ports.output.write(context.id(), OutputKind::Debug, &text);
}

/// A content that knows why it ended, and fails at its end if it is another than the announced one: then nothing is stored.
struct Watched<R> {
    content: R,
    expected: Option<MultiDigest>,
    hashed: Option<Hasher>,
    ended: Option<Ended>,
}

enum Ended {
    BrokenOff,
    Another(String),
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.content).poll_read(cx, buffer)) {
            self.ended = Some(Ended::BrokenOff);
            return Poll::Ready(Err(error));
        }
        let fresh = &buffer.filled()[before..];
        if !fresh.is_empty() {
            if let Some(hasher) = &mut self.hashed {
                hasher.update(fresh);
            }
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match self.wrong() {
            None => Ok(()),
            Some(text) => {
                self.ended = Some(Ended::Another(text.clone()));
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        })
    }
}

impl<R> Watched<R> {
    /// Returns what is wrong with the content, now that it is known whole.
    fn wrong(&mut self) -> Option<String> {
        let (expected, hashed) = (self.expected.as_ref()?, self.hashed.take()?.finish());
        let (algorithm, _) = expected.strongest();
        let actual = hashed.hex(algorithm);
        (!expected.matches(&hashed))
            .then(|| format!("Expected stream to have digest '{expected}' but was '{actual}'"))
    }
}
