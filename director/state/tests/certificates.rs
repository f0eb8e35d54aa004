//! What agents of BOSH's prove with who they are: what one was offered, it has once the step is done that offered it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use common::*;
use expect_test::expect;
use model::step::{Action, StepOutcome};
use model::task::{TaskError, TaskKind};
use model::*;
use state::command::*;

fn update_settings() -> Action {
    Action::UpdateSettings { instance: "i1".into(), agent: "a1".into() }
}

fn serials(world: &World) -> (Option<String>, Option<String>) {
    let record = world.state().agent(&"a1".into()).unwrap();
    (record.certificate.map(|has| has.serial), record.offered.map(|offered| offered.certificate.serial))
}

fn some(serial: &str) -> Option<String> {
    Some(serial.to_owned())
}

/// A world in which agent `a1` was made with certificate `01`, and the step comes that sends it settings.
fn world() -> (World, TaskId) {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm(), update_settings(), update_settings()]));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    world.must(certificate_offer(task, step_no(1, 0), "a1", "01"));
    assert_eq!(serials(&world), (None, some("01")), "nobody knows whether there is a VM");
    let records = vec![finished(1, 0, 1, vm_created("vm-1")), started(1, 1, 1)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(serials(&world), (some("01"), None));
    (world, task)
}

#[test]
fn an_agent_has_what_it_was_offered_once_the_step_is_done() {
    let (mut world, task) = world();
    world.must(certificate_offer(task, step_no(1, 1), "a1", "02"));
    assert_eq!(serials(&world), (some("01"), some("02")));
    // The next leader offers again: the agent may have the first one already.
    world.must(certificate_offer(task, step_no(1, 1), "a1", "03"));
    assert_eq!(serials(&world), (some("01"), some("02")));
    let records = vec![finished(1, 1, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(serials(&world), (some("02"), None));
}

#[test]
fn a_step_that_fails_leaves_what_the_agent_has_and_no_other_step_hands_its_offer_over() {
    let (mut world, task) = world();
    world.must(certificate_offer(task, step_no(1, 1), "a1", "02"));
    let records = vec![
        StepRecord { step: step_no(1, 1), attempt: 1, event: StepEvent::Retrying("no answer".into()) },
        started(1, 1, 2),
        finished(1, 1, 2, StepOutcome::failed(TaskError::plain("no answer"))),
    ];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(serials(&world), (some("01"), some("02")));
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Error(TaskError::plain("no")) });
    // The next task sends settings, and no certificate.
    let task = world.planned(plan_of(vec![update_settings()]));
    let records = vec![started(1, 0, 1), finished(1, 0, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(serials(&world), (some("01"), some("02")));
}

#[test]
fn a_later_step_offers_another_one() {
    let (mut world, task) = world();
    world.must(certificate_offer(task, step_no(1, 1), "a1", "02"));
    world.must(certificate_offer(task, step_no(1, 2), "a1", "03"));
    let records = vec![finished(1, 1, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(serials(&world), (some("01"), some("03")));
}

#[test]
fn neither_an_older_leader_nor_a_task_that_has_ended_offers_anything() {
    let (mut world, task) = world();
    let (step, agent) = (step_no(1, 1), AgentId::new("a1"));
    let stale =
        Command::CertificateOffer { task, epoch: Epoch(0), step, agent, certificate: certificate("02") };
    expect!["refused: epoch 0 is over: the current one is 1"].assert_eq(&world.say(stale));
    expect!["refused: no such agent: a9"].assert_eq(&world.say(certificate_offer(task, step, "a9", "02")));
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    expect!["refused: task 1 is done"].assert_eq(&world.say(certificate_offer(task, step, "a1", "02")));
}

#[test]
fn certificates_of_one_deployment_are_rotated_by_one_task_at_a_time() {
    let mut world = World::new();
    let rotation = || queue(TaskKind::RotateCertificates { agents: vec!["a1".into()] }, Vec::new());
    world.must(rotation());
    expect!["refused: rotation of certificates exists already: task 1"].assert_eq(&world.say(rotation()));
}
