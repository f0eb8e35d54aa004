//! Numbers in DNS names, and the documents that agents are given.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use common::*;
use model::dns::DnsSubject;
use model::plan::Fate;
use model::*;
use state::command::*;
use state::records::AgentJobs;

fn put(version: u64, blob: &str) -> Command {
    Command::DnsPut { epoch: EPOCH, version, content: blob.into(), blob: blob.into() }
}

#[test]
fn versions_follow_each_other_whoever_leads() {
    let mut world = World::new();
    assert_eq!(world.state().dns_blob(), None);
    world.must(put(1, "one"));
    world.must(put(1, "one"));
    assert!(world.say(put(1, "other")).contains("does not follow"));
    assert!(world.say(put(3, "three")).contains("does not follow"));
    world.must(put(2, "two"));
    world.must(Command::LeaderBegin { node: NodeId(2), epoch: Epoch(2) });
    assert!(world.say(put(3, "late")).contains("epoch"), "of a leader that is none any more");
    let last = world.state().dns_blob().unwrap();
    assert_eq!((last.version, last.blob.as_str()), (2, "two"));
}

#[test]
fn old_documents_go_with_their_blobs_but_never_the_newest() {
    let mut world = World::new();
    let blobs: Vec<BlobDigest> = (1..=13).map(|n| format!("b{n}").into()).collect();
    let mut first = Timestamp(0);
    for (version, blob) in (1..).zip(&blobs) {
        world.must(Command::BlobHeld { digest: blob.clone(), size_bytes: 1, nodes: vec![NodeId(1)] });
        world.must(put(version, blob.as_str()));
        if version == 2 {
            first = Timestamp(world.now);
        }
    }
    // The third is older than the newest ten, and newer than was asked for.
    world.must(Command::DnsForget { blobs: blobs.clone(), before: first });
    let left: Vec<u64> = world.state().dns_blobs().iter().map(|row| row.version).collect();
    assert_eq!(left, (3..=13).collect::<Vec<u64>>());
    assert!(world.state().blob(&"b2".into()).is_none() && world.state().blob(&"b3".into()).is_some());
    world.must(Command::DnsForget { blobs: blobs[5..].to_vec(), before: Timestamp(world.now) });
    assert_eq!(world.state().dns_blobs().len(), 11, "only what was asked for");
    world.must(Command::DnsForget { blobs, before: Timestamp(world.now) });
    assert_eq!(world.state().dns_blobs().len(), DNS_BLOBS_KEPT);
}

#[test]
fn an_instance_has_one_number_and_nobody_gets_it_after_it() {
    let mut world = World::new();
    world.planned(plan(vec![target("i1", Some("10.0.0.5"), Fate::New)], Vec::new(), Vec::new()));
    let of = |id: &str| DnsSubject::Instance("web".into(), id.into());
    let number = |subjects: &[DnsSubject]| Command::DnsNumber { epoch: EPOCH, subjects: subjects.to_vec() };
    let gone = DnsSubject::Link("gone".into(), "l-t".into());
    world.must(number(&[of("i1"), of("planned"), gone.clone()]));
    world.must(number(&[of("i1")]));
    assert_eq!(world.state().dns_number(&of("i1")), Some(1));
    assert_eq!(world.state().dns_number(&of("planned")), Some(2), "it may come to be");
    assert_eq!(world.state().dns_number(&gone), None, "its deployment is not there");
    let stale = Command::DnsNumber { epoch: Epoch(0), subjects: vec![of("i1")] };
    assert!(world.say(stale).contains("epoch"));
}

#[test]
fn what_agents_say_of_their_jobs_is_known_until_they_say_otherwise() {
    let mut world = World::new();
    let create = unit(1, "api/i1 (0)", vec![create_vm()]);
    let target = target("i1", Some("10.0.0.5"), Fate::New);
    let task = world.planned(plan(
        vec![target],
        vec![reservation("i1", "10.0.0.5")],
        vec![stage(None, vec![create])],
    ));
    world.records(task, vec![started(1, 0, 1)]);
    let said = |shard_epoch: u64, agent: &str, run: bool| Command::AgentsJobs {
        shard_epoch,
        jobs: vec![AgentJobs { agent: agent.into(), run }],
    };
    let jobs_run = |world: &World| world.state().agents().first().map(|agent| agent.jobs_run);
    assert_eq!(jobs_run(&world), Some(None));
    let agent = world.state().agents()[0].agent.to_string();
    world.must(said(0, &agent, true));
    world.must(said(0, "gone", true));
    assert_eq!(jobs_run(&world), Some(Some(true)));
    assert!(world.say(said(1, &agent, false)).contains("shard map"), "of another map");
    world.must(said(0, &agent, false));
    assert_eq!(jobs_run(&world), Some(Some(false)));
    assert_eq!(world.state().agents().len(), 1, "nobody comes into being by what is said");
}
