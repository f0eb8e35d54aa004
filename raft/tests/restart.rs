//! What is on the disk when a replica comes back: after many entries, after `kill -9`, after damage.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Cluster, PATIENCE, Replica, Setup, eventually, noted_fatal, put};
use futures::StreamExt as _;
use raft::StartError;

/// Set in the child process that is killed; the directory to write to.
const CHILD_DIR: &str = "RAFT_TEST_CHILD_DIR";

async fn fill(node: &raft::Node, from: u32, to: u32) {
    let writes = (from..to).map(|n| async move { put(node, &format!("r{n}"), &format!("n{n}"), "v").await });
    futures::stream::iter(writes).buffer_unordered(256).for_each(|_| async {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_thousand_entries_survive_restarts_of_all_replicas() {
    const ENTRIES: u32 = 12_000;
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let leader = cluster.leader().await;
    fill(&cluster.node(leader), 0, ENTRIES).await;
    let before = cluster.converged().await;
    assert_eq!(before.len(), 2 * ENTRIES as usize);
    for id in [1, 2, 3] {
        cluster.kill(id);
    }
    for id in [1, 2, 3] {
        cluster.launch(id).await;
    }
    assert_eq!(cluster.converged().await, before);
    put(&cluster.node(2), "afterwards", "after", "v").await;
}

/// Runs only as the child of the next test: acknowledges on standard output what was committed, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let replica = Replica::start(1, Path::new(&dir), None, &Setup::default()).await;
    if !replica.node.is_initialized().await.unwrap() {
        replica.node.bootstrap(&replica.address.to_string()).await.unwrap();
    }
    let start = replica.node.read_barrier(PATIENCE).await.unwrap();
    for n in 0.. {
        let key = format!("{start}-{n}");
        put(&replica.node, &key, &key, "v").await;
        // Beside libtest's capture: the parent reads it.
        writeln!(std::io::stderr(), "acknowledged {key}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let wanted = acknowledged.len() + 40 + 30 * round;
        while acknowledged.len() < wanted {
            let line = lines.next().expect("the child ended").unwrap();
            acknowledged.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
        }
        // SIGKILL, in the middle of whatever it does.
        child.kill().unwrap();
        // What it had still acknowledged counts too.
        acknowledged.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|line| line.strip_prefix("acknowledged ").map(str::to_owned)),
        );
        child.wait().unwrap();
    }
    let replica = Replica::start(1, dir.path(), None, &Setup::default()).await;
    replica.node.read_barrier(PATIENCE).await.unwrap();
    for key in &acknowledged {
        assert_eq!(replica.read(key).as_deref(), Some("v"), "{key} was acknowledged and is lost");
    }
    replica.kill();
}

/// Waits until the databases in `dir` are closed, and returns why replica `id` does not start on them.
async fn refusal(id: u64, dir: &Path) -> StartError {
    loop {
        match Replica::try_start(id, dir, None, &Setup::default()).await {
            Ok(replica) => {
                replica.kill();
                panic!("it started");
            }
            Err(error) if format!("{error:?}").contains("lock hold") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return error,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_named_and_not_opened() {
    let mut cluster = Cluster::start(1, Setup::default()).await;
    fill(&cluster.node(1), 0, 500).await;
    cluster.kill(1);
    let dir = cluster.dirs[&1].path().to_owned();
    // Turn over some bytes of an entry in the middle of the write-ahead log. Not of a record's length: a length that
    // reaches beyond the file is what a write that was broken off looks like too.
    let wal = std::fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut content = std::fs::read(&wal).unwrap();
    let entry = b"r250 n250 v";
    let at = content.windows(entry.len()).position(|bytes| bytes == entry).unwrap();
    content[at..at + entry.len()].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(&wal, content).unwrap();
    let error = refusal(1, &dir).await;
    assert!(matches!(error, StartError::Database { database: "log", .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("log database") && text.contains(dir.to_str().unwrap()), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_of_another_replica_is_refused() {
    let mut cluster = Cluster::start(1, Setup::default()).await;
    cluster.kill(1);
    let error = refusal(7, cluster.dirs[&1].path()).await;
    assert!(matches!(error, StartError::OtherNode { expected: 7, found: 1, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_interrupted_installation_leaves_is_cleared_away() {
    let mut cluster = Cluster::start(1, Setup::default()).await;
    put(&cluster.node(1), "r", "k", "v").await;
    cluster.node(1).snapshot(PATIENCE).await.unwrap();
    cluster.kill(1);
    let dir = cluster.dirs[&1].path().to_owned();
    // Killed after the next generation was copied and before `state/current` was switched, and while another
    // snapshot was being received.
    let unfinished = [dir.join("state/2"), dir.join("snapshots/unfinished-7")];
    for path in &unfinished {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("000042.sst"), b"half a file").unwrap();
    }
    cluster.launch(1).await;
    cluster.leader().await;
    assert_eq!(cluster.replicas[&1].read("k").as_deref(), Some("v"));
    assert!(unfinished.iter().all(|path| !path.exists()));
    assert!(cluster.node(1).status().snapshot_index.is_some(), "the finished snapshot is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_stops_the_replica() {
    let (on_fatal, noted) = noted_fatal();
    let cluster = Cluster::start(1, Setup { on_fatal: Some(on_fatal), ..Setup::default() }).await;
    put(&cluster.node(1), "r", "k", "v").await;
    // RocksDB cannot make its next files in a directory that is gone.
    let log = cluster.dirs[&1].path().join("log");
    std::fs::remove_dir_all(&log).unwrap();
    let node = cluster.node(1);
    let value = "x".repeat(1 << 20);
    let mut n = 0;
    while noted.lock().unwrap().is_empty() {
        let entry = format!("big{n} k {value}").into_bytes();
        if node.propose(entry, Duration::from_secs(10)).await.is_err() {
            break;
        }
        n += 1;
        assert!(n < 2_000, "writing goes on without a directory");
    }
    eventually("the failure to be fatal", || !noted.lock().unwrap().is_empty()).await;
    assert!(noted.lock().unwrap()[0].contains("failed"), "{noted:?}");
    // Nothing is acknowledged after that.
    assert!(node.propose(b"after k v".to_vec(), Duration::from_millis(500)).await.is_err());
}
