//! A snapshot on its way from one replica to another: file by file, in chunks, from disk to disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use proto::peer::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use wire::snapshot_chunk::Body;

use crate::codec::{self, DecodeError};
use crate::disk;
use crate::peer::Peer;
use crate::snapshot::{Snapshot, SnapshotDir};
use crate::state_store::StateStore;
use crate::type_config::{SnapshotMeta, Vote};

/// What one message carries. Large enough for the disk, small enough for memory and for fairness on the wire.
const CHUNK_BYTES: usize = 512 << 10;
/// Messages that wait for the network.
const CHUNKS_IN_FLIGHT: usize = 4;
/// A transfer without progress for this long is given up.
const STALL: Duration = Duration::from_secs(30);
/// A RocksDB checkpoint has a few dozen files; this only keeps a broken peer from filling the directory.
const FILES_MAX: usize = 100_000;

/// A snapshot as it arrives.
pub(crate) type Chunks = BoxStream<'static, Result<wire::SnapshotChunk, tonic::Status>>;

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("the snapshot cannot be read or written")]
    Io(#[from] io::Error),
    #[error("the peer ended the transfer: {0}")]
    Peer(#[source] Box<tonic::Status>),
    #[error("the snapshot transfer made no progress for {STALL:?}")]
    Stalled,
    #[error("the snapshot transfer is malformed: {0}")]
    Malformed(String),
    #[error("the snapshot transfer is malformed")]
    Decode(#[from] DecodeError),
}

impl From<tonic::Status> for TransferError {
    fn from(status: tonic::Status) -> Self {
        Self::Peer(Box::new(status))
    }
}

/// Sends `snapshot` under the leader's `vote`; returns the receiver's vote.
pub(crate) async fn send(peer: &dyn Peer, vote: Vote, snapshot: Snapshot) -> Result<Vote, TransferError> {
    let (chunks, outbox) = mpsc::channel(CHUNKS_IN_FLIGHT);
    // The sender goes with the future, and with it the stream ends.
    let reading = read_into(chunks, vote, &snapshot);
    let answer = peer.install_snapshot(ReceiverStream::new(outbox).boxed());
    tokio::pin!(reading, answer);
    let answer = tokio::select! {
        // The receiver may end the transfer before it is complete: it has seen a newer leader.
        answer = &mut answer => answer,
        read = &mut reading => {
            read?;
            answer.await
        }
    };
    Ok(codec::vote_in(answer?.vote)?)
}

async fn read_into(
    chunks: mpsc::Sender<wire::SnapshotChunk>,
    vote: Vote,
    snapshot: &Snapshot,
) -> Result<(), TransferError> {
    let dir = snapshot.snapshot.clone();
    let files = blocking(&dir, SnapshotDir::files).await?;
    let header = wire::SnapshotHeader {
        vote: Some(codec::vote_out(&vote)),
        last: snapshot.meta.last_log_id.as_ref().map(codec::log_id_out),
        membership: Some(codec::stored_membership_out(&snapshot.meta.last_membership)),
        total_bytes: files.iter().map(|file| file.bytes).sum(),
    };
    put(&chunks, Body::Header(header)).await?;
    for file in files {
        put(&chunks, Body::File(wire::SnapshotFile { name: file.name.clone(), bytes: file.bytes })).await?;
        let mut sent = 0;
        while sent < file.bytes {
            let (path, left) = (dir.path().join(&file.name), file.bytes - sent);
            let max = CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES));
            let chunk = blocking(&dir, move |dir| dir.disk().read(&path, sent, max)).await?;
            if chunk.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            sent += chunk.len() as u64;
            put(&chunks, Body::Data(chunk.into())).await?;
        }
    }
    Ok(())
}

async fn put(chunks: &mpsc::Sender<wire::SnapshotChunk>, body: Body) -> Result<(), TransferError> {
    match tokio::time::timeout(STALL, chunks.send(wire::SnapshotChunk { body: Some(body) })).await {
        Ok(Ok(())) => Ok(()),
        // The call has ended; its answer says why.
        Ok(Err(_)) => std::future::pending().await,
        Err(_) => Err(TransferError::Stalled),
    }
}

