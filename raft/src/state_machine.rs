//! The state machine as openraft wants it: moves the work to blocking threads.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::disk::{self, WorkLost};
use crate::fatal::Fatal;
use crate::snapshot::{Snapshot, SnapshotDir};
use crate::state_store::{Gaps, StateStore};
use crate::type_config::{LogId, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries that are applied as one write, and before anybody is answered.
const BATCH_MAX: usize = 1024;

/// The state machine of one replica.
pub(crate) struct StateMachine {
    pub(crate) store: Arc<StateStore>,
    pub(crate) fatal: Fatal,
    pub(crate) gaps: Gaps,
}

/// Takes snapshots; runs beside the state machine.
pub(crate) struct SnapshotBuilder {
    store: Arc<StateStore>,
    fatal: Fatal,
}

/// Runs `work` on a blocking thread. A panic in it is a bug in the application or here, and the state is in
/// an unknown condition: it ends the replica.
async fn blocking<T: Send + 'static>(
    store: &Arc<StateStore>,
    fatal: &Fatal,
    operation: &'static str,
    work: impl FnOnce(&StateStore) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let store = store.clone();
    let disk = store.disk().clone();
    match disk::run(&*disk, move || work(&store)).await {
        Ok(done) => done,
        Err(WorkLost::Panicked) => Err(fatal.report(operation, WorkLost::Panicked)),
        Err(lost) => Err(io::Error::other(lost)),
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        blocking(&self.store, &self.fatal, "reading the position", |store| Ok(store.position())).await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let gaps = self.gaps;
        let mut batches = entries.ready_chunks(BATCH_MAX);
        while let Some(batch) = batches.next().await {
            let batch = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
            blocking(&self.store, &self.fatal, "applying entries", move |store| store.apply(batch, gaps))
                .await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { store: self.store.clone(), fatal: self.fatal.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotDir,
    ) -> Result<(), io::Error> {
        let meta = meta.clone();
        let work = move |store: &StateStore| store.install_snapshot(&meta, &snapshot);
        blocking(&self.store, &self.fatal, "installing a snapshot", work).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.store.latest_snapshot())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        blocking(&self.store, &self.fatal, "taking a snapshot", StateStore::build_snapshot).await
    }
}
