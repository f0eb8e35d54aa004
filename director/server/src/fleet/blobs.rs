//! Blobs beside the replicas: a blob exists once a majority holds it; a missing copy is healed in the background.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use model::{BlobDigest, NodeId, Revision};
use proto::peer::v1 as pb;
use proto::peer::v1::blob_copies_client::BlobCopiesClient;
use proto::peer::v1::blob_copies_server::BlobCopies;
use release::{BlobError, BlobReader, BlobStat, Blobstore, LocalBlobs};
use state::State;
use state::command::Command;
use state::log::{CommandLog, Proposal};
use state::records::BlobRecord;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::log::RaftLog;
use super::peers::PeerChannels;
use crate::error_map::of_blob;

/// Bytes in one piece on the wire.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces read ahead of a slow peer.
const PIECES_AHEAD: usize = 4;

/// How often the healer compares the folder with the records: a copy may be lost without an entry in the log.
const HEAL_EVERY: Duration = Duration::from_secs(300);

/// Pause of the healer after a look. Changes come in bursts, a look reads the record of every blob, and a blob that a
/// majority holds is in no hurry.
const HEAL_PAUSE: Duration = Duration::from_secs(10);

/// A blob's content as a peer sends it.
type Content = Pin<Box<dyn futures::Stream<Item = io::Result<Bytes>> + Send>>;

/// The fleet's blobs as one store.
#[derive(Clone)]
pub struct FleetBlobs {
    id: NodeId,
    local: Arc<LocalBlobs>,
    log: RaftLog,
    peers: Arc<PeerChannels>,
}

impl FleetBlobs {
    /// Makes the fleet's store out of this replica's folder.
    pub fn new(id: NodeId, local: Arc<LocalBlobs>, log: RaftLog, peers: Arc<PeerChannels>) -> Self {
        Self { id, local, log, peers }
    }

    /// Returns the service by which peers store and fetch copies here.
    pub fn copies(&self) -> CopiesService {
        CopiesService { local: self.local.clone() }
    }

    /// Returns this replica's folder.
    pub fn local(&self) -> Arc<LocalBlobs> {
        self.local.clone()
    }

    /// Returns this replica's number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the log that blobs are recorded in.
    pub fn log(&self) -> &RaftLog {
        &self.log
    }

    fn others(&self) -> Vec<(NodeId, String)> {
        let view = self.log.view();
        let members = State::new(&*view).members();
        members.into_iter().filter(|m| m.node != self.id).map(|m| (m.node, m.peer_address)).collect()
    }

    async fn copy_to(self, node: NodeId, address: String, digest: BlobDigest) -> anyhow::Result<NodeId> {
        let reader = self.local.get(&digest).await?;
        let (to, from) = mpsc::channel(PIECES_AHEAD);
        let feed = async move {
            let mut pieces = ReaderStream::with_capacity(reader, PIECE_BYTES);
            // A read error cuts the stream short; the address of what arrived tells.
            while let Some(Ok(data)) = pieces.next().await {
                if to.send(pb::BlobPiece { data }).await.is_err() {
                    return;
                }
            }
        };
        let mut client = BlobCopiesClient::new(self.peers.shared(node, &address)?);
        let (stored, ()) = tokio::join!(client.put(ReceiverStream::new(from)), feed);
        let stored = stored?.into_inner();
        anyhow::ensure!(stored.digest == digest.as_str(), "replica {node} stored something else");
        Ok(node)
    }

