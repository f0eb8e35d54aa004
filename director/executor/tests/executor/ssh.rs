//! Operators' users: made on each machine that is meant, on record, once, whoever leads.

use agent_api::fake::Behaviour;
use executor::ports::SshGateway;
use model::task::{SshCommand, SshTarget, TaskKind, TaskState};
use serde_json::{Value, json};
use state::command::Command;

use crate::artifacts::Shape;
use crate::ended::Ended;
use crate::gate::{Point, Side};
use crate::world::TestWorld;

async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    world
}

fn target(group: &str, ids: &[&str]) -> SshTarget {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    SshTarget { group: Some(group.into()), indexes: ids.clone(), ids }
}

fn setup(target: SshTarget) -> TaskKind {
    let command = SshCommand::Setup { user: "bosh_1a".into(), public_key: "ssh-rsa AAAA".into() };
    TaskKind::Ssh { command, target }
}

fn cleanup(target: SshTarget) -> TaskKind {
    TaskKind::Ssh { command: SshCommand::Cleanup { user_regex: "^bosh_1a".into() }, target }
}

fn answers(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.result.lines().count(), 1, "{}", ended.result);
    serde_json::from_str::<Value>(&ended.result).unwrap().as_array().unwrap().clone()
}

/// Audit events of a task: action, instance, user, whether it failed.
fn events(world: &TestWorld, ended: &Ended) -> Vec<(String, String, Value, bool)> {
    let all = world.read(|state| state.events(&Default::default(), None, usize::MAX));
    let of_instances = all.into_iter().filter(|event| event.object_type == "instance");
    let own = of_instances.filter(|event| event.task == Some(ended.task.id));
    let mut own: Vec<_> = own
        .map(|event| {
            assert_eq!(event.object_name, event.instance);
            let user = event.context["user"].clone();
            (event.action, event.instance.unwrap(), user, event.error.is_some())
        })
        .collect();
    own.sort_by_key(|(action, instance, _, failed)| (action.clone(), instance.clone(), *failed));
    own
}

#[tokio::test]
async fn each_machine_that_is_meant_says_how_to_reach_it() {
    let world = deployed().await;
    let ended = world.run(setup(target("web", &[]))).await.done();
    assert_eq!(ended.task.result.as_deref(), Some(""));
    assert_eq!(ended.task.description(), r#"ssh: setup:{"ids" => [], "indexes" => [], "job" => "web"}"#);
    let told = answers(&ended);
    assert_eq!(told.iter().map(|one| one["index"].clone()).collect::<Vec<_>>(), [json!(0), json!(1)]);
    for one in &told {
        let expected = json!({
            "command": "setup", "status": "success", "ip": "10.0.0.1", "host_public_key": "ssh-rsa HOST\n",
            "id": one["id"], "index": one["index"], "job": "web",
        });
        assert_eq!(*one, expected);
    }
    let first = world.first_web();
    for named in ["0", first.as_str()] {
        let ended = world.run(setup(target("web", &[named]))).await.done();
        let told = answers(&ended);
        assert_eq!((told.len(), &told[0]["id"]), (1, &json!(first)));
        assert_eq!(
            events(&world, &ended),
            [("setup ssh".to_owned(), format!("web/{first}"), json!("bosh_1a"), false)]
        );
    }
    let ended = world.run(cleanup(SshTarget::default())).await.done();
    assert!(answers(&ended).iter().all(|one| one["command"] == "cleanup" && one["status"] == "success"));
    assert_eq!(events(&world, &ended).len(), 2, "the group of the errand has no VM");
}

#[tokio::test]
async fn clients_are_told_of_a_gateway_where_there_is_one() {
    let world = TestWorld::seed().await;
    *world.ssh_gateway.lock().unwrap() = Some(SshGateway { host: "gw".into(), user: Some("jumpbox".into()) });
    world.depose().await;
    world.lead();
    world.run(Shape::default().deploy()).await.done();
    let told = answers(&world.run(setup(target("web", &["0"]))).await.done());
    assert_eq!((&told[0]["gateway_host"], &told[0]["gateway_user"]), (&json!("gw"), &json!("jumpbox")));
}

#[tokio::test]
async fn who_is_not_there_or_fails_fails_the_task_and_is_on_record() {
    let world = deployed().await;
    let error = world.run(setup(target("nope", &["0"]))).await.error();
    assert_eq!(error, r#"No instances matched {job: "nope", index: [0], deployment: "p"}"#);
    let error = world.run(setup(target("smoke", &[]))).await.error();
    assert!(error.starts_with("No instance with a VM matched"), "{error}");
    world.outside.behave("ssh", Behaviour::Fail("user `bosh_1a` is there, with another key".into()));
    let ended = world.run(setup(target("web", &["0"]))).await;
    let failures: Vec<bool> = events(&world, &ended).into_iter().map(|(_, _, _, failed)| failed).collect();
    assert!(ended.clone().error().contains("with another key"));
    assert_eq!((failures, ended.result.as_str()), (vec![false, true], ""));
    world.outside.answer("ssh", json!({ "status": "perhaps" }));
    assert!(world.run(setup(target("web", &[]))).await.error().contains("does not say"));
}

#[tokio::test]
async fn another_leader_makes_no_second_user() {
    let at = |name: &str, nth, side| Point { name: name.into(), nth, side };
    for point in [
        at("agent:ssh", 1, Side::Before),
        at("agent:ssh", 2, Side::After),
        at("log", 2, Side::After),
        at("log", 4, Side::After),
        at("log", 5, Side::Before),
    ] {
        let case = format!("{point:?}");
        let world = deployed().await;
        let ended = world.run_through(setup(target("web", &[])), point).await.done();
        assert_eq!(answers(&ended).len(), 2, "{case}");
        assert_eq!((world.outside.done("ssh"), events(&world, &ended).len()), (2, 2), "{case}");
    }
}

#[tokio::test]
async fn nobody_waits_for_users_that_are_not_wanted_any_more() {
    let world = deployed().await;
    world.outside.behave("ssh", Behaviour::Hang { then: Value::Null });
    let task = world.queue(setup(target("web", &[])));
    world.until_asked("ssh", 2).await;
    world.apply(Command::TaskCancel { task });
    assert_eq!(world.ended(task).await.task.state, TaskState::Cancelled);
}
