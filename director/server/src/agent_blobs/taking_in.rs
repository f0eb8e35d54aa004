//! Taking in what agents bring: streamed into the fleet's store, within bounds, with the digests taken as it comes by.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream::{Stream, StreamExt as _};
use model::AgentId;
use release::digest::{Algorithm, Hasher};
use release::{BlobError, Blobstore as _};
use state::State;
use state::command::{Command, Refusal};
use state::log::{CommandLog as _, Proposal};
use state::records::BroughtBlob;
use tokio_util::io::StreamReader;
use tracing::warn;

use super::BlobDesk;
use super::door::Denied;

/// How long an agent may pause within a blob.
const STALL: Duration = Duration::from_secs(60);

/// What happens to what comes under a name that something has come under before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It takes the other one's place: a director has asked for it again.
    Replaces,
    /// It is refused, unless it is the same: the answer to it was lost.
    IfSame,
}

impl BlobDesk {
    /// Stores what an agent brings under a name, and takes down what it is.
    pub(super) async fn take_in(
        &self,
        agent: &AgentId,
        name: String,
        body: Body,
        again: Again,
    ) -> Result<(), Denied> {
        let (digests, too_large) = (Arc::<Mutex<Hasher>>::default(), Arc::<AtomicBool>::default());
        let pieces = bounded(body, self.bytes_max, digests.clone(), too_large.clone());
        let mut reader = StreamReader::new(Box::pin(pieces));
        let stored = self.blobs.put(&mut reader).await.map_err(|error| match error {
            _ if too_large.load(Ordering::Relaxed) => Denied::TooLarge,
            BlobError::ReadContent { .. } => Denied::Cut,
            error => {
                warn!(agent = %agent, error = %error, "what an agent brings is not stored");
                Denied::Unavailable
            }
        })?;
        let before = State::new(&*self.log.view()).brought_by_agent(agent, &name);
        if again == Again::IfSame && before.is_some_and(|row| row.brought.blob != stored.digest) {
            return Err(Denied::Taken);
        }
        let hashed = digests.lock().unwrap_or_else(PoisonError::into_inner).clone().finish();
        let [sha1, sha512] = [Algorithm::Sha1, Algorithm::Sha512].map(|algorithm| hashed.hex(algorithm));
        let digest = format!("{sha1};sha512:{sha512}");
        let brought = BroughtBlob { blob: stored.digest, digest, size_bytes: stored.bytes };
        self.take_down(agent, name, brought).await
    }

    async fn take_down(&self, agent: &AgentId, name: String, brought: BroughtBlob) -> Result<(), Denied> {
        let command = Command::AgentBrought { agent: agent.clone(), name, brought };
        let committed = self.log.propose(Proposal::own(command)).await.map_err(|error| {
            warn!(agent = %agent, error = %error, "what an agent has brought is not taken down");
            Denied::Unavailable
        })?;
        match committed.outcome.accepted() {
            Ok(_) => Ok(()),
            Err(Refusal::NotFound { .. }) => Err(Denied::NoVm),
            Err(refusal) => {
                warn!(agent = %agent, %refusal, "what an agent has brought is not taken down");
                Err(Denied::Unavailable)
            }
        }
    }
}

/// Reads a body of a size at most, that keeps coming, and takes its digests.
fn bounded(
    body: Body,
    bytes_max: u64,
    digests: Arc<Mutex<Hasher>>,
    too_large: Arc<AtomicBool>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let mut seen = 0u64;
    tokio_stream::StreamExt::timeout(body.into_data_stream(), STALL).map(move |piece| {
        let piece = piece.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?;
        seen = seen.saturating_add(piece.len() as u64);
        if seen > bytes_max {
            too_large.store(true, Ordering::Relaxed);
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        digests.lock().unwrap_or_else(PoisonError::into_inner).update(&piece);
        Ok(piece)
    })
}
