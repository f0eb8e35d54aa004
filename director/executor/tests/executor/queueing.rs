//! Several tasks at once: in line for one deployment, side by side for two, and in each other's way.

use agent_api::fake::Behaviour;
use model::plan::Plan;
use model::task::{TaskKind, TaskState};
use model::{AgentId, DeploymentName, Epoch, InstanceId, LockName, TaskId};
use serde_json::{Value, json};
use state::State;
use state::command::{Command, Outcome};
use state::log::{CommandLog as _, MemoryLog, Proposal};

use crate::artifacts::Shape;
use crate::world::TestWorld;

fn hang() -> Behaviour {
    Behaviour::Hang { then: Value::Null }
}

#[tokio::test]
async fn two_deploys_of_one_deployment_run_one_after_the_other() {
    let world = TestWorld::seed().await;
    world.outside.behave("start", hang());
    let first = world.queue(Shape::default().deploy());
    world.until_open(first, "start").await;
    let second = world.queue(Shape { port: json!(9090), ..Shape::default() }.deploy());
    let third = world.queue(Shape { port: json!(7070), ..Shape::default() }.deploy());
    let lock = world.read(|state| state.lock(&LockName::new("lock:deployment:p"))).unwrap();
    assert_eq!((lock.holder, lock.waiters), (first, vec![second, third]));
    world.apply(Command::TaskCancel { task: third });
    assert_eq!(world.ended(third).await.task.state, TaskState::Cancelled, "it had not begun");
    world.outside.behave_as_usual();
    world.outside.release();
    let (first, second) = (world.ended(first).await.done(), world.ended(second).await.done());
    assert!(first.task.finished_at.unwrap() <= second.task.started_at.unwrap());
    assert!(world.read(|state| state.locks()).is_empty());
}

#[tokio::test]
async fn two_deployments_are_deployed_side_by_side() {
    let world = TestWorld::seed().await;
    world.outside.behave("start", hang());
    let slow = world.queue(Shape::default().deploy());
    world.until_open(slow, "start").await;
    world.outside.behave_as_usual();
    world.run(Shape { name: "q", ..Shape::default() }.deploy()).await.done();
    assert_eq!(world.read(|state| state.task(slow)).unwrap().state, TaskState::Processing);
    world.outside.release();
    world.ended(slow).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 4);
    assert_eq!(world.outside.done("compile_package"), 2, "what one has compiled the other uses");
    world.assert_consistent();
}

#[tokio::test]
async fn a_package_that_two_deployments_want_at_once_is_compiled_once() {
    let world = TestWorld::seed().await;
    world.outside.behave("compile_package", hang());
    let first = world.queue(Shape::default().deploy());
    world.until_open(first, "compile_package").await;
    world.until_asked("compile_package", 1).await;
    let second = world.queue(Shape { name: "q", ..Shape::default() }.deploy());
    world.until_open(second, "compile_package").await;
    let lock = LockName::new("lock:compile:lib/fp-lib:toronto-os/1");
    let lock = world.read(|state| state.lock(&lock)).unwrap();
    assert_eq!((lock.holder, lock.waiters), (first, vec![second]));
    world.outside.behave_as_usual();
    world.outside.release();
    world.ended(first).await.done();
    world.ended(second).await.done();
    assert_eq!(world.outside.done("compile_package"), 2, "each of the two packages once");
    assert!(world.read(|state| state.locks()).is_empty());
    world.assert_consistent();
}

#[tokio::test]
async fn a_package_whose_compilation_is_given_up_is_compiled_by_who_waits_for_it() {
    for loses_leader in [false, true] {
        let world = TestWorld::seed().await;
        world.outside.behave("compile_package", hang());
        let first = world.queue(Shape::default().deploy());
        world.until_open(first, "compile_package").await;
        world.until_asked("compile_package", 1).await;
        let second = world.queue(Shape { name: "q", ..Shape::default() }.deploy());
        world.until_open(second, "compile_package").await;
        if loses_leader {
            world.depose().await;
            world.lead();
        }
        world.outside.behave_as_usual();
        world.apply(Command::TaskCancel { task: first });
        assert_eq!(world.ended(first).await.task.state, TaskState::Cancelled);
        world.ended(second).await.done();
        assert_eq!(world.read(|state| state.compiled_packages()).len(), 2);
        assert!(world.read(|state| state.locks()).is_empty());
        world.assert_consistent();
    }
}

