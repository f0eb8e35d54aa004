//! Bulky task output: sealed into content-addressed segments of a second or 64 KiB, replicated like blobs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use executor::ports::OutputSink;
use model::task::OutputKind;
use model::{BlobDigest, TaskId};
use release::Blobstore as _;
use state::State;
use state::command::{Command, Refusal};
use state::log::{CommandLog as _, LogError, Proposal};
use state::records::OutputSegment;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::fleet::blobs::FleetBlobs;
use crate::fleet::log::RaftLog;

/// A segment is sealed when it has waited this long …
const SEAL_EVERY: Duration = Duration::from_secs(1);

/// … or has grown to this size.
const SEGMENT_BYTES: usize = 64 * 1024;

/// Text that may wait per output; beyond it the oldest is dropped and said to be. A director that can't replicate must
/// not fill its memory with what it says about that.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// What stands where text was dropped.
const DROPPED: &[u8] = b"[output that could not be stored in time was dropped here]\n";

/// Attempts to place one piece. Another director seals its last words within one or two.
const ATTEMPTS_MAX: u32 = 5;

type Key = (TaskId, OutputKind);

/// Collects and seals output.
pub struct Outputs {
    waiting: Mutex<BTreeMap<Key, Vec<u8>>>,
    full: Notify,
    blobs: Arc<FleetBlobs>,
    log: RaftLog,
    /// One sealer at a time: offsets must not overlap.
    sealing: tokio::sync::Mutex<()>,
}

impl Outputs {
    /// Makes the collector.
    pub fn new(blobs: Arc<FleetBlobs>, log: RaftLog) -> Self {
        Self {
            waiting: Mutex::default(),
            full: Notify::new(),
            blobs,
            log,
            sealing: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Vec<u8>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals what waits, for the life of the process.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SEAL_EVERY) => {}
                () = self.full.notified() => {}
                () = stop.cancelled() => return,
            }
            let keys: Vec<Key> = self.lock().keys().copied().collect();
            for key in keys {
                self.seal(key).await;
            }
        }
    }

    /// Seals what waits now; what is written meanwhile is the next turn's.
    async fn seal(&self, key: Key) {
        let _alone = self.sealing.lock().await;
        let mut left = self.lock().get(&key).map_or(0, Vec::len);
        while left > 0 {
            // Piece by piece: whoever gives up waiting for a flush leaves the rest where it is.
            let piece = self.take(key);
            left = left.saturating_sub(piece.len().max(1));
            if let Err(error) = self.seal_piece(key, &piece).await {
                // Best effort by contract: the journal, not this text, is what a task rests on. So it is with what a
                // leader has still to say about a task that its successor has ended.
                warn!(task = %key.0, error = %error, "a piece of task output was lost");
            }
        }
    }

    /// Takes the next piece out of what waits.
    fn take(&self, key: Key) -> Vec<u8> {
        let mut waiting = self.lock();
        let Some(bytes) = waiting.get_mut(&key) else { return Vec::new() };
        let rest = bytes.split_off(bytes.len().min(SEGMENT_BYTES));
        match rest.is_empty() {
            true => waiting.remove(&key).unwrap_or_default(),
            false => std::mem::replace(bytes, rest),
        }
    }

    async fn seal_piece(&self, (task, kind): Key, piece: &[u8]) -> anyhow::Result<()> {
        let mut reader = piece;
        let stored = self.blobs.put(&mut reader).await?;
        let mut unsure = None;
        for _ in 0..ATTEMPTS_MAX {
            let (segment, epoch) = {
                let view = self.log.view();
                let state = State::new(&*view);
                match place((task, kind), piece.len() as u32, &stored.digest, unsure.as_ref(), &state) {
                    Some(segment) => (segment, state.epoch()),
                    None => return Ok(()),
                }
            };
            let seal = Command::OutputSeal { task, epoch, kind, segment: segment.clone() };
            match self.log.propose(Proposal::own(seal)).await {
                Ok(committed) => match committed.outcome.accepted() {
                    Ok(_) => return Ok(()),
                    // This replica's state is behind, or the last leader's director has sealed its last words.
                    Err(Refusal::OutputGap { .. }) => unsure = None,
                    Err(refusal) => return Err(refusal.into()),
                },
                // It may have happened.
                Err(LogError::NoLeader(_)) => unsure = Some(segment),
                Err(error) => return Err(error.into()),
            }
            self.log.read_barrier().await?;
        }
        anyhow::bail!("it was overtaken {ATTEMPTS_MAX} times")
    }
}

/// Returns where a piece goes; none if it is there already, from an attempt whose answer was lost.
fn place(
    (task, kind): Key,
    length: u32,
    blob: &BlobDigest,
    unsure: Option<&OutputSegment>,
    state: &State<'_>,
) -> Option<OutputSegment> {
    match unsure {
        Some(segment) if state.output_segments(task, kind).contains(segment) => None,
        _ => Some(OutputSegment { offset: state.output_len(task, kind), length, blob: blob.clone() }),
    }
}

#[async_trait]
impl OutputSink for Outputs {
    fn write(&self, task: TaskId, kind: OutputKind, text: &str) {
        let mut waiting = self.lock();
        let bytes = waiting.entry((task, kind)).or_default();
        if bytes.len() + text.len() > WAITING_BYTES_MAX {
            bytes.clear();
            bytes.extend_from_slice(DROPPED);
        }
        // Its end, should it be larger than all that may wait.
        let text = text.as_bytes();
        bytes.extend_from_slice(&text[text.len().saturating_sub(WAITING_BYTES_MAX - DROPPED.len())..]);
        if bytes.len() >= SEGMENT_BYTES {
            self.full.notify_one();
        }
    }

    async fn flush(&self, task: TaskId) {
        for kind in [OutputKind::Debug, OutputKind::Cpi] {
            self.seal((task, kind)).await;
        }
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
