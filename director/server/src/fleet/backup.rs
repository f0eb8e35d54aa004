//! A backup of the fleet, as the bytes of a file. It is read from this replica's own state and sent as it is read: nothing
//! of it is held whole. What is in the file, and how, is the `backup` crate's; who may have it, the service's.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use backup::{Encoder, FORMAT, Header};
use bytes::Bytes;
use futures::StreamExt as _;
use raft::StateView;
use release::{BlobError, Blobstore as _};
use state::State;
use state::command::FEATURE_LEVEL;
use state::kv::{Direction, KvRead as _, Span};
use state::records::BlobRecord;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};

use super::blobs::FleetBlobs;
use super::fsm::Look;
use super::log::now;
use crate::error_map::{internal, of_blob, unavailable};

/// Bytes in one message.
const PIECE_BYTES: usize = 256 << 10;

/// Messages ahead of a slow reader.
const AHEAD: usize = 4;

/// A reader who takes nothing for this long is given up: for as long as it is read, the state keeps what it has replaced.
const STALL: Duration = Duration::from_secs(60);

/// The messages of a backup.
pub type Pieces = mpsc::Receiver<Result<Bytes, Status>>;

/// A backup that is being sent.
pub struct Sending {
    look: Look,
    position: (u64, u64),
    blobs: Option<Arc<FleetBlobs>>,
    to: mpsc::Sender<Result<Bytes, Status>>,
}

/// Why no more is sent.
enum End {
    /// Nobody reads any more.
    Gone,
    /// The reader must be told.
    Failed(Status),
}

impl Sending {
    /// Takes up the state as `view` shows it, with `blobs` if they are wanted. Returns also where its bytes come out.
    pub fn new(view: StateView, blobs: Option<Arc<FleetBlobs>>) -> (Self, Pieces) {
        let (to, pieces) = mpsc::channel(AHEAD);
        let position = (view.applied_index(), view.applied_term());
        (Self { look: Look(view), position, blobs, to }, pieces)
    }

    /// Sends everything, until it is sent, nobody reads any more, or the replica stops.
    pub async fn run(self, stop: CancellationToken) {
        let index = self.position.0;
        let to = self.to.clone();
        let sent = tokio::select! {
            sent = self.send(stop.clone()) => sent,
            () = stop.cancelled() => Err(End::Failed(unavailable("this director is stopping"))),
        };
        match sent {
            Ok(()) => info!(index, "a backup was taken"),
            Err(End::Gone) => warn!(index, "a backup was not read to its end"),
            Err(End::Failed(status)) => {
                warn!(index, error = %status, "a backup was not taken");
                // Best effort: without it the reader sees a file without an end.
                let _ = to.send_timeout(Err(status), STALL).await;
            }
        }
    }

    async fn send(self, stop: CancellationToken) -> Result<(), End> {
        let Self { look, position, blobs, to } = self;
        let (sender, runtime) = (to.clone(), Handle::current());
        let with_blobs = blobs.is_some();
        let rows = tokio::task::spawn_blocking(move || {
            let send = |piece| match stop.is_cancelled() {
                true => Err(End::Gone),
                false => runtime.block_on(put(&sender, piece)),
            };
            rows(&look, position, with_blobs, send)
        });
        let (mut encoder, listed) =
            rows.await.map_err(|_| End::Failed(internal("reading the state failed")))??;
        if let Some(blobs) = blobs {
            for blob in listed {
                encoder = send_blob(&blobs, &blob, encoder, &to).await?;
            }
        }
        put(&to, encoder.end()).await
    }
}

async fn put(to: &mpsc::Sender<Result<Bytes, Status>>, piece: Vec<u8>) -> Result<(), End> {
    to.send_timeout(Ok(piece.into()), STALL).await.map_err(|_| End::Gone)
}

/// Sends the header and every row; returns also the blobs that the rows know, if they are wanted.
fn rows(
    look: &Look,
    (index, term): (u64, u64),
    with_blobs: bool,
    mut send: impl FnMut(Vec<u8>) -> Result<(), End>,
) -> Result<(Encoder, Vec<BlobRecord>), End> {
    let state = State::new(look);
    let cluster = state.cluster().ok_or_else(|| End::Failed(unavailable("the state has not arrived yet")))?;
    let (mut encoder, mut piece) = Encoder::begin(Header {
        format: FORMAT,
        cluster_id: cluster.cluster_id,
        fleet: cluster.director_name,
        index,
        term,
        taken_at_unix_ms: now().0,
        version: env!("CARGO_PKG_VERSION").into(),
        feature_level: FEATURE_LEVEL,
        with_blobs,
        tables: state::tables::ALL.iter().map(|table| (table.id, table.name.to_owned())).collect(),
    });
    for (key, value) in look.scan(Span { start: Vec::new(), end: None }, Direction::Forward) {
        piece.extend(encoder.row(&key, &value));
        if piece.len() >= PIECE_BYTES {
            send(mem::take(&mut piece))?;
        }
    }
    send(piece)?;
    Ok((encoder, if with_blobs { state.blobs() } else { Vec::new() }))
}

