//! A dead peer must cost next to nothing.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, Setup, put};

/// Without waiting for the first request before dialling, openraft restarts a failed replication stream at once: over
/// a thousand connections a second and most of a core for one dead follower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_follower_costs_at_most_fifty_connections_a_second() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    cluster.kill(follower);
    let tasks = owned_tasks::OwnedTasks::new();
    // Take the place of the dead one.
    let address = cluster.addresses[&follower];
    let count = squat(address, &tasks).await;
    put(&cluster.node(leader), "first", "k", "v").await;
    const SECONDS: u64 = 5;
    let before = count.load(Ordering::Relaxed);
    // The one place where a test waits for a time: a rate is what it measures.
    for n in 0..SECONDS * 10 {
        put(&cluster.node(leader), &format!("r{n}"), "k", "v").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let dials = count.load(Ordering::Relaxed) - before;
    assert!(dials > 0, "nobody tried to reach the dead replica: the test measures nothing");
    assert!(dials <= 50 * SECONDS, "{dials} connections in {SECONDS} s");
    tasks.stop(PATIENCE).await;
}

/// Many callers that wait for the next leader must not dial the dead one each for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_not_dialled_by_everybody_who_waits() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let third = *cluster.replicas.keys().find(|id| **id != leader && **id != follower).unwrap();
    cluster.kill(third);
    cluster.kill(leader);
    let tasks = owned_tasks::OwnedTasks::new();
    let count = squat(cluster.addresses[&leader], &tasks).await;
    // No quorum is left: everybody waits, and knows no leader but the dead one.
    const WAITING: usize = 200;
    const WAIT: Duration = Duration::from_secs(3);
    let node = cluster.node(follower);
    let waiting = (0..WAITING).map(|n| node.propose(format!("w{n} k v").into_bytes(), WAIT));
    let outcomes = futures::future::join_all(waiting).await;
    assert!(outcomes.iter().all(Result::is_err));
    let dials = count.load(Ordering::Relaxed);
    assert!(dials > 0, "nobody tried to reach the dead leader: the test measures nothing");
    // At first all may be on their way at once; then one at a time.
    assert!(dials <= WAITING as u64 + 50 * WAIT.as_secs(), "{dials} connections in {WAIT:?}");
    tasks.stop(PATIENCE).await;
}

/// Takes `address`, accepts connections, counts them and closes them at once: the quickest way for a call to fail that
/// can still be counted.
async fn squat(address: std::net::SocketAddr, tasks: &owned_tasks::OwnedTasks) -> Arc<AtomicU64> {
    let deadline = Instant::now() + PATIENCE;
    let listener = loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => break listener,
            // The one that was killed is not quite dead yet.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    tasks.spawn("squatter", owned_tasks::OnExit::Ignore, |stop| async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    drop(accepted.expect("loopback accepts"));
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                () = stop.cancelled() => return,
            }
        }
    });
    count
}
