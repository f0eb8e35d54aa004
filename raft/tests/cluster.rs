//! Three replicas in one process, through what a cluster has to survive.

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, Setup, eventually, put};
use raft::{MemberError, ProposeError, Role, SnapshotPolicy};

const TWO_THREADS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_replica_serves_and_restarts_with_its_data() {
    let mut cluster = Cluster::start(1, Setup::default()).await;
    let done = put(&cluster.node(1), "r1", "color", "red").await;
    assert_eq!(String::from_utf8(done.answer).unwrap(), format!("put color at {}", done.index));
    let before = cluster.node(1).status().term;
    cluster.kill(1);
    cluster.launch(1).await;
    assert_eq!(cluster.leader().await, 1);
    assert_eq!(cluster.replicas[&1].read("color").as_deref(), Some("red"));
    let again = cluster.node(1).bootstrap("127.0.0.1:1").await;
    assert!(matches!(again, Err(MemberError::AlreadyInitialized(1))), "{again:?}");
    assert!(cluster.node(1).status().term > before, "a restarted leader needs a term of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_carries_writes_to_the_leader_and_reads_what_it_wrote() {
    let cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    for round in 0..50 {
        let (value, request) = (round.to_string(), format!("r{round}"));
        put(&cluster.node(leader), &request, "round", &value).await;
        cluster.node(follower).read_barrier(PATIENCE).await.unwrap();
        assert_eq!(cluster.replicas[&follower].read("round"), Some(value), "a stale read");
    }
    let index = put(&cluster.node(follower), "forwarded", "by", "follower").await.index;
    assert!(cluster.node(leader).view().applied_index() >= index);
    assert_eq!(cluster.replicas[&leader].read("by").as_deref(), Some("follower"));
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    for kill in 0..3 {
        for n in 0..20 {
            let follower = cluster.follower().await;
            put(&cluster.node(follower), &format!("k{kill}n{n}"), &format!("k{kill}n{n}"), "kept").await;
        }
        let leader = cluster.leader().await;
        cluster.kill(leader);
        let started = Instant::now();
        let survivor = *cluster.replicas.keys().next().unwrap();
        put(&cluster.node(survivor), &format!("after{kill}"), "after", &kill.to_string()).await;
        // Twice the longest election timeout is what openraft needs; the rest is for a busy machine.
        assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
        cluster.launch(leader).await;
    }
    let state = cluster.converged().await;
    for kill in 0..3 {
        for n in 0..20 {
            assert!(state.contains_key(format!("key/k{kill}n{n}").as_bytes()), "k{kill}n{n} is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_twice_has_one_effect_and_one_answer() {
    let cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let first = put(&cluster.node(leader), "once", "k", "v").await;
    let second = put(&cluster.node(follower), "once", "k", "v").await;
    assert!(second.index > first.index);
    assert_eq!(second.answer, first.answer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_proposal_ends_at_its_deadline() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let third = *cluster.replicas.keys().find(|id| **id != leader && **id != follower).unwrap();
    cluster.kill(leader);
    cluster.kill(third);
    let node = cluster.node(follower);
    // The first ones may have been on their way when the leader died; their outcome is honestly unknown.
    let mut lost = false;
    while !lost {
        let refused = node.propose(b"lost k lost".to_vec(), Duration::from_millis(300)).await;
        lost = matches!(refused, Err(ProposeError::NoLeader(_)));
    }
    let (limit, started) = (Duration::from_millis(700), Instant::now());
    let refused = node.propose(b"r k v".to_vec(), limit).await;
    let took = started.elapsed();
    assert!(matches!(refused, Err(ProposeError::NoLeader(_))), "{refused:?}");
    assert!(took >= limit && took < limit + Duration::from_millis(500), "took {took:?}");
    assert!(node.read_barrier(Duration::from_millis(200)).await.is_err());
    assert!(!node.leadership().is_some_and(|leads| leads.holds()));
    // Held during the election that follows.
    let waiting = tokio::join!(node.propose(b"held k held".to_vec(), PATIENCE), cluster.launch(third)).0;
    waiting.unwrap();
    node.read_barrier(PATIENCE).await.unwrap();
    assert_eq!(cluster.replicas[&follower].read("k").as_deref(), Some("held"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_far_behind_catches_up_by_snapshot() {
    let snapshots = SnapshotPolicy { every_entries: 50, keep_entries: 70, lag_entries: 60 };
    let mut cluster = Cluster::start(3, Setup { snapshots, ..Setup::default() }).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    put(&cluster.node(leader), "early", "early", "1").await;
    cluster.converged().await;
    cluster.kill(follower);
    let value = "x".repeat(2000);
    for n in 0..400 {
        put(&cluster.node(leader), &format!("n{n}"), &format!("n{n}"), &value).await;
    }
    let node = cluster.node(leader);
    eventually("the log to be cut", || node.status().purged > Some(200)).await;
    let old_view_owner = &cluster.dirs[&follower];
    assert!(old_view_owner.path().join("state/1").exists());
    cluster.launch(follower).await;
    let old = cluster.node(follower).view();
    let state = cluster.converged().await;
    assert!(state.len() >= 800);
    // The state was replaced as a whole; a view from before still reads what it saw.
    assert_eq!(old.get(b"key/early"), Some(b"1".to_vec()));
    assert!(cluster.dirs[&follower].path().join("state/2").exists(), "it did not catch up by snapshot");
    drop(old);
    let first = cluster.dirs[&follower].path().join("state/1");
    eventually("the replaced state to be removed", || !first.exists()).await;
    // And the installed state survives a restart.
    cluster.kill(follower);
    cluster.launch(follower).await;
    assert_eq!(cluster.converged().await, state);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_replica_comes_back_under_a_new_id() {
    let snapshots = SnapshotPolicy { every_entries: 50, keep_entries: 70, lag_entries: 60 };
    let mut cluster = Cluster::start(3, Setup { snapshots, ..Setup::default() }).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    for n in 0..300 {
        put(&cluster.node(leader), &format!("n{n}"), &format!("n{n}"), "v").await;
    }
    cluster.kill(follower);
    cluster.dirs.remove(&follower);
    cluster.node(leader).remove_member(follower, PATIENCE).await.unwrap();
    cluster.launch(4).await;
    cluster.join(4).await;
    assert_eq!(cluster.node(4).status().role, Role::Follower);
    let ids: Vec<u64> = cluster.node(4).status().members.iter().map(|member| member.id).collect();
    assert!(ids.contains(&4) && !ids.contains(&follower), "{ids:?}");
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_while_writes_go_on() {
    let mut cluster = Cluster::start(2, Setup::default()).await;
    let writer = cluster.node(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let tasks = owned_tasks::OwnedTasks::new();
    let (count, written) = tokio::sync::oneshot::channel();
    tasks.spawn("writer", owned_tasks::OnExit::Ignore, |_| async move {
        let mut stopped = stopped;
        let mut n = 0u32;
        while stopped.try_recv().is_err() {
            put(&writer, &format!("w{n}"), &format!("w{n}"), "v").await;
            n += 1;
        }
        count.send(n).unwrap();
    });
    cluster.launch(3).await;
    cluster.join(3).await;
    // Idempotent.
    cluster.join(3).await;
    let leader = cluster.leader().await;
    let elsewhere = cluster.node(leader).add_member(3, "127.0.0.1:1", PATIENCE).await;
    assert!(matches!(elsewhere, Err(MemberError::AddressInUse { id: 3, .. })), "{elsewhere:?}");
    let follower = cluster.follower().await;
    let refused = cluster.node(follower).remove_member(3, PATIENCE).await;
    assert!(matches!(refused, Err(MemberError::NotLeader { leader: Some(_), .. })), "{refused:?}");
    cluster.node(leader).remove_member(3, PATIENCE).await.unwrap();
    cluster.node(leader).remove_member(3, PATIENCE).await.unwrap();
    let removed = cluster.replicas.remove(&3).unwrap();
    removed.kill();
    stop.send(()).unwrap();
    let written = written.await.unwrap();
    let state = cluster.converged().await;
    assert!(written > 0);
    for n in 0..written {
        assert!(state.contains_key(format!("key/w{n}").as_bytes()), "w{n} is lost");
    }
    assert_eq!(cluster.node(leader).status().members.len(), TWO_THREADS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_who_remove_the_same_replica_at_once_all_succeed() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    for round in 0..3 {
        let (leader, removed) = (cluster.leader().await, cluster.follower().await);
        let node = cluster.node(leader);
        // A request, its repetitions, and whoever finishes removals that a leader has left half done: so many that one
        // comes between the two steps of another.
        let removal = async |n: u64| {
            tokio::time::sleep(Duration::from_micros(n * 300)).await;
            node.remove_member(removed, PATIENCE).await
        };
        let all = futures::future::join_all((0..200).map(removal)).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(node.status().members.len(), 2);
        cluster.kill(removed);
        let next = 4 + round;
        cluster.launch(next).await;
        cluster.join(next).await;
    }
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request_and_at_shutdown() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let epoch = cluster.node(leader).leadership().unwrap().term;
    let now = cluster.node(leader).transfer_leader(Some(follower), PATIENCE).await.unwrap();
    assert_eq!(now, follower);
    assert_eq!(cluster.leader().await, follower);
    assert!(cluster.node(follower).leadership().unwrap().term > epoch);
    assert_eq!(cluster.node(leader).leadership(), None);
    let unknown = cluster.node(follower).transfer_leader(Some(9), PATIENCE).await;
    assert!(matches!(unknown, Err(MemberError::UnknownMember(9))), "{unknown:?}");
    let leaving = cluster.replicas.remove(&follower).unwrap();
    leaving.stop().await;
    let node = cluster.node(leader);
    assert_ne!(node.status().leader, Some(follower), "it left without handing over");
    put(&node, "r", "k", "v").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_elected_a_moment_ago_hands_over_too() {
    let cluster = Cluster::start(3, Setup::default()).await;
    let mut leader = cluster.leader().await;
    for _ in 0..20 {
        // Asked before it can have heard anybody.
        let next = cluster.node(leader).transfer_leader(None, PATIENCE).await.unwrap();
        assert_ne!(next, leader);
        leader = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_not_handed_to_a_dead_replica() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let node = cluster.node(leader);
    cluster.kill(follower);
    let silent =
        || node.status().members.into_iter().find(|member| member.id == follower).unwrap().last_heard;
    let lease = node.lease_duration();
    eventually("the silence to be noticed", || silent().is_none_or(|heard| heard.elapsed() > lease)).await;
    let term = node.status().term;
    let refused = node.transfer_leader(Some(follower), PATIENCE).await;
    assert!(matches!(refused, Err(MemberError::NotReady(id)) if id == follower), "{refused:?}");
    put(&node, "r", "k", "v").await;
    assert_eq!(node.status().term, term, "it cost an election");
    // Without a wish, the living one is chosen.
    assert_ne!(node.transfer_leader(None, PATIENCE).await.unwrap(), follower);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_two_leaders_never_overlap() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let old = cluster.leader().await;
    let node = cluster.node(old);
    let mut last = node.leadership().unwrap();
    // Cut off without being told: it goes on believing that it leads as long as its lease says so.
    let others: Vec<u64> = cluster.replicas.keys().copied().filter(|id| *id != old).collect();
    let replica = cluster.replicas.remove(&old).unwrap();
    let address = replica.address;
    replica.kill();
    while let Some(leads) = node.leadership().filter(|leads| leads.holds()) {
        last = leads;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let new = cluster.leader().await;
    assert!(others.contains(&new));
    let leads = cluster.node(new).leadership().unwrap();
    assert!(leads.term > last.term);
    let may_act = leads.since + cluster.node(new).lease_duration();
    assert!(last.until < may_act, "the old lease ends {:?} too late", last.until - may_act);
    cluster.addresses.insert(old, address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_too_long_is_refused() {
    let cluster = Cluster::start(1, Setup::default()).await;
    let refused = cluster.node(1).propose(vec![b'x'; raft::MAX_ENTRY_BYTES + 1], PATIENCE).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_knows_that_there_is_no_leader_to_reach() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let third = *cluster.replicas.keys().find(|id| **id != leader && **id != follower).unwrap();
    let hears = |cluster: &Cluster, id: u64| cluster.node(id).leader_in_touch();
    eventually("everybody to hear the leader", || {
        [leader, follower, third].iter().all(|id| hears(&cluster, *id) == Some(leader))
    })
    .await;
    // A follower alone: Pre-Vote keeps its vote, and with it the name of the leader that it once had.
    cluster.kill(leader);
    cluster.kill(third);
    eventually("the silence to be noticed", || hears(&cluster, follower).is_none()).await;
    cluster.launch(third).await;
    let new = cluster.leader().await;
    eventually("the new leader to be heard", || {
        [follower, third].iter().all(|id| hears(&cluster, *id) == Some(new))
    })
    .await;
    // A leader alone.
    let other = if new == follower { third } else { follower };
    cluster.kill(other);
    eventually("the quorum to be missed", || hears(&cluster, new).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_disturbs_nobody() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    let third = *cluster.replicas.keys().find(|id| **id != leader && **id != away).unwrap();
    let node = cluster.node(away);
    cluster.kill(leader);
    cluster.kill(third);
    eventually("the silence to be noticed", || node.leader_in_touch().is_none()).await;
    let term = node.status().term;
    // Alone, it would like to be elected again and again. It asks first, and its term stays what it is: the others would
    // have to follow a higher one.
    let alone = Instant::now();
    eventually("some elections to come to nothing", || {
        alone.elapsed() > cluster.setup.timing.election_max * 6
    })
    .await;
    assert_eq!(node.status().term, term, "it has called elections that nobody heard of");
    cluster.launch(leader).await;
    cluster.launch(third).await;
    let new = cluster.leader().await;
    let elected = cluster.node(new).status().term;
    eventually("it to follow", || node.leader_in_touch() == Some(new)).await;
    put(&cluster.node(new), "after", "k", "v").await;
    assert_eq!(cluster.node(new).status().term, elected, "its return cost an election");
}

/// Plain TCP, and what it was asked for.
#[derive(Default)]
struct Recording(std::sync::Mutex<Vec<(u64, raft::Purpose)>>);

impl raft::PeerConnector for Recording {
    fn peer(
        &self,
        node_id: u64,
        address: &str,
        purpose: raft::Purpose,
    ) -> Result<std::sync::Arc<dyn raft::Peer>, raft::ConnectError> {
        self.0.lock().expect("nobody panics in it").push((node_id, purpose));
        common::Plain.peer(node_id, address, purpose)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_purpose_has_a_connection_of_its_own() {
    use raft::Purpose::{Append, Forward, Heartbeat, Snapshot};
    let recording = std::sync::Arc::new(Recording::default());
    let snapshots = SnapshotPolicy { every_entries: 50, keep_entries: 70, lag_entries: 60 };
    let setup = Setup { connector: recording.clone(), snapshots, ..Setup::default() };
    let mut cluster = Cluster::start(2, setup).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    // Far enough that a third one is sent a snapshot.
    for n in 0..300 {
        put(&cluster.node(follower), &format!("n{n}"), &format!("n{n}"), "v").await;
    }
    let node = cluster.node(leader);
    eventually("the log to be cut", || node.status().purged > Some(100)).await;
    cluster.launch(3).await;
    cluster.join(3).await;
    let asked = recording.0.lock().unwrap().clone();
    let distinct: std::collections::BTreeSet<_> = asked.iter().copied().collect();
    for wanted in [(follower, Append), (follower, Heartbeat), (leader, Forward), (3, Snapshot), (3, Append)] {
        assert!(distinct.contains(&wanted), "{wanted:?} in {distinct:?}");
    }
    // Two nodes may each have asked for one; none has asked twice for the same.
    let count = |wanted| asked.iter().filter(|asked| **asked == wanted).count();
    assert!(distinct.iter().all(|wanted| count(*wanted) <= 2), "{asked:?}");
}
