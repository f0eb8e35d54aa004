//! DNS records: who publishes them, who is told, and what of it survives its leader.

use std::collections::BTreeSet;
use std::time::Duration;

use agent_api::fake::Behaviour;
use model::dns::Records;
use model::{AgentId, BlobDigest, DeploymentName};
use state::command::Command;
use state::records::{AgentHealth, AgentJobs, AgentTransition, DnsBlob};

use crate::artifacts::Shape;
use crate::gate::{Point, Side};
use crate::world::TestWorld;

async fn seed() -> TestWorld {
    let world = TestWorld::seed().await;
    *world.local_dns.lock().unwrap() = true;
    world.depose().await;
    world.lead();
    world
}

/// Returns the agents of a deployment's instances.
fn agents(world: &TestWorld) -> BTreeSet<AgentId> {
    let vms = world.read(|state| state.deployment_vms(&DeploymentName::new("p")));
    vms.into_iter().filter(|vm| vm.is_current()).map(|vm| vm.agent).collect()
}

/// Waits until the newest records are those of these agents, and returns which they are.
async fn published(world: &TestWorld, agents: &BTreeSet<AgentId>) -> (DnsBlob, Records) {
    let row = world
        .until("the records are published", |state| {
            let found = state.dns_records("bosh").records;
            let found: BTreeSet<AgentId> =
                found.iter().filter_map(|record| record.agent_id.as_deref().map(AgentId::from)).collect();
            state.dns_blob().filter(|row| found == *agents && !is_older(state, row))
        })
        .await;
    let stored = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match executor::blobs::read_whole(&*world.ports.blobs, &row.blob).await {
                Ok(bytes) => return bytes,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let records = Records::read(&stored.await.expect("the document is stored")).unwrap();
    assert_eq!(records.version, row.version);
    (row, records)
}

/// Whether the state says something else than a document does.
fn is_older(state: &state::State<'_>, row: &DnsBlob) -> bool {
    use sha2::Digest as _;
    let found = state.dns_records("bosh");
    let records = Records { version: 0, records: found.records, aliases: found.aliases };
    !found.unnumbered.is_empty() || row.content != hex::encode(sha2::Sha256::digest(records.to_bytes()))
}

async fn told(world: &TestWorld, agent: &AgentId, version: u64) {
    let told = world.outside.agents.dns_version_from(agent, version);
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    assert!(told.is_ok(), "agent {agent} has {:?}", world.outside.agents.dns_version(agent));
}

/// Whoever happens to see it ends, and somebody must begin anew in its place.
#[tokio::test]
async fn records_are_published_though_the_lease_lapses_for_a_moment() {
    let world = seed().await;
    for looks in 0..14 {
        world.lapse_after(looks % 7).await;
        let instances = 1 + looks % 2;
        world.run(Shape { instances, ..Shape::default() }.deploy()).await.done();
        published(&world, &agents(&world)).await;
    }
}

#[tokio::test]
async fn agents_know_all_instances_before_their_jobs_start() {
    let world = seed().await;
    world.run(Shape::default().deploy()).await.done();
    let all = agents(&world);
    assert!(all.len() > 1);
    let requests = world.outside.requests();
    let first = |name: &str| requests.iter().position(|request| *request == name).unwrap();
    assert!(first("sync_dns") < first("pre-start"), "{requests:?}");
    let before_first_start = requests[..first("pre-start")].iter().filter(|r| **r == "sync_dns").count();
    assert!(before_first_start >= 1);
    let (row, records) = published(&world, &all).await;
    assert!(records.records.iter().all(|record| record.num_id.is_some() && !record.group_ids.is_empty()));
    let of: BTreeSet<AgentId> =
        records.records.iter().filter_map(|r| r.agent_id.as_deref().map(AgentId::from)).collect();
    assert_eq!(of, all);
    for agent in &all {
        told(&world, agent, row.version).await;
    }
    // The same again changes nothing.
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.read(|state| state.dns_blob()).unwrap(), row);
}

