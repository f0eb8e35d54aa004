#![allow(clippy::disallowed_methods, reason = "a test's task ends with its runtime")]

use model::NodeId;

use super::*;
use crate::fake::{FakeWorld, seconds};

const NOW_MS: i64 = 10_000_000;

fn looking() -> Arc<FakeWorld> {
    let world = FakeWorld::new();
    tokio::spawn(run(world.clone(), Thresholds::default(), || NOW_MS, CancellationToken::new()));
    world
}

fn failures(total: usize, since: &[i64]) -> Vec<Unhealthy> {
    let instances = since.iter().enumerate().map(|(n, at)| (InstanceId::new(n.to_string()), *at)).collect();
    vec![Unhealthy { deployment: "web".into(), total, instances }]
}

#[tokio::test(start_paused = true)]
async fn a_follower_does_nothing() {
    let world = looking();
    world.with(|w| {
        w.leads = false;
        w.able = BTreeSet::from([NodeId(2)]);
        w.unhealthy = failures(3, &[NOW_MS]);
    });
    seconds(5).await;
    world.with(|w| assert!(w.maps.is_empty() && w.resurrected.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn the_map_follows_who_can_watch_and_stays_while_nobody_knows() {
    let world = looking();
    seconds(5).await;
    assert!(world.with(|w| w.maps.is_empty()), "the same watchers need no new map");
    world.with(|w| w.able = BTreeSet::from([NodeId(2), NodeId(3)]));
    seconds(5).await;
    world.with(|w| w.able = BTreeSet::new());
    seconds(5).await;
    assert_eq!(world.with(|w| w.maps.clone()), [(2, BTreeSet::from([NodeId(2), NodeId(3)]))]);
}

#[tokio::test(start_paused = true)]
async fn a_few_are_resurrected() {
    let world = looking();
    world.with(|w| w.unhealthy = failures(10, &[NOW_MS, NOW_MS]));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let asked = world.with(|w| w.resurrected.clone());
    assert_eq!(asked, [("web".into(), vec![InstanceId::new("0"), InstanceId::new("1")])]);
}

#[tokio::test(start_paused = true)]
async fn a_meltdown_is_told_once_and_again_after_it_was_over() {
    let world = looking();
    let many = || failures(10, &[NOW_MS; 6]);
    world.with(|w| w.unhealthy = many());
    seconds(5).await;
    world.with(|w| assert!(w.resurrected.is_empty() && w.meltdowns == [("web".into(), 6, 10)]));
    world.with(|w| w.unhealthy = Vec::new());
    seconds(5).await;
    world.with(|w| w.unhealthy = many());
    seconds(5).await;
    assert_eq!(world.with(|w| w.meltdowns.len()), 2);
}

#[tokio::test(start_paused = true)]
async fn old_failures_are_no_meltdown_but_are_resurrected() {
    let world = looking();
    world.with(|w| w.unhealthy = failures(10, &[NOW_MS - 600_000; 6]));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    world.with(|w| assert!(w.meltdowns.is_empty() && w.resurrected[0].1.len() == 6));
}
