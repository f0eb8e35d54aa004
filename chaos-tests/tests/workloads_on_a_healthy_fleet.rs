//! Every kind of client at work on a fleet to which nothing happens: each one sees something, and all judges are content.
//! Were one answer of each kind another one, its judge would not be.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::checks;
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::deploying::DEPLOY_LIMIT;
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{Net, upload_hello};
use chaos_tests::workloads::{Mix, Observed, Workloads, Write};
use checkers::history::{Event, History, What};
use checkers::linearizable::register::{self, Answer, Call};
use checkers::locks;
use checkers::watch::Seen;
use cpi_sim::Knobs;

#[tokio::test]
async fn every_kind_of_client_is_served_as_promised() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let cluster = Cluster::start(3, CloudKind::Sim { seed: 1, knobs: Knobs::default() }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let workloads = Workloads::start(&cluster, 1, Mix { deployments: 2, ..Mix::default() })?;
    let begun = Instant::now();
    loop {
        let so_far = workloads.progress();
        if so_far.register_events > 300 && so_far.writes > 30 && so_far.outputs > 2 && so_far.blobs > 2 {
            break;
        }
        ensure!(begun.elapsed() < DEPLOY_LIMIT, "too slow: {so_far:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut observed = workloads.stop().await?;
    let verdict = checks::all(&cluster, &observed).await?;
    println!("{verdict}");
    verdict.hold()?;
    for (checker, noun) in [
        ("linearizable", "answered operations"),
        ("watch", "changes received"),
        ("output", "bytes"),
        ("blobs", "readings"),
        ("locks", "events"),
        ("deaths", "acknowledged heartbeats"),
        ("instances", "belongings"),
        ("deeds", "things made"),
        ("leadership", "deeds"),
    ] {
        ensure!(verdict.looked_at(checker, noun) > 0, "`{checker}` saw no {noun}");
    }

    falsify(&mut observed)?;
    let verdict = checks::all(&cluster, &observed).await?;
    let objecting: Vec<&str> = verdict.reports.iter().filter(|r| !r.holds()).map(|r| r.checker).collect();
    let expected = ["ends", "linearizable", "watch", "output", "blobs", "locks", "deaths"];
    ensure!(objecting == expected, "{objecting:?} object to what was falsified:\n{verdict}");
    ensure!(verdict.reports.iter().all(|r| r.undecided.is_empty()), "{verdict}");
    cluster.finish().await
}

/// Changes one thing in each record: what a fleet that broke one promise each would have shown.
fn falsify(observed: &mut Observed) -> Result<()> {
    let newest = *observed.writes.last().context("something was written")?;
    observed.writes.push(Write { number: newest.number + 1000, ..newest });

    let mut events = observed.registers.events().to_vec();
    let last_us = events.iter().map(|event| event.at_us).max().unwrap_or_default();
    let call = Call { key: "r0".into(), what: register::What::Read };
    for what in [What::Invoke(call), What::Ok(Answer::Read(Some(u64::MAX)))] {
        events.push(Event { process: u64::MAX, at_us: last_us, what });
    }
    observed.registers = History::new(events)?;

    let messages = observed.watchers.iter_mut().flat_map(|watcher| &mut watcher.seen).skip(2);
    let mut changes = messages.filter_map(|seen| match seen {
        Seen::Message { changes, .. } if !changes.is_empty() => Some(changes),
        _ => None,
    });
    changes.next().context("a watcher got changes")?.remove(0);

    let mut pieces = observed.followed.iter_mut().map(|(_, _, followed)| &mut followed.pieces);
    let pieces = pieces.find(|pieces| pieces.len() > 1).context("an output came in pieces")?;
    pieces.remove(0);

    let blob = observed.blobs.first_mut().context("something was uploaded")?;
    blob.bytes[0] ^= 1;

    let mut locks = observed.sightings.locks.iter();
    let seen = locks.rfind(|event| event.lock.starts_with("lock:deployment:")).context("a lock was held")?;
    let earlier = locks::Token { task: seen.by.task - 1, ..seen.by };
    observed.sightings.locks.push(locks::Event { by: earlier, ..seen.clone() });

    let mut agents = observed.sightings.agents.values_mut();
    let agent = agents.find(|agent| !agent.acknowledged_us.is_empty()).context("an agent was heard")?;
    agent.declared_dead_us.extend(agent.acknowledged_us.last().map(|heard_us| heard_us + 1000));
    Ok(())
}