#[tokio::test]
async fn whoever_leads_next_publishes_and_tells_what_the_one_before_did_not() {
    for (name, nth, side) in [
        ("log:dns_number", 1, Side::After),
        ("log:dns_put", 1, Side::Before),
        ("log:dns_put", 1, Side::After),
        ("agent:sync_dns", 1, Side::Before),
        ("agent:sync_dns", 2, Side::After),
    ] {
        let world = seed().await;
        let point = Point { name: name.into(), nth, side };
        world.run_through(Shape::default().deploy(), point.clone()).await.done();
        let all = agents(&world);
        let (row, _) = published(&world, &all).await;
        for agent in &all {
            told(&world, agent, row.version).await;
        }
        let rows = world.read(|state| state.dns_blobs());
        let versions: Vec<u64> = rows.iter().map(|row| row.version).collect();
        assert_eq!(versions, (1..=row.version).collect::<Vec<u64>>(), "{point:?}");
        let blobs: BTreeSet<BlobDigest> = rows.into_iter().map(|row| row.blob).collect();
        assert_eq!(blobs.len(), versions.len(), "{point:?}: every version is another document");
        world.assert_consistent();
    }
}

#[tokio::test]
async fn agents_that_take_no_records_fail_no_deploy_and_are_told_again() {
    let world = seed().await;
    world.outside.behave("sync_dns", Behaviour::Fail("no room".into()));
    world.run(Shape::default().deploy()).await.done();
    let all = agents(&world);
    assert!(all.iter().all(|agent| world.outside.agents.dns_version(agent).is_none()));
    world.outside.behave_as_usual();
    let (row, _) = published(&world, &all).await;
    for agent in &all {
        told(&world, agent, row.version).await;
    }
}

#[tokio::test]
async fn an_agent_that_was_away_is_told_when_it_is_back() {
    let world = seed().await;
    world.run(Shape::default().deploy()).await.done();
    let all = agents(&world);
    let (row, _) = published(&world, &all).await;
    let away = all.first().unwrap();
    told(&world, away, row.version).await;
    world.outside.hush(away);
    // Something else comes into being meanwhile.
    let other = Shape { name: "q", ..Shape::default() };
    world.run(other.deploy()).await.done();
    let newer = world
        .until("there are newer records", |state| {
            state.dns_blob().filter(|newer| newer.version > row.version)
        })
        .await;
    let there = all.iter().find(|agent| *agent != away).unwrap();
    told(&world, there, newer.version).await;
    assert_eq!(world.outside.agents.dns_version(away), Some(row.version));
    world.outside.wake(away);
    told(&world, away, newer.version).await;
}

#[tokio::test]
async fn all_agents_hear_how_the_others_fare() {
    let world = seed().await;
    world.run(Shape::default().deploy()).await.done();
    let all = agents(&world);
    let (first, other) = (all.first().unwrap().clone(), all.last().unwrap().clone());
    let heard = async |badly: &[&AgentId], others: char| {
        let letter = |agent: &AgentId| if badly.contains(&agent) { '-' } else { others };
        let letters: String = all.iter().map(letter).collect();
        for agent in all.iter().filter(|agent| !badly.contains(agent)) {
            let like = world.outside.agents.dns_health_like(agent, |fares| fares.letters == letters);
            let like = tokio::time::timeout(Duration::from_secs(30), like).await;
            assert!(like.is_ok(), "{agent} knows {:?}", world.outside.agents.dns_health(agent));
            let version = world.outside.agents.dns_version(agent);
            assert_eq!(world.outside.agents.dns_health(agent).map(|fares| fares.records), version);
        }
    };
    heard(&[], '?').await;
    let jobs = |agents: &[&AgentId], run: bool| {
        let jobs = agents.iter().map(|agent| AgentJobs { agent: (*agent).clone(), run }).collect();
        world.apply(Command::AgentsJobs { shard_epoch: 0, jobs });
    };
    jobs(&all.iter().collect::<Vec<_>>(), true);
    heard(&[], '+').await;
    jobs(&[&other], false);
    heard(&[&other], '+').await;
    // Silence is as bad, whatever it said of its jobs before.
    let silent = |health| {
        let found = AgentTransition { agent: first.clone(), health, reason: "silent".into() };
        world.apply(Command::AgentTransitions { shard_epoch: 0, transitions: vec![found] });
    };
    silent(AgentHealth::Suspect);
    heard(&[&first, &other], '+').await;
    jobs(&[&other], true);
    silent(AgentHealth::Alive);
    heard(&[], '+').await;
}