#[tokio::test]
async fn who_waits_for_a_package_can_be_cancelled() {
    let world = TestWorld::seed().await;
    world.outside.behave("compile_package", hang());
    let first = world.queue(Shape::default().deploy());
    world.until_open(first, "compile_package").await;
    let second = world.queue(Shape { name: "q", ..Shape::default() }.deploy());
    world.until_open(second, "compile_package").await;
    world.apply(Command::TaskCancel { task: second });
    assert_eq!(world.ended(second).await.task.state, TaskState::Cancelled);
    world.outside.behave_as_usual();
    world.outside.release();
    world.ended(first).await.done();
    assert!(world.read(|state| state.locks()).is_empty());
    world.assert_consistent();
}

/// Takes an address that `plan` wants, for an instance of another deployment, as a task that was faster does.
fn take_an_address_of(log: &MemoryLog, plan: &Plan) {
    let apply = |command| log.apply(Proposal::own(command)).outcome.accepted().unwrap();
    let deployment = DeploymentName::new("q");
    let kind = Shape { name: "q", instances: 1, ..Shape::default() }.deploy();
    let (context_id, locks) = (String::new(), vec![LockName::new("lock:deployment:q")]);
    let queued = Command::TaskQueue { kind, deployment: Some(deployment.clone()), context_id, locks };
    let Outcome::TaskQueued(task) = apply(queued) else { panic!("no task") };
    let epoch = {
        let view = log.view();
        State::new(&*view).epoch()
    };
    apply(Command::TaskTake { task, epoch });
    let mut rival =
        Plan { deployment: Some(deployment.clone()), generation: 0, record: None, ..plan.clone() };
    rival.phases.clear();
    rival.targets.truncate(1);
    rival.reservations.retain(|r| r.instance == rival.targets[0].spec.id);
    let id = InstanceId::new("a-rival");
    rival.targets[0].spec.deployment = deployment;
    rival.targets[0].spec.id = id.clone();
    rival.reservations.iter_mut().for_each(|r| r.instance = id.clone());
    assert!(!rival.reservations.is_empty(), "{:?}", plan.reservations);
    commit(log, task, epoch, rival);
}

fn commit(log: &MemoryLog, task: TaskId, epoch: Epoch, plan: Plan) {
    let plan = Box::new(plan);
    log.apply(Proposal::own(Command::PlanCommit { task, epoch, draft: 1, parts: 0, plan }))
        .outcome
        .accepted()
        .unwrap();
}

#[tokio::test]
async fn a_plan_whose_address_was_taken_meanwhile_is_made_again() {
    let world = TestWorld::seed().await;
    *world.log.ambush.lock().unwrap() = Some((
        "log:plan_commit".to_owned(),
        Box::new(|log, command| {
            let Command::PlanCommit { plan, .. } = command else { panic!("{command:?}") };
            take_an_address_of(log, plan);
        }),
    ));
    let ended = world.run(Shape::default().deploy()).await.done();
    assert!(world.debug().contains("plan 1 was refused: address"), "{}", world.debug());
    assert_eq!(
        ended.events.matches("Rendering templates").count(),
        2,
        "no line is told twice: {}",
        ended.events
    );
    let addresses = world.read(|state| state.addresses());
    assert!(addresses.iter().any(|a| a.instance.as_str() == "a-rival"));
    let ips: std::collections::BTreeSet<_> = addresses.iter().map(|a| a.ip).collect();
    assert_eq!(ips.len(), addresses.len());
    world.assert_consistent();
}

#[tokio::test]
async fn a_plan_for_an_older_generation_is_made_again() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let instance = world.first_web();
    *world.log.ambush.lock().unwrap() = Some((
        "log:plan_commit".to_owned(),
        Box::new(move |log, _| {
            log.apply(Proposal::own(Command::InstanceIgnore { instance, ignore: true }))
                .outcome
                .accepted()
                .unwrap();
        }),
    ));
    world.run(Shape { tags: json!({"team": "blue"}), ..Shape::default() }.deploy()).await.done();
    assert!(world.debug().contains("plan 1 was refused: deployment p is at generation"), "{}", world.debug());
}

#[tokio::test]
async fn two_resurrections_of_one_deployment_are_one() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let instances = vec![world.kill_a_vm()];
    world.run(TaskKind::ScanAndFix { instances: instances.clone(), unknown: Vec::new() }).await.done();
    let agents: Vec<AgentId> =
        world.read(|state| state.vms(&instances[0])).into_iter().map(|vm| vm.agent).collect();
    assert_eq!(agents.len(), 1);
    world.run(TaskKind::ScanAndFix { instances: instances.clone(), unknown: Vec::new() }).await.done();
    assert_eq!(world.read(|state| state.vms(&instances[0]))[0].agent, agents[0]);
}