    /// Copies a blob to the others and returns who holds it, once that is a majority.
    async fn spread(&self, digest: &BlobDigest) -> Result<Vec<NodeId>, BlobError> {
        let others = self.others();
        let wanted = others.len().div_ceil(2) + 1;
        let mut holders = vec![self.id];
        let mut copies: FuturesUnordered<BoxFuture<'static, _>> = FuturesUnordered::new();
        let mut no_room = false;
        let replicas = others.len() + 1;
        for (node, address) in others {
            copies.push(self.clone().copy_to(node, address, digest.clone()).boxed());
        }
        while holders.len() < wanted {
            match copies.next().await {
                Some(Ok(node)) => holders.push(node),
                Some(Err(error)) => {
                    warn!(blob = %digest, error = %error, "a copy failed");
                    let full = |status: &Status| status.code() == Code::ResourceExhausted;
                    no_room |= error.downcast_ref().is_some_and(full);
                }
                None if no_room => return Err(BlobError::NoRoom { keep_free: self.local.kept_free() }),
                None => {
                    let source =
                        io::Error::other(format!("{} of {replicas} replicas hold it", holders.len()));
                    return Err(BlobError::Store {
                        operation: "replicate",
                        subject: digest.to_string(),
                        source,
                    });
                }
            }
        }
        Ok(holders)
    }

    async fn record(&self, digest: &BlobDigest, bytes: u64, nodes: Vec<NodeId>) -> Result<(), BlobError> {
        let held = Command::BlobHeld { digest: digest.clone(), size_bytes: bytes, nodes };
        self.log.propose(Proposal::own(held)).await.map(|_| ()).map_err(|error| BlobError::Store {
            operation: "record",
            subject: digest.to_string(),
            source: io::Error::other(error),
        })
    }

    /// Has a blob kept that is to be forgotten; returns whether it is not forgotten already.
    async fn keep(&self, digest: &BlobDigest) -> Result<bool, BlobError> {
        let keep = Command::BlobKeep { digest: digest.clone() };
        let kept = self.log.propose(Proposal::own(keep)).await;
        kept.map(|committed| committed.outcome.accepted().is_ok()).map_err(|error| BlobError::Store {
            operation: "keep",
            subject: digest.to_string(),
            source: io::Error::other(error),
        })
    }

