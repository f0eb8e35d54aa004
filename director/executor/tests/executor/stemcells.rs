//! Stemcells and releases: handed to clouds once, reported where that is not certain, deleted only when nobody uses them.

use agent_api::fake::Behaviour;
use cpi_api::CpiErrorKind;
use cpi_api::fake::Fault;
use model::stemcell::AgentKind;
use model::task::{TaskKind, TaskState};
use model::{DeploymentName, NodeId, TaskId, Version};
use serde_json::{Value, json};
use state::command::{Command, THIRD_LEVEL};
use state::log::{CommandLog as _, Proposal};
use state::records::Member;

use crate::artifacts::{Shape, release, stemcell_with, stemcell_with_agent};
use crate::gate::{Point, Side};
use crate::world::TestWorld;

async fn upload(world: &TestWorld, version: &str, image: &str, fix: bool) -> TaskKind {
    TaskKind::UploadStemcell { blob: world.put(stemcell_with(version, image)).await, fix }
}

fn delete(version: &str, force: bool) -> TaskKind {
    TaskKind::DeleteStemcell { name: "small-stemcell".into(), version: Version::from(version), force }
}

fn delete_release() -> TaskKind {
    TaskKind::DeleteRelease { name: "tiny".into(), version: None }
}

fn images(world: &TestWorld) -> usize {
    world.outside.cloud.cloud().stemcells.len()
}

fn leaks(world: &TestWorld) -> Vec<String> {
    world.read(|state| state.leaks().into_iter().map(|leak| leak.what).collect())
}

#[tokio::test]
async fn an_image_whose_answer_the_leader_did_not_live_to_see_is_reported() {
    let world = TestWorld::seed().await;
    let kind = upload(&world, "2", "another disk", false).await;
    let point = Point { name: "log:stemcell_put".into(), nth: 1, side: Side::Before };
    world.run_through(kind, point).await.done();
    assert_eq!(images(&world), 3, "the one that was there, the lost one, and the one that counts");
    let leaks = leaks(&world);
    assert!(leaks.len() == 1 && leaks[0].contains("small-stemcell/2"), "{leaks:?}");
}

#[tokio::test]
async fn a_log_that_fails_for_a_moment_makes_no_second_image() {
    let world = TestWorld::seed().await;
    *world.log.no_leader.lock().unwrap() = Some("log:stemcell_put");
    let kind = upload(&world, "2", "another disk", false).await;
    world.run(kind).await.done();
    assert_eq!((images(&world), leaks(&world)), (2, vec![]));
}

#[tokio::test]
async fn an_image_whose_answer_was_lost_is_reported() {
    let world = TestWorld::seed().await;
    world.outside.cloud.inject("create_stemcell", Fault::LoseAnswer);
    let kind = upload(&world, "2", "another disk", false).await;
    assert!(world.run(kind.clone()).await.error().contains("no answer in time"));
    assert_eq!((images(&world), leaks(&world).len()), (2, 1));
    world.run(kind).await.done();
    assert_eq!((images(&world), leaks(&world).len()), (3, 1));
}

#[tokio::test]
async fn another_image_under_the_same_name_is_refused_before_a_cloud_makes_one() {
    let world = TestWorld::seed().await;
    for fix in [false, true] {
        let kind = upload(&world, "1", "another disk", fix).await;
        let error = world.run(kind).await.error();
        assert!(error.contains("exists already with another image"), "{error}");
    }
    assert_eq!((images(&world), leaks(&world)), (1, vec![]));
    let kind = upload(&world, "1", "not a disk", true).await;
    world.run(kind).await.done();
    assert_eq!(images(&world), 2, "the same image again, since it was asked for");
}

#[tokio::test]
async fn what_the_state_does_not_file_is_the_tasks_error_and_a_leak() {
    let world = TestWorld::seed().await;
    *world.log.refuse.lock().unwrap() = Some("log:stemcell_put");
    let kind = upload(&world, "2", "another disk", false).await;
    let error = world.run(kind).await.error();
    assert!(error.contains("the test says so") && !error.contains("can't go on"), "{error}");
    assert_eq!((images(&world), leaks(&world).len()), (2, 1));
}

