//! openraft's own storage suite, run against our log and state machine.

use std::path::PathBuf;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::disk::{Disk, LocalDisk};
use crate::fatal::Fatal;
use crate::log_db::Expected;
use crate::log_store::LogStore;
use crate::state_machine::StateMachine;
use crate::state_store::{Gaps, StateStore};
use crate::type_config::TypeConfig;
use crate::{Application, StateBatch};

struct Nothing;

impl Application for Nothing {
    fn apply(&self, _: &mut StateBatch<'_>, _: u64, _: u64, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let data: PathBuf = dir.path().into();
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
        let fatal = Fatal::new(Arc::new(|message: &str| panic!("{message}")));
        let store = StateStore::open(disk.clone(), &data, Arc::new(Nothing), fatal.clone()).unwrap();
        let db = LogStore::open_db(&*disk, &data.join("log"), 0, Expected::Any).unwrap();
        let log = LogStore::start(disk, db, store.clone(), fatal.clone()).unwrap();
        Ok((dir, log, StateMachine { store, fatal, gaps: Gaps::Allowed }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_pass_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}
