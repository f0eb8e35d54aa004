//! A replica that stops between applying an entry and having it in its own log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, EntryPayload};
use owned_tasks::OwnedTasks;

use crate::disk::{Disk, Durability, LocalDisk};
use crate::fatal::Fatal;
use crate::log_db::{Expected, LogBatch, LogDb};
use crate::state_store::{Gaps, StateStore};
use crate::type_config::{CommittedLeaderId, Entry, EntryBytes, LogId, Membership, Vote};
use crate::{Application, ConnectError, Node, Options, Peer, PeerConnector, Purpose, StateBatch, Timing};

/// Keeps every entry under its position.
struct Kept;

impl Application for Kept {
    fn apply(&self, store: &mut StateBatch<'_>, index: u64, _: u64, entry: &[u8]) -> Vec<u8> {
        store.put(index.to_be_bytes().to_vec(), entry.to_vec());
        Vec::new()
    }
}

struct Nobody;

impl PeerConnector for Nobody {
    fn peer(&self, node_id: u64, address: &str, _: Purpose) -> Result<Arc<dyn Peer>, ConnectError> {
        Err(ConnectError { node_id, address: address.into(), source: "there is nobody".into() })
    }
}

fn entry(index: u64) -> Entry {
    let payload = match index {
        0 => {
            let nodes = BTreeMap::from([(1, BasicNode::new("here"))]);
            EntryPayload::Membership(Membership::new(vec![BTreeSet::from([1])], nodes).unwrap())
        }
        _ => EntryPayload::Normal(EntryBytes(format!("entry {index}").into())),
    };
    let term = u64::from(index > 0);
    Entry { log_id: LogId::new(CommittedLeaderId::new(term), index), payload }
}

/// Leaves what a replica leaves that has applied up to `applied` and stored up to `stored`.
fn leave(folder: &Path, stored: u64, applied: u64) {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let log = LogDb::open(&*disk, &folder.join("log"), 1, Expected::Any).unwrap();
    let mut batch = LogBatch::default();
    batch.put_vote(&Vote::new_committed(1, 1));
    (0..=stored).for_each(|index| batch.put_entry(&entry(index)));
    log.write(batch, Durability::Synced).unwrap();
    let fatal = Fatal::new(Arc::new(|message: &str| panic!("{message}")));
    let store = StateStore::open(disk, folder, Arc::new(Kept), fatal).unwrap();
    store.apply((0..=applied).map(|index| (entry(index), None)).collect(), Gaps::Refused).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_ahead_of_its_log_is_gone_on_from() {
    let (folder, tasks) = (tempfile::tempdir().unwrap(), OwnedTasks::new());
    leave(folder.path(), 3, 5);
    let mut options = Options::new(1, folder.path());
    options.timing = Timing::TESTS;
    let node = Node::start(options, Arc::new(Kept), Arc::new(Nobody), &tasks).await.unwrap();
    let patience = Duration::from_secs(30);
    let done = node.propose(b"next".to_vec(), patience).await.unwrap();
    assert!(done.index > 5, "{done:?}");
    assert_eq!(node.view().get(&5u64.to_be_bytes()).unwrap(), b"entry 5");
    assert_eq!(node.view().get(&done.index.to_be_bytes()).unwrap(), b"next");
    assert!(node.status().snapshot_index >= Some(5), "others can be given what the log does not have");
    node.shutdown().await;
    assert!(tasks.stop(patience).await);
}