async fn send_blob(
    blobs: &FleetBlobs,
    blob: &BlobRecord,
    mut encoder: Encoder,
    to: &mpsc::Sender<Result<Bytes, Status>>,
) -> Result<Encoder, End> {
    let reader = match blobs.get(&blob.digest).await {
        Ok(reader) => reader,
        // Lost everywhere, or forgotten since: neither must keep the rest from being saved.
        Err(BlobError::NotFound { .. }) => {
            encoder.absent(blob.digest.as_str());
            return Ok(encoder);
        }
        Err(error) => return Err(End::Failed(of_blob(&error))),
    };
    put(to, encoder.blob(blob.digest.as_str(), blob.size_bytes)).await?;
    let mut pieces = ReaderStream::with_capacity(reader, PIECE_BYTES);
    while let Some(piece) = pieces.next().await {
        // A damaged copy is gone by now; who asks again gets a sound one.
        let piece = piece.map_err(|error| End::Failed(unavailable(error.to_string())))?;
        put(to, encoder.data(&piece)).await?;
    }
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use backup::{Item, Reader, verify};
    use service::Caller;
    use state::kv::{Kv as _, MemoryKv};
    use state::log::CommandLog as _;
    use state::query::EventFilter;

    use super::*;
    use crate::test_support::replica::Replica;

    async fn taken(replica: &Replica, blobs: bool) -> Vec<u8> {
        let blobs = blobs.then(|| replica.door.blobs.clone());
        let (sending, mut pieces) = Sending::new(replica.door.membership.node.view(), blobs);
        let mut file = Vec::new();
        let receive = async {
            while let Some(piece) = pieces.recv().await {
                file.extend(piece.unwrap());
            }
        };
        tokio::join!(sending.run(CancellationToken::new()), receive);
        file
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_row_and_every_blob_is_in_it() {
        let (replica, _) = Replica::with_agent().await;
        let large: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|n| n as u8).collect();
        let blob = replica.door.blobs.put(&mut large.as_slice()).await.unwrap();
        let lost = state::command::Command::BlobHeld {
            digest: model::BlobDigest::new("a".repeat(64)),
            size_bytes: 1,
            nodes: vec![model::NodeId(9)],
        };
        replica.must(lost).await;
        let file = taken(&replica, true).await;
        let report = verify(file.as_slice()).unwrap();
        assert_eq!(report.damages, Vec::<String>::new());
        assert_eq!((report.counts.blobs, report.counts.blob_bytes), (1, blob.bytes));
        assert_eq!(report.counts.absent, ["a".repeat(64)]);
        let view = replica.door.membership.node.view();
        assert_eq!((report.header.index, report.header.term), (view.applied_index(), view.applied_term()));
        // The same rows, and nothing else.
        let (mut restored, mut reader) = (MemoryKv::new(), Reader::open(file.as_slice()).unwrap());
        while let Some(item) = reader.item().unwrap() {
            if let Item::Row { key, value } = item {
                restored.put(key, value);
            }
        }
        let all = || Span { start: Vec::new(), end: None };
        let look = Look(view);
        assert!(look.scan(all(), Direction::Forward).eq(restored.scan(all(), Direction::Forward)));
        let small = verify(taken(&replica, false).await.as_slice()).unwrap();
        assert_eq!((small.counts.blobs, small.counts.rows), (0, report.counts.rows));
        replica.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_is_for_admins_and_leaves_an_event_once() {
        let replica = Replica::start().await;
        let caller =
            |scope: &str| Caller { user: "u".into(), scopes: [scope.to_owned()].into(), ..Caller::default() };
        let begin = |scope: &str| {
            let (service, caller) = (replica.door.service.clone(), caller(scope));
            async move { service.begin_backup(&caller, Some("one".into()), false).await }
        };
        assert!(begin("bosh.read").await.is_err());
        begin("bosh.admin").await.unwrap();
        begin("bosh.admin").await.unwrap();
        let view = replica.log.view();
        let events = State::new(&*view).events(&EventFilter::default(), None, 100);
        assert_eq!(events.iter().filter(|e| e.object_type == "snapshot").count(), 1);
        replica.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_that_leaves_ends_it() {
        let replica = Replica::start().await;
        let (sending, pieces) = Sending::new(replica.door.membership.node.view(), None);
        drop(pieces);
        tokio::time::timeout(STALL, sending.run(CancellationToken::new())).await.unwrap();
        replica.stop().await;
    }
}
