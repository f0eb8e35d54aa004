//! A cluster of one that goes on from what another one left.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use common::{Cluster, Replica, Setup, put};
use raft::disk::{Disk, LocalDisk};
use raft::{Direction, FoundError, Founder, Node, Position, StartError, found, remains, take_over};

/// Time in milliseconds, as far as these tests have one.
const NOW: u64 = 1_900_000_000_000;

fn disk() -> Arc<dyn Disk> {
    Arc::new(LocalDisk)
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn founder(node_id: u64, address: SocketAddr) -> Founder {
    Founder { node_id, address: address.to_string(), term_min: NOW }
}

/// Founds a cluster out of what `node` has, `jump` entries later.
fn found_from(node: &Node, dir: &Path, founder: &Founder, jump: u64) -> Position {
    let view = node.view();
    let position = Position { index: view.applied_index() + jump, term: view.applied_term() };
    let rows = view.scan(b"", None, Direction::Forward).map(Ok::<_, Infallible>);
    found(&disk(), dir, founder, position, rows).unwrap();
    position
}

async fn leads(replica: &Replica) -> u64 {
    common::eventually("it leads", || replica.node.leadership().is_some()).await;
    replica.node.leadership().unwrap().term
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_goes_on_from_a_copied_state_and_grows() {
    let old = Cluster::start(1, Setup::default()).await;
    for n in 0..2500 {
        put(&old.node(1), &format!("r{n}"), &format!("k{n}"), "v").await;
    }
    let (dir, address) = (tempfile::tempdir().unwrap(), free_address());
    let jump = 1_000_000_000;
    let position = found_from(&old.node(1), dir.path(), &founder(9, address), jump);
    let first = Replica::start(9, dir.path(), Some(address), &Setup::default()).await;
    let term = leads(&first).await;
    assert!(term > NOW && term > old.node(1).status().term, "{term}");
    assert_eq!(first.dump(), old.replicas[&1].dump());
    let next = put(&first.node, "new", "after", "v").await;
    assert!(next.index > position.index, "{} {}", next.index, position.index);
    // A request that the old cluster answered is answered as it was.
    assert_eq!(
        put(&first.node, "r7", "k7", "other").await.answer,
        put(&old.node(1), "r7", "k7", "w").await.answer
    );
    // What comes before its log, a second replica is sent as a snapshot.
    let other = tempfile::tempdir().unwrap();
    let second = Replica::start(10, other.path(), None, &Setup::default()).await;
    first.node.add_member(10, &second.address.to_string(), common::PATIENCE).await.unwrap();
    put(&second.node, "through-it", "k", "v").await;
    // The answer is the leader's: what was asked may be later in applying it.
    second.node.read_barrier(common::PATIENCE).await.unwrap();
    assert_eq!(first.dump(), second.dump());
    // And it is there after a restart.
    second.stop().await;
    first.stop().await;
    let first = Replica::start(9, dir.path(), Some(address), &Setup::default()).await;
    assert_eq!(first.read("after"), Some("v".into()));
    first.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_takes_over_with_everything_it_has() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    for n in 0..50 {
        put(&cluster.node(1), &format!("r{n}"), &format!("k{n}"), "v").await;
    }
    let before = cluster.converged().await;
    let survivor = cluster.follower().await;
    let old_term = cluster.node(survivor).status().term;
    let (address, dir) = (cluster.addresses[&survivor], cluster.dirs[&survivor].path().to_owned());
    let founder = founder(survivor, address);
    // While it runs nobody may touch it.
    let refused = take_over(&*disk(), &dir, &founder);
    assert!(matches!(refused, Err(FoundError::Start(StartError::Database { .. }))), "{refused:?}");
    for id in [1, 2, 3] {
        cluster.kill(id);
    }
    let had = remains(&*disk(), &dir, survivor).unwrap();
    assert_eq!(had.term, old_term);
    assert!(take_over(&*disk(), &dir, &founder).unwrap() >= NOW);
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != survivor).collect();
    cluster.launch(survivor).await;
    let term = leads(&cluster.replicas[&survivor]).await;
    assert!(term > NOW && term > old_term);
    assert_eq!(cluster.converged().await, before);
    let members: Vec<u64> = cluster.node(survivor).status().members.iter().map(|m| m.id).collect();
    assert_eq!(members, [survivor]);
    put(&cluster.node(survivor), "alone", "k", "v").await;
    // One of the lost comes back: it can neither lead nor disturb, and is told nothing.
    cluster.launch(others[0]).await;
    put(&cluster.node(survivor), "still", "k", "v").await;
    assert_eq!(cluster.node(survivor).status().term, term);
    cluster.kill(others[0]);
    // New ones join as ever.
    cluster.launch(7).await;
    cluster.join(7).await;
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_from_the_same_remains_never_share_a_term() {
    let old = Cluster::start(1, Setup::default()).await;
    put(&old.node(1), "r", "k", "v").await;
    let mut terms = Vec::new();
    for founded_at in [NOW, NOW + 1000] {
        let (dir, address) = (tempfile::tempdir().unwrap(), free_address());
        let founder = Founder { term_min: founded_at, ..founder(9, address) };
        found_from(&old.node(1), dir.path(), &founder, 0);
        // Some elections later.
        for _ in 0..3 {
            let replica = Replica::start(9, dir.path(), Some(address), &Setup::default()).await;
            terms.push(leads(&replica).await);
            replica.kill();
        }
    }
    assert!(terms.is_sorted_by(|a, b| a < b), "{terms:?}");
}

#[test]
fn nothing_is_no_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let founder = founder(1, free_address());
    let none = std::iter::empty::<Result<raft::Pair, Infallible>>();
    let founded = found(&disk(), dir.path(), &founder, Position { index: 0, term: 0 }, none);
    assert!(matches!(founded, Err(FoundError::Nothing)), "{founded:?}");
    assert!(matches!(take_over(&*disk(), dir.path(), &founder), Err(FoundError::Nothing)));
}
