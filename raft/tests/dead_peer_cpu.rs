//! A dead peer must cost next to no CPU time. The only test of its program: what is measured is the whole process.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod common;

use std::time::Duration;

use common::{Cluster, Setup, put};

/// How long is measured.
const SECONDS: u64 = 4;

/// Nobody listens where the dead follower was: each call fails at once, so whoever calls again at once never rests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_follower_whose_port_refuses_costs_no_more_than_one_that_lives() {
    let mut cluster = Cluster::start(3, Setup::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    put(&cluster.node(leader), "first", "k", "v").await;
    let alive = measure(&cluster, leader, "alive").await;
    cluster.kill(follower);
    put(&cluster.node(leader), "second", "k", "v").await;
    let dead = measure(&cluster, leader, "dead").await;
    println!("in {SECONDS} s: {alive} hundredths of a second of CPU time with it, {dead} without");
    assert!(tokio::net::TcpStream::connect(cluster.addresses[&follower]).await.is_err(), "the port refuses");
    // A tenth of a core more. A thread that never rests takes a whole one, on a busy machine a third.
    assert!(dead < alive + 10 * SECONDS, "{alive} hundredths of a second with it, {dead} without");
}

/// Returns the CPU time that some seconds take in which little is written. Here a test waits for a time, since what a time
/// costs is what it measures.
async fn measure(cluster: &Cluster, leader: u64, name: &str) -> u64 {
    let before = cpu_ticks();
    for n in 0..SECONDS * 2 {
        put(&cluster.node(leader), &format!("{name}{n}"), "k", "v").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    cpu_ticks() - before
}

/// Returns the CPU time of this process so far, its own and the kernel's for it, in hundredths of a second: the kernel
/// promises that unit (USER_HZ) to programs on every machine.
fn cpu_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name in parentheses may hold anything, also parentheses; after it comes the third field, and these are 14 and 15.
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..=12].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}
