#![allow(clippy::disallowed_methods, reason = "a test's task ends with its runtime")]

use std::collections::BTreeSet;

use model::{InstanceId, NodeId};

use super::*;
use crate::fake::{FakeWorld, seconds};
use crate::world::Failed;

fn looking() -> Arc<FakeWorld> {
    let world = FakeWorld::new();
    tokio::spawn(run(world.clone(), Thresholds::default(), CancellationToken::new()));
    world
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<InstanceId> {
    numbers.into_iter().map(|n| InstanceId::new(n.to_string())).collect()
}

/// A deployment of so many instances, the first of which are dead.
fn with_dead(total: usize, dead: usize) -> Unhealthy {
    Unhealthy {
        deployment: "web".into(),
        in_work: false,
        wanted: ids(0..total),
        dead: ids(0..dead),
        missing: ids([]),
        meltdown: None,
    }
}

/// Makes so many instances of the deployment dead from now on.
fn die(world: &FakeWorld, total: usize, dead: usize) {
    world.with(|w| {
        let meltdown = w.unhealthy.first().and_then(|u| u.meltdown);
        w.unhealthy = vec![Unhealthy { meltdown, ..with_dead(total, dead) }];
    });
}

#[tokio::test(start_paused = true)]
async fn a_follower_does_nothing() {
    let world = looking();
    world.with(|w| {
        w.leads = false;
        w.able = BTreeSet::from([NodeId(2)]);
    });
    die(&world, 3, 1);
    seconds(30).await;
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
    die(&world, 10, 2);
    seconds(10).await;
    let asked = world.with(|w| w.resurrected[0].clone());
    assert_eq!(asked, ("web".into(), vec![InstanceId::new("0"), InstanceId::new("1")]));
}

#[tokio::test(start_paused = true)]
async fn deaths_that_become_known_one_after_the_other_are_one_meltdown() {
    let world = looking();
    // Ten of thirty die at once, but their last heartbeats lie up to an interval apart.
    for dead in [2, 5, 7, 9, 10] {
        die(&world, 30, dead);
        seconds(1).await;
    }
    seconds(60).await;
    world.with(|w| {
        assert_eq!(w.resurrected, []);
        assert_eq!(w.meltdowns.last(), Some(&Some(Failed { unhealthy: 10, total: 30 })));
    });
}

#[tokio::test(start_paused = true)]
async fn those_that_die_while_others_are_being_resurrected_count_together_with_them() {
    let world = looking();
    die(&world, 10, 3);
    seconds(10).await;
    assert!(!world.with(|w| std::mem::take(&mut w.resurrected)).is_empty());
    // The task ends well, and meanwhile others have died, of whom nobody was told while it worked.
    world.with(|w| w.unhealthy[0].in_work = true);
    seconds(30).await;
    world.with(|w| w.unhealthy = vec![Unhealthy { dead: ids([7, 8]), ..with_dead(10, 0) }]);
    seconds(30).await;
    world.with(|w| {
        assert_eq!(w.resurrected, []);
        assert_eq!(w.meltdowns, [Some(Failed { unhealthy: 5, total: 10 })]);
    });
}

#[tokio::test(start_paused = true)]
async fn a_meltdown_lasts_as_long_as_its_failures_and_is_told_again_when_it_comes_back() {
    let world = looking();
    let (all, over) = (Some(Failed { unhealthy: 6, total: 10 }), None);
    die(&world, 10, 6);
    seconds(3600).await;
    world.with(|w| assert_eq!((w.meltdowns.as_slice(), w.resurrected.len()), (&[all][..], 0)));
    die(&world, 10, 0);
    seconds(599).await;
    world.with(|w| assert_eq!(w.meltdowns, [all], "what is healed counts for a while"));
    seconds(5).await;
    world.with(|w| assert_eq!(w.meltdowns, [all, over]));
    die(&world, 10, 6);
    seconds(5).await;
    world.with(|w| assert_eq!(w.meltdowns, [all, over, all]));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_knows_what_failed_before_it_led() {
    let world = looking();
    world.with(|w| w.leads = false);
    die(&world, 10, 4);
    seconds(30).await;
    // All are healed; then this replica is elected, and two more die.
    die(&world, 10, 0);
    seconds(30).await;
    world.with(|w| {
        w.leads = true;
        w.unhealthy = vec![Unhealthy { dead: ids([8]), ..with_dead(10, 0) }];
    });
    seconds(30).await;
    world.with(|w| {
        assert_eq!(w.resurrected, []);
        assert_eq!(w.meltdowns, [Some(Failed { unhealthy: 5, total: 10 })]);
    });
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_about_a_deployment_in_work() {
    let world = looking();
    world.with(|w| w.unhealthy = vec![Unhealthy { in_work: true, ..with_dead(10, 6) }]);
    seconds(60).await;
    world.with(|w| assert!(w.resurrected.is_empty() && w.meltdowns.is_empty()));
    world.with(|w| w.unhealthy[0].in_work = false);
    seconds(2).await;
    world.with(|w| assert_eq!(w.meltdowns.len(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_missing_vm_is_made_when_nobody_has_made_it_for_a_while() {
    let world = looking();
    world.with(|w| w.unhealthy = vec![Unhealthy { missing: ids([4]), ..with_dead(10, 0) }]);
    seconds(50).await;
    assert_eq!(world.with(|w| w.resurrected.len()), 0);
    seconds(15).await;
    assert_eq!(world.with(|w| w.resurrected[0].1.clone()), [InstanceId::new("4")]);
}