/// Receives a snapshot into a temporary directory of `store`, which goes again unless the snapshot is installed.
pub(crate) async fn receive(
    mut chunks: Chunks,
    store: &Arc<StateStore>,
) -> Result<(Vote, Snapshot), TransferError> {
    let Some(Body::Header(header)) = next(&mut chunks).await? else {
        return Err(TransferError::Malformed("it does not begin with a header".into()));
    };
    let missing = || TransferError::Malformed("its header lacks the membership".into());
    let vote = codec::vote_in(header.vote)?;
    let meta = SnapshotMeta {
        last_log_id: header.last.map(codec::log_id_in),
        last_membership: codec::stored_membership_in(header.membership.ok_or_else(missing)?)?,
    };
    let dir = store.temporary_snapshot()?;
    let bytes = write_files(&mut chunks, &dir).await?;
    if bytes != header.total_bytes {
        let error = format!("{bytes} of {} bytes arrived", header.total_bytes);
        return Err(TransferError::Malformed(error));
    }
    blocking(&dir, |dir| dir.disk().sync_files(dir.path())).await?;
    // Before it takes the place of a state that may be sound.
    blocking(&dir, |dir| Ok(dir.check().map_err(|error| error.to_string())))
        .await?
        .map_err(|error| TransferError::Malformed(format!("it is damaged: {error}")))?;
    Ok((vote, Snapshot { meta, snapshot: dir }))
}

/// Writes the files as they come; returns how many bytes that were.
async fn write_files(chunks: &mut Chunks, dir: &SnapshotDir) -> Result<u64, TransferError> {
    let mut total = 0;
    let mut files = 0;
    let mut current: Option<(PathBuf, u64)> = None;
    while let Some(body) = next(chunks).await? {
        match body {
            Body::File(file) => {
                files += 1;
                finished(current.take())?;
                let plain = !file.name.is_empty() && !file.name.contains('/') && !file.name.starts_with('.');
                if !plain || files > FILES_MAX {
                    return Err(TransferError::Malformed(format!("unexpected file {:?}", file.name)));
                }
                let path = dir.path().join(&file.name);
                current = Some((path.clone(), file.bytes));
                blocking(dir, move |dir| dir.disk().create(&path)).await?;
            }
            Body::Data(data) => {
                let Some((path, left)) = current.as_mut().filter(|(_, left)| *left >= data.len() as u64)
                else {
                    return Err(TransferError::Malformed("content that belongs to no file".into()));
                };
                *left -= data.len() as u64;
                total += data.len() as u64;
                let path = path.clone();
                blocking(dir, move |dir| dir.disk().append(&path, &data)).await?;
            }
            Body::Header(_) => return Err(TransferError::Malformed("a second header".into())),
        }
    }
    finished(current)?;
    Ok(total)
}

fn finished(file: Option<(PathBuf, u64)>) -> Result<(), TransferError> {
    match file {
        None | Some((_, 0)) => Ok(()),
        Some((_, left)) => Err(TransferError::Malformed(format!("a file lacks its last {left} bytes"))),
    }
}

/// Reads or writes where it holds nobody up.
async fn blocking<T: Send + 'static>(
    dir: &SnapshotDir,
    work: impl FnOnce(&SnapshotDir) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let moved = dir.clone();
    disk::run(dir.disk(), move || work(&moved)).await.map_err(io::Error::other)?
}

async fn next(chunks: &mut Chunks) -> Result<Option<Body>, TransferError> {
    match tokio::time::timeout(STALL, chunks.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(chunk)) => match chunk?.body {
            Some(body) => Ok(Some(body)),
            None => Err(TransferError::Malformed("an empty message".into())),
        },
        Err(_) => Err(TransferError::Stalled),
    }
}
