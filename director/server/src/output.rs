//! Bulky task output: sealed into content-addressed segments of a second or 64 KiB, replicated like blobs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use executor::ports::OutputSink;
use model::TaskId;
use model::task::OutputKind;
use release::Blobstore as _;
use state::State;
use state::command::Command;
use state::log::{CommandLog as _, Proposal};
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

    async fn seal(&self, key: Key) {
        let _alone = self.sealing.lock().await;
        let Some(bytes) = self.lock().remove(&key).filter(|b| !b.is_empty()) else { return };
        for piece in bytes.chunks(SEGMENT_BYTES) {
            if let Err(error) = self.seal_piece(key, piece).await {
                // Best effort by contract: the journal, not this text, is what a task rests on.
                warn!(task = %key.0, error = %error, "a piece of task output was lost");
            }
        }
    }

    async fn seal_piece(&self, (task, kind): Key, piece: &[u8]) -> anyhow::Result<()> {
        let mut reader = piece;
        let stored = self.blobs.put(&mut reader).await?;
        let (offset, epoch) = {
            let view = self.log.view();
            let state = State::new(&*view);
            (state.output_len(task, kind), state.epoch())
        };
        let segment = OutputSegment { offset, length: piece.len() as u32, blob: stored.digest };
        let seal = Command::OutputSeal { task, epoch, kind, segment };
        self.log.propose(Proposal::own(seal)).await?.outcome.accepted()?;
        Ok(())
    }
}

#[async_trait]
impl OutputSink for Outputs {
    fn write(&self, task: TaskId, kind: OutputKind, text: &str) {
        let mut waiting = self.lock();
        let bytes = waiting.entry((task, kind)).or_default();
        if bytes.len() + text.len() > WAITING_BYTES_MAX {
            bytes.clear();
            bytes.extend_from_slice(b"[output that could not be stored in time was dropped here]\n");
        }
        bytes.extend_from_slice(text.as_bytes());
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