#[tokio::test]
async fn a_deploy_that_is_under_way_keeps_what_it_uses() {
    let world = TestWorld::seed().await;
    world.outside.behave("start", Behaviour::Hang { then: Value::Null });
    let task = world.queue(Shape::default().deploy());
    world.until_open(task, "start").await;
    // It never succeeded before: only its instances and its plan say what it uses.
    assert_eq!(
        world.run(delete("1", false)).await.error(),
        "Stemcell 'small-stemcell/1' is still in use by: p"
    );
    assert_eq!(
        world.run(delete("1", true)).await.error(),
        "Stemcell 'small-stemcell/1' is still in use by: p"
    );
    assert!(world.run(delete_release()).await.error().contains("still in use by: p"));
    assert_eq!(images(&world), 1);
    world.outside.behave_as_usual();
    world.outside.release();
    world.ended(task).await.done();
}

/// Has the state do this as part of a task that is filed and taken for it.
fn as_task(
    log: &state::log::MemoryLog,
    kind: TaskKind,
    command: impl FnOnce(TaskId, model::Epoch) -> Command,
) {
    let apply = |command| log.apply(Proposal::own(command)).outcome.accepted().unwrap();
    let queue = Command::TaskQueue { kind, deployment: None, context_id: String::new(), locks: Vec::new() };
    let state::command::Outcome::TaskQueued(task) = apply(queue) else { panic!("no task") };
    let epoch = {
        let view = log.view();
        state::State::new(&*view).epoch()
    };
    apply(Command::TaskTake { task, epoch });
    apply(command(task, epoch));
}

#[tokio::test]
async fn a_plan_made_with_a_stemcell_that_goes_meanwhile_does_not_count() {
    let world = TestWorld::seed().await;
    *world.log.ambush.lock().unwrap() = Some((
        "log:plan_commit".to_owned(),
        Box::new(|log, _| {
            as_task(log, delete("1", false), |task, epoch| Command::StemcellRetire {
                task,
                epoch,
                name: "small-stemcell".into(),
                version: "1".into(),
            });
        }),
    ));
    let error = world.run(Shape::default().deploy()).await.error();
    assert!(error.contains("toronto-os"), "no such stemcell any more: {error}");
    assert!(world.outside.cloud.cloud().vms.is_empty());
}

#[tokio::test]
async fn a_deletion_goes_on_where_it_was_broken_off() {
    for (name, side) in [
        ("log:stemcell_retire", Side::After),
        ("cpi:delete_stemcell", Side::After),
        ("log:stemcell_delete", Side::After),
        ("log:task_finish", Side::Before),
    ] {
        let world = TestWorld::seed().await;
        world.run_through(delete("1", false), Point { name: name.into(), nth: 1, side }).await.done();
        assert_eq!((images(&world), world.read(|state| state.stemcells().len())), (0, 0), "{name}");
        assert_eq!(leaks(&world), Vec::<String>::new(), "{name}");
    }
    let world = TestWorld::seed().await;
    let point = Point { name: "log:task_finish".into(), nth: 1, side: Side::Before };
    world.run_through(delete_release(), point).await.done();
}

#[tokio::test]
async fn a_stemcell_that_a_cloud_does_not_delete_stays_retired_unless_forced() {
    let world = TestWorld::seed().await;
    world.outside.cloud.inject("delete_stemcell", Fault::Fail(CpiErrorKind::Other));
    world.run(delete("1", false)).await.error();
    assert!(world.read(|state| state.stemcells())[0].retired);
    let kind = upload(&world, "1", "not a disk", false).await;
    assert!(world.run(kind).await.error().contains("is being deleted"));
    assert_eq!(images(&world), 1);
    world.outside.cloud.inject("delete_stemcell", Fault::Fail(CpiErrorKind::Other));
    world.run(delete("1", true)).await.done();
    let leaks = leaks(&world);
    assert!(leaks.len() == 1 && leaks[0].contains("stemcell-1"), "{leaks:?}");
    assert!(world.read(|state| state.stemcells()).is_empty());
    let kind = upload(&world, "1", "not a disk", false).await;
    world.run(kind).await.done();
}