    /// Fetches a copy from whoever holds one. There is none only if every other replica says so: one that can't be asked
    /// may hold it.
    async fn fetch(&self, digest: &BlobDigest) -> Result<(), BlobError> {
        let mut why = BlobError::NotFound { digest: digest.clone() };
        for (node, address) in self.holders_first(digest) {
            match self.fetch_from(node, &address, digest).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    warn!(blob = %digest, node = %node, error = %error, "could not fetch a copy");
                    why = self.why_not(digest, error).unwrap_or(why);
                }
            }
        }
        Err(why)
    }

    /// Returns why a copy could not be fetched, unless that is because there is none.
    fn why_not(&self, digest: &BlobDigest, error: anyhow::Error) -> Option<BlobError> {
        if matches!(error.downcast_ref(), Some(BlobError::NoRoom { .. })) {
            return Some(BlobError::NoRoom { keep_free: self.local.kept_free() });
        }
        let has_none = error.downcast_ref().is_some_and(|status: &Status| status.code() == Code::NotFound);
        let source = io::Error::other(error);
        let subject = digest.to_string();
        (!has_none).then_some(BlobError::Store { operation: "fetch", subject, source })
    }

    /// Reads a copy where it is, for want of room for one here. Whoever sends it compares it with its name.
    async fn pass_on(&self, digest: &BlobDigest) -> Result<BlobReader, BlobError> {
        let mut why = BlobError::NotFound { digest: digest.clone() };
        for (node, address) in self.holders_first(digest) {
            match self.pieces_of(node, &address, digest).await {
                Ok(pieces) => return Ok(Box::pin(StreamReader::new(pieces))),
                Err(error) => why = self.why_not(digest, error).unwrap_or(why),
            }
        }
        Err(why)
    }

    fn holders_first(&self, digest: &BlobDigest) -> Vec<(NodeId, String)> {
        let view = self.log.view();
        let holders = State::new(&*view).blob(digest).map(|b| b.nodes).unwrap_or_default();
        let mut others = self.others();
        others.sort_by_key(|(node, _)| !holders.contains(node));
        others
    }

    async fn fetch_from(&self, node: NodeId, address: &str, digest: &BlobDigest) -> anyhow::Result<()> {
        let mut reader = StreamReader::new(self.pieces_of(node, address, digest).await?);
        let stored = self.local.put(&mut reader).await?;
        anyhow::ensure!(stored.digest == *digest, "replica {node} sent something else");
        Ok(())
    }

    async fn pieces_of(&self, node: NodeId, address: &str, digest: &BlobDigest) -> anyhow::Result<Content> {
        let channel = self.peers.shared(node, address)?;
        let request = pb::BlobCopyRequest { digest: digest.to_string() };
        let pieces = BlobCopiesClient::new(channel).get(request).await?.into_inner();
        Ok(Box::pin(pieces.map(|p| p.map(|p| p.data).map_err(io::Error::other))))
    }

    /// Fetches every blob that this replica should hold and does not, for the life of the process.
    pub async fn heal(self, stop: CancellationToken) {
        let mut seen = Revision(0);
        let mut compare_at = Instant::now();
        loop {
            let here = match Instant::now() >= compare_at {
                true => self.here().await,
                false => None,
            };
            if here.is_some() {
                compare_at = Instant::now() + HEAL_EVERY;
            }
            tokio::select! {
                () = self.heal_once(here) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(HEAL_PAUSE) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                now = self.log.changed(seen) => seen = now,
                () = tokio::time::sleep_until(compare_at) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Returns the blobs in this replica's folder.
    async fn here(&self) -> Option<BTreeSet<BlobDigest>> {
        match self.local.list().await {
            Ok(found) => Some(found.into_iter().map(|b| b.digest).collect()),
            Err(error) => {
                warn!(error = %error, "the blobs' folder could not be listed");
                None
            }
        }
    }

    async fn heal_once(&self, here: Option<BTreeSet<BlobDigest>>) {
        let (id, view) = (self.id, self.log.view());
        let read = move || {
            let state = State::new(&*view);
            match state.member(id) {
                Some(_) => missing(state.blobs(), id, here.as_ref()),
                None => Vec::new(),
            }
        };
        // The table may be large: off the threads that serve everybody.
        let missing = tokio::task::spawn_blocking(read).await.unwrap_or_default();
        for blob in missing {
            let here = matches!(self.local.stat(&blob.digest).await, Ok(Some(_)));
            if !here && self.fetch(&blob.digest).await.is_err() {
                continue;
            }
            let recorded = blob.nodes.contains(&self.id);
            if recorded || self.record(&blob.digest, blob.size_bytes, vec![self.id]).await.is_ok() {
                info!(blob = %blob.digest, "copy healed");
            }
        }
    }
}

/// Returns the blobs that replica `own` should get: those that it is not recorded to hold and, if it is known what is
/// `here`, those that it should have and has not.
fn missing(blobs: Vec<BlobRecord>, own: NodeId, here: Option<&BTreeSet<BlobDigest>>) -> Vec<BlobRecord> {
    let lost = |blob: &BlobRecord| here.is_some_and(|here| !here.contains(&blob.digest));
    blobs.into_iter().filter(|blob| !blob.nodes.contains(&own) || lost(blob)).collect()
}

#[async_trait]
impl Blobstore for FleetBlobs {
    async fn put(&self, content: &mut (dyn AsyncRead + Send + Unpin)) -> Result<BlobStat, BlobError> {
        let stat = self.local.put(content).await?;
        let (known, members, is_forgettable) = {
            let view = self.log.view();
            let state = State::new(&*view);
            let known = state.blob(&stat.digest).map(|b| b.nodes).unwrap_or_default();
            (known, state.members(), state.is_forgettable(&stat.digest))
        };
        let is_kept = !is_forgettable || self.keep(&stat.digest).await?;
        let known = if is_kept { known } else { BTreeSet::new() };
        // Copies of replicas that were removed count no more.
        let holders = members.iter().filter(|m| known.contains(&m.node)).count();
        if holders <= self.others().len().div_ceil(2) {
            let holders = self.spread(&stat.digest).await?;
            self.record(&stat.digest, stat.bytes, holders).await?;
        }
        Ok(stat)
    }

    async fn get(&self, digest: &BlobDigest) -> Result<BlobReader, BlobError> {
        match self.local.get(digest).await {
            Err(BlobError::NotFound { .. } | BlobError::Damaged { .. }) => match self.fetch(digest).await {
                Ok(()) => self.local.get(digest).await,
                Err(BlobError::NoRoom { .. }) => self.pass_on(digest).await,
                Err(error) => Err(error),
            },
            other => other,
        }
    }

    async fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>, BlobError> {
        let view = self.log.view();
        let record = State::new(&*view).held_blob(digest);
        Ok(record.map(|b| BlobStat { digest: b.digest, bytes: b.size_bytes }))
    }

    async fn delete(&self, digest: &BlobDigest) -> Result<(), BlobError> {
        self.local.delete(digest).await
    }
}

/// Serves this replica's copies to its peers.
#[derive(Clone)]
pub struct CopiesService {
    local: Arc<LocalBlobs>,
}

type Pieces = Pin<Box<dyn futures::Stream<Item = Result<pb::BlobPiece, Status>> + Send>>;

#[async_trait]
impl BlobCopies for CopiesService {
    async fn put(
        &self,
        request: Request<Streaming<pb::BlobPiece>>,
    ) -> Result<Response<pb::BlobCopyStat>, Status> {
        let pieces = request.into_inner().map(|p| p.map(|p| p.data).map_err(io::Error::other));
        let mut reader = StreamReader::new(Box::pin(pieces));
        let stored = self.local.put(&mut reader).await.map_err(|e| of_blob(&e))?;
        Ok(Response::new(pb::BlobCopyStat { digest: stored.digest.to_string(), size_bytes: stored.bytes }))
    }

    type GetStream = Pieces;

    async fn get(&self, request: Request<pb::BlobCopyRequest>) -> Result<Response<Pieces>, Status> {
        let digest = BlobDigest::new(request.into_inner().digest);
        let reader = self.local.get(&digest).await.map_err(|e| of_blob(&e))?;
        let pieces = ReaderStream::with_capacity(reader, PIECE_BYTES);
        let pieces = pieces.map(|p: io::Result<Bytes>| match p {
            Ok(data) => Ok(pb::BlobPiece { data }),
            Err(error) => Err(Status::data_loss(error.to_string())),
        });
        Ok(Response::new(Box::pin(pieces)))
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use model::release::{CompiledPackage, PackageInfo, ReleaseVersion};
    use state::command::{Outcome, TaskEnd};

    use super::*;
    use crate::test_support::replica::Replica;
    use crate::test_support::state::{EPOCH, compiled, deploy, package_key, queue, release};

    #[test]
    fn the_healer_finds_what_is_not_recorded_and_what_was_lost() {
        let blob = |name: &str, nodes: &[u64]| BlobRecord {
            digest: BlobDigest::new(name),
            size_bytes: 1,
            created_at: model::Timestamp::default(),
            nodes: nodes.iter().map(|n| NodeId(*n)).collect(),
        };
        let all = || vec![blob("elsewhere", &[2, 3]), blob("here", &[1, 2]), blob("lost", &[1, 3])];
        let names =
            |found: Vec<BlobRecord>| found.into_iter().map(|b| b.digest.to_string()).collect::<Vec<_>>();
        let here = BTreeSet::from([BlobDigest::new("here")]);
        assert_eq!(names(missing(all(), NodeId(1), None)), ["elsewhere"]);
        assert_eq!(names(missing(all(), NodeId(1), Some(&here))), ["elsewhere", "lost"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_blob_is_only_missing_if_nobody_has_it() {
        let replica = Replica::start().await;
        let (blobs, digest) = (&replica.door.blobs, BlobDigest::new("b".repeat(64)));
        let alone = blobs.get(&digest).await.map(drop);
        assert!(matches!(alone, Err(BlobError::NotFound { .. })), "{alone:?}");
        let member = crate::test_support::state::member(2);
        let member = state::records::Member { peer_address: "127.0.0.1:1".into(), ..member };
        replica.must(Command::MemberPut { member }).await;
        let nobody_to_ask = blobs.get(&digest).await.map(drop);
        let kept_open = matches!(nobody_to_ask, Err(BlobError::Store { operation: "fetch", .. }));
        assert!(kept_open, "the one that can't be asked may have it: {nobody_to_ask:?}");
        replica.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn copies_of_removed_replicas_do_not_count() {
        let replica = Replica::start().await;
        let blobs = &replica.door.blobs;
        let stat = blobs.put(&mut &b"hello"[..]).await.unwrap();
        // Two others join whom nobody can reach, and one of them once held a copy and was removed.
        for node in [2, 3, 4] {
            let member = crate::test_support::state::member(node);
            let member = state::records::Member { peer_address: "127.0.0.1:1".into(), ..member };
            replica.must(Command::MemberPut { member }).await;
        }
        let held = Command::BlobHeld { digest: stat.digest.clone(), size_bytes: 5, nodes: vec![NodeId(4)] };
        replica.must(held).await;
        replica.must(Command::MemberRemove { node: NodeId(4) }).await;
        let again = blobs.put(&mut &b"hello"[..]).await;
        assert!(matches!(again, Err(BlobError::Store { operation: "replicate", .. })), "{again:?}");
        // What only they held is not there: whoever asks must upload it again.
        let lost = BlobDigest::new("b".repeat(64));
        let held = Command::BlobHeld { digest: lost.clone(), size_bytes: 5, nodes: vec![NodeId(4)] };
        replica.must(held).await;
        assert_eq!(blobs.stat(&lost).await.unwrap(), None);
        assert!(blobs.stat(&stat.digest).await.unwrap().is_some());
        replica.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_release_leaves_is_forgotten_later_unless_it_is_stored_again() {
        let replica = Replica::start().await;
        let outcome = replica.must(queue(deploy(), vec!["lock:releases".into()])).await;
        let Outcome::TaskQueued(task) = outcome else { panic!("{outcome:?}") };
        replica.must(Command::TaskTake { task, epoch: EPOCH }).await;
        let blobs = &replica.door.blobs;
        let digest = blobs.put(&mut &b"compiled"[..]).await.unwrap().digest;
        let row = CompiledPackage { blob: digest.clone(), ..compiled(package_key("p", "1", "d")) };
        let source = PackageInfo {
            name: row.key.name.clone(),
            fingerprint: row.key.fingerprint.clone(),
            digest: String::new(),
            source: None,
            dependencies: Vec::new(),
        };
        let release = Box::new(ReleaseVersion { packages: vec![source], ..release("silver", "1") });
        let (compiled, fix, partial) = (vec![row], false, false);
        replica.must(Command::ReleasePut { task, epoch: EPOCH, release, compiled, fix, partial }).await;
        let (name, version, with_compiled) = ("silver".into(), None, true);
        replica.must(Command::ReleaseDelete { task, epoch: EPOCH, name, version, with_compiled }).await;
        // As the leader looks for them, some minutes later.
        let due = |minutes: i64| {
            let view = replica.log.view();
            let later = Timestamp(replica.log.clock().0 + minutes * 60_000);
            service::ops::blobs_to_forget(&State::new(&*view), later)
        };
        assert_eq!(due(11), None, "the task is not over");
        replica.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) }).await;
        assert_eq!(due(5), None);
        let is_known = || State::new(&*replica.log.view()).blob(&digest).is_some();
        blobs.put(&mut &b"compiled"[..]).await.unwrap();
        assert!(is_known() && due(11).is_some(), "it waits anew");
        // As if it had been forgotten between the look at the state and the word to keep it.
        replica.must(Command::BlobForget { digest: digest.clone() }).await;
        blobs.put(&mut &b"compiled"[..]).await.unwrap();
        assert!(is_known(), "it was told of anew");
        replica.must(due(11).unwrap()).await;
        assert!(!is_known() && matches!(blobs.stat(&digest).await, Ok(None)));
        replica.stop().await;
    }
}
