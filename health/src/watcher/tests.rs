#![allow(clippy::disallowed_methods, reason = "a test's task ends with its runtime")]

use super::*;
use crate::fake::{Asked, FakeWorld, seconds};

/// A watcher that has been running for a while, all of whose agents have just been heard.
async fn watching(agents: usize) -> (Arc<FakeWorld>, Arc<Ears>) {
    let (world, ears) = (FakeWorld::new(), Arc::new(Ears::default()));
    world.watch(agents);
    tokio::spawn(run(world.clone(), ears.clone(), Policy::default(), CancellationToken::new()));
    for _ in 0..20 {
        seconds(1).await;
        beat(&ears, agents);
    }
    assert_eq!(world.with(|w| w.asked_count), 0, "nobody was silent");
    (world, ears)
}

fn beat(ears: &Ears, agents: usize) {
    (0..agents).for_each(|n| ears.heard(&AgentId::new(n.to_string())));
}

#[tokio::test(start_paused = true)]
async fn a_death_is_known_in_fifteen_seconds_and_told_once() {
    let (world, _) = watching(1).await;
    let last_beat = Instant::now();
    seconds(15).await;
    assert_eq!(world.dead().len(), 1);
    let (suspected, ..) = world.told(Health::Suspect).pop().expect("it was suspected first");
    assert!(suspected - last_beat <= Duration::from_secs(12));
    seconds(60).await;
    assert_eq!(world.with(|w| w.reports.len()), 2, "each is told once");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_deaths_at_once_are_known_in_twenty_seconds() {
    let (world, _) = watching(1000).await;
    seconds(20).await;
    assert_eq!(world.dead().len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn silence_of_one_that_answers_is_no_death() {
    let (world, _) = watching(1).await;
    world.with(|w| w.asked = Asked::Answers);
    seconds(60).await;
    assert!(world.with(|w| w.asked_count) > 0);
    assert_eq!(world.with(|w| w.reports.len()), 0, "no death, and not even a suspicion");
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_comes_while_the_agent_is_asked_saves_it() {
    let (world, ears) = watching(1).await;
    while world.with(|w| w.asked_count) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    beat(&ears, 1);
    seconds(5).await;
    assert_eq!(world.dead().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_election_and_a_new_map_extend_all_deadlines() {
    let (world, _) = watching(3).await;
    seconds(8).await;
    world.with(|w| w.epoch += 1);
    seconds(4).await;
    world.with(|w| w.map.0 += 1);
    seconds(4).await;
    assert_eq!(world.with(|w| w.asked_count), 0);
    seconds(8).await;
    assert_eq!(world.dead().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn watchers_that_keep_changing_hide_no_death() {
    let (world, _) = watching(1).await;
    let new =
        Watched { agent: AgentId::new("new"), agreed: Health::New, ..world.with(|w| w.watched[0].clone()) };
    world.with(|w| w.watched.push(new));
    for _ in 0..5 {
        seconds(7).await;
        world.with(|w| w.map.0 += 1);
    }
    assert_eq!(world.dead(), BTreeSet::from([AgentId::new("0")]));
    for _ in 0..8 {
        seconds(7).await;
        world.with(|w| w.map.0 += 1);
    }
    assert_eq!(world.dead().len(), 2, "also one that has never been heard, once it has had its time to boot");
}

/// Until the fleet suspects the only agent.
async fn suspected(world: &FakeWorld) -> Instant {
    while world.told(Health::Suspect).is_empty() {
        seconds(1).await;
    }
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn one_that_was_suspected_before_the_watchers_changed_is_listened_for_like_any_other() {
    let (world, _) = watching(1).await;
    suspected(&world).await;
    world.with(|w| w.map.0 += 1);
    let taken_over = Instant::now();
    // What the question under way finds is refused.
    seconds(12).await;
    let (found, ..) = world.told(Health::Dead).into_iter().find(|told| told.1 == 2).expect("it is dead");
    assert!(found - taken_over >= Policy::default().listened_min + ASK_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_been_suspected_for_long_is_asked_as_soon_as_the_watchers_change() {
    let (world, _) = watching(1).await;
    // Nobody can have it known that it is dead, for so long that the suspicion is old.
    let since = suspected(&world).await;
    while since.elapsed() < Policy::default().suspicion_counts_after {
        world.with(|w| w.map.0 += 1);
        seconds(1).await;
    }
    world.with(|w| w.map.0 += 1);
    let (map, taken_over) = (world.with(|w| w.map.0), Instant::now());
    seconds(7).await;
    let (found, ..) = world.told(Health::Dead).into_iter().find(|told| told.1 == map).expect("it is dead");
    assert!(found - taken_over < Policy::default().listened_min + ASK_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn time_in_which_this_process_stood_still_is_no_silence() {
    let (world, _) = watching(3).await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    seconds(4).await;
    assert_eq!(world.with(|w| w.asked_count), 0);
}

#[tokio::test(start_paused = true)]
async fn standing_still_while_asking_proves_no_death() {
    let (world, ears) = watching(3).await;
    while world.with(|w| w.asked_count) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::advance(Duration::from_secs(3600)).await;
    seconds(1).await;
    beat(&ears, 3);
    seconds(5).await;
    assert_eq!(world.dead().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_agreed_on_in_time_is_looked_at_anew() {
    let (world, ears) = watching(2).await;
    world.with(|w| w.leaderless = true);
    seconds(30).await;
    // One is back when there is a leader again; the old finding must not reach it.
    ears.heard(&AgentId::new("0"));
    world.with(|w| w.leaderless = false);
    for _ in 0..30 {
        seconds(1).await;
        ears.heard(&AgentId::new("0"));
    }
    assert_eq!(world.dead(), BTreeSet::from([AgentId::new("1")]));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_judged_while_a_task_works_or_another_replica_watches() {
    let (world, _) = watching(2).await;
    world.with(|w| w.watched.iter_mut().for_each(|a| a.in_work = true));
    seconds(60).await;
    world.with(|w| {
        w.watched.iter_mut().for_each(|a| a.in_work = false);
        w.map = (2, BTreeSet::from([model::NodeId(2)]));
    });
    seconds(60).await;
    assert_eq!(world.with(|w| w.asked_count), 0);
}

#[tokio::test(start_paused = true)]
async fn the_dead_come_back_when_they_are_heard() {
    let (world, ears) = watching(1).await;
    seconds(20).await;
    beat(&ears, 1);
    seconds(2).await;
    let last = world.with(|w| w.reports.last().cloned()).unwrap();
    assert_eq!(last.2.health, Health::Alive);
}

#[tokio::test(start_paused = true)]
async fn the_dead_come_back_when_they_answer_though_nobody_hears_them_here() {
    let (world, _) = watching(2).await;
    seconds(20).await;
    assert_eq!(world.dead().len(), 2);
    // It is served by a replica that is not its watcher.
    world.with(|w| w.answering = BTreeSet::from([AgentId::new("1")]));
    seconds(15).await;
    let back = world.told(Health::Alive).pop().unwrap().2;
    assert_eq!((back.agent, back.reason.as_str()), (AgentId::new("1"), "it answers when asked"));
    seconds(60).await;
    assert_eq!(world.told(Health::Alive).len(), 1, "and stays alive as long as it answers");
    assert_eq!(world.told(Health::Dead).len(), 2, "the other one is not told again");
}

#[tokio::test(start_paused = true)]
async fn the_many_dead_keep_no_suspect_waiting() {
    let (world, ears) = watching(1001).await;
    for _ in 0..30 {
        seconds(1).await;
        ears.heard(&AgentId::new("1000"));
    }
    assert_eq!(world.dead().len(), 1000);
    seconds(15).await;
    assert_eq!(world.dead().len(), 1001);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_it_even_while_a_report_waits() {
    let (world, ears) = (FakeWorld::new(), Arc::new(Ears::default()));
    world.watch(1);
    world.with(|w| w.leaderless = true);
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(world, ears, Policy::default(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(13_500)).await;
    let before = Instant::now();
    stop.cancel();
    running.await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[test]
fn what_was_heard_of_agents_that_are_gone_is_forgotten() {
    let ears = Ears::default();
    let (stays, goes) = (AgentId::new("stays"), AgentId::new("goes"));
    ears.heard(&stays);
    ears.heard(&goes);
    ears.forget_all_but(&BTreeSet::from([&stays]));
    assert!(ears.last(&stays).is_some() && ears.last(&goes).is_none());
}

#[tokio::test(start_paused = true)]
async fn one_whose_jobs_fail_is_alive() {
    let (world, ears) = watching(1).await;
    for _ in 0..60 {
        ears.jobs(&AgentId::new("0"), false);
        beat(&ears, 1);
        seconds(1).await;
    }
    assert!(world.dead().is_empty() && world.told(Health::Suspect).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_agents_say_of_their_jobs_is_told_once_also_while_a_task_works_on_them() {
    let (world, ears) = watching(2).await;
    world.with(|w| w.watched[1].in_work = true);
    let (idle, busy) = (AgentId::new("0"), AgentId::new("1"));
    let say = |first: bool, second: bool| {
        ears.jobs(&idle, first);
        ears.jobs(&busy, second);
    };
    let told = || world.with(|w| std::mem::take(&mut w.jobs));
    say(true, true);
    seconds(3).await;
    assert_eq!(told(), [(idle.clone(), true), (busy.clone(), true)]);
    say(true, false);
    seconds(3).await;
    assert_eq!(told(), [(busy.clone(), false)], "only what has changed");
    // Without a leader it is not forgotten.
    world.with(|w| w.leaderless = true);
    say(false, false);
    seconds(5).await;
    world.with(|w| w.leaderless = false);
    seconds(5).await;
    assert_eq!(told(), [(idle.clone(), false)]);
    // Under a new map it counts from what is said then.
    world.with(|w| w.watched[0].jobs_run = Some(true));
    world.with(|w| w.map.0 += 1);
    seconds(3).await;
    assert_eq!(told(), []);
    say(false, false);
    seconds(3).await;
    assert_eq!(told(), [(idle, false)]);
}
