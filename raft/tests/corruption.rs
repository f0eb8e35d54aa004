//! Bytes flip in the files of a replica that is down. It never gives a wrong answer: what is damaged is found and named
//! before it is served, and what is not damaged is as it was.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use common::{Cluster, PATIENCE, Replica, Setup, noted_fatal, put};
use raft::disk::LocalDisk;
use raft::{SnapshotPolicy, StartError, examine};

/// Places in each file where a byte is flipped.
const PLACES: u64 = 7;

/// The longest part of a file that is looked at from its end: logs are laid out with room for more.
const TAIL: u64 = 4096;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

/// RocksDB's own chatter: nothing in it is ours.
fn is_chatter(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    name.starts_with("LOG") || name == "LOCK" || name == "IDENTITY" || name.starts_with("OPTIONS")
}

fn flip(path: &Path, place: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place as usize] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// A directory with everything in it: tables, logs of writes, a snapshot. Returns also what is in the state.
async fn filled() -> (Cluster, PathBuf, BTreeMap<Vec<u8>, Vec<u8>>) {
    let snapshots = SnapshotPolicy { every_entries: 300, keep_entries: 800, lag_entries: 400 };
    let mut cluster = Cluster::start(1, Setup { snapshots, ..Setup::default() }).await;
    for n in 0..200 {
        put(&cluster.node(1), &format!("r{n}"), &format!("k{n}"), &format!("value-{n}")).await;
    }
    cluster.node(1).snapshot(PATIENCE).await.unwrap();
    // What was in a log of writes is put in tables at the next start.
    cluster.kill(1);
    cluster.launch(1).await;
    cluster.leader().await;
    for n in 200..230 {
        put(&cluster.node(1), &format!("r{n}"), &format!("k{n}"), &format!("value-{n}")).await;
    }
    let state = cluster.replicas[&1].dump();
    cluster.kill(1);
    let dir = cluster.dirs[&1].path().to_owned();
    (cluster, dir, state)
}

/// Starts a replica on a damaged directory and reads all it has. Returns what it said when it stopped, or what it has.
async fn run_on(dir: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
    let (on_fatal, noted) = noted_fatal();
    let setup = Setup { on_fatal: Some(on_fatal), ..Setup::default() };
    let replica = match Replica::try_start(1, dir, None, &setup).await {
        Ok(replica) => replica,
        Err(error @ (StartError::Database { .. } | StartError::DataDir { .. } | StartError::Engine(_))) => {
            return Err(chain(&error));
        }
        Err(error) => panic!("{error:?}"),
    };
    let led = replica.node.read_barrier(PATIENCE).await.is_ok();
    let read = std::panic::catch_unwind(AssertUnwindSafe(|| replica.dump()));
    replica.kill();
    match (led, read) {
        (true, Ok(state)) => Ok(state),
        _ => Err(noted.lock().unwrap().first().cloned().expect("who stops says why")),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_is_named_and_never_served() {
    let (_cluster, dir, state) = filled().await;
    let (mut found, mut harmless) = (0, Vec::new());
    for path in files(&dir).into_iter().filter(|path| !is_chatter(path)) {
        let length = fs::metadata(&path).unwrap().len();
        let from = length.saturating_sub(TAIL);
        let places: std::collections::BTreeSet<u64> = (0..PLACES)
            .map(|n| from + (length - from) * n / PLACES)
            .filter(|place| *place < length)
            .collect();
        for place in places {
            let scratch = tempfile::tempdir().unwrap();
            copy(&dir, scratch.path());
            let name = path.strip_prefix(&dir).unwrap();
            flip(&scratch.path().join(name), place);
            let damages = examine(&LocalDisk, scratch.path(), 1);
            match (run_on(scratch.path()).await, damages.first()) {
                // What was lost is what nobody was promised, or what the log has: it is all there.
                (Ok(read), _) if read == state => harmless.push(format!("{}:{place}", name.display())),
                (Ok(_), damage) => panic!("byte {place} of {} was served: {damage:?}", name.display()),
                (Err(told), Some(damage)) => {
                    found += 1;
                    let told = format!("{told} {damage}");
                    let database =
                        name.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
                    assert!(told.contains(database.trim_end_matches('s')), "which database? {told}");
                }
                (Err(told), None) => panic!("byte {place} of {}: not found, and then {told}", name.display()),
            }
        }
    }
    println!("{found} flips were found, {} changed nothing: {harmless:?}", harmless.len());
    assert!(found > 30, "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_is_not_begun_anew() {
    let (_cluster, dir, _) = filled().await;
    for gone in ["log", "state/1", "state/current"] {
        let scratch = tempfile::tempdir().unwrap();
        copy(&dir, scratch.path());
        let path = scratch.path().join(gone);
        match path.is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        assert!(!examine(&LocalDisk, scratch.path(), 1).is_empty(), "{gone}");
        let Err(refused) = run_on(scratch.path()).await else { panic!("{gone}: it began anew") };
        assert!(refused.contains("lost") || refused.contains("gone"), "{gone}: {refused}");
    }
}