#[tokio::test]
async fn uploads_and_deletions_that_were_cancelled_before_they_began_do_nothing() {
    let world = TestWorld::seed().await;
    let blob = world.put(release("other")).await;
    let kinds = [
        upload(&world, "2", "another disk", false).await,
        delete("1", false),
        delete_release(),
        TaskKind::UploadRelease { blob, rebase: false, fix: false },
    ];
    for kind in kinds {
        // The leader takes the task up, dies, and the operator changes his mind.
        world.gate.arm(Some(Point { name: "log:task_take".into(), nth: 1, side: Side::After }));
        let task = world.queue(kind.clone());
        assert!(world.stopped_before_end_of(task).await);
        world.depose().await;
        world.gate.arm(None);
        world.apply(Command::TaskCancel { task });
        world.lead();
        assert_eq!(world.ended(task).await.task.state, TaskState::Cancelled, "{kind:?}");
    }
    assert_eq!(images(&world), 1);
    assert_eq!(world.read(|state| (state.releases().len(), state.stemcells().len())), (1, 1));
}

async fn upload_with_agent(world: &TestWorld, version: &str, agent: &str) -> TaskKind {
    TaskKind::UploadStemcell { blob: world.put(stemcell_with_agent(version, agent)).await, fix: false }
}

/// Returns the agent that was filed of a version.
fn filed_agent(world: &TestWorld, version: &str) -> Option<AgentKind> {
    let row = world.read(|state| state.stemcell("small-stemcell", &Version::from(version), &"".into()));
    row.unwrap().stemcell.agent
}

#[tokio::test]
async fn vms_know_whose_agent_their_stemcell_says_is_inside() {
    let world = TestWorld::seed().await;
    world.run(upload_with_agent(&world, "2", "bosh").await).await.done();
    assert_eq!(filed_agent(&world, "2"), Some(AgentKind::Bosh));
    for (version, is_bosh_s) in [("1", false), ("2", true)] {
        let mut manifest: Value = serde_json::from_str(&Shape::default().manifest()).unwrap();
        manifest["stemcells"][0]["version"] = json!(version);
        let manifest_text = manifest.to_string();
        world.run(TaskKind::Deploy { manifest_text, options: Default::default() }).await.done();
        let web = world.read(|state| {
            let instances = state.instances(&DeploymentName::new("p"));
            instances.iter().flat_map(|instance| state.vms(&instance.spec.id)).collect::<Vec<_>>()
        });
        assert!(!web.is_empty() && web.iter().all(|vm| vm.stemcell.version.as_str() == version), "{web:?}");
        assert!(web.iter().all(|vm| vm.stemcell.has_bosh_s_agent() == is_bosh_s), "{web:?}");
    }
}

#[tokio::test]
async fn an_agent_that_nobody_knows_is_refused_before_a_cloud_makes_an_image() {
    let world = TestWorld::seed().await;
    let error = world.run(upload_with_agent(&world, "2", "other").await).await.error();
    assert!(
        error.contains("'agent' of stemcell.MF is \"other\": it must be 'bosh' or 'directorate'"),
        "{error}"
    );
    assert_eq!((images(&world), leaks(&world)), (1, vec![]));
}

#[tokio::test]
async fn what_the_name_does_not_say_waits_until_every_replica_can_be_told() {
    let world = TestWorld::seed().await;
    let old = Member {
        node: NodeId(1),
        name: "one".into(),
        api_address: "one:1".into(),
        peer_address: "one:2".into(),
        agent_address: "one:3".into(),
        version: "0".into(),
        feature_level: THIRD_LEVEL - 1,
    };
    world.apply(Command::MemberPut { member: old.clone() });
    let error = world.run(upload_with_agent(&world, "2", "bosh").await).await.error();
    assert!(error.contains("'small-stemcell/2' says 'agent: bosh'"), "{error}");
    assert_eq!((images(&world), leaks(&world)), (1, vec![]));
    world.run(upload_with_agent(&world, "3", "directorate").await).await.done();
    assert_eq!(filed_agent(&world, "3"), None, "its name says so: old replicas know that, too");
    world.apply(Command::MemberPut { member: Member { feature_level: THIRD_LEVEL, ..old } });
    world.run(upload_with_agent(&world, "2", "bosh").await).await.done();
    assert_eq!(filed_agent(&world, "2"), Some(AgentKind::Bosh));
}
