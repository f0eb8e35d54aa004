//! `vms` and `instances`: what agents say, line by line.

use model::TaskId;
use model::task::{OutputKind, TaskKind};
use serde_json::{Value, json};
use state::command::Command;

use crate::artifacts::Shape;
use crate::world::TestWorld;

/// Returns the lines of a new task's result.
async fn lines(world: &TestWorld, vms: bool) -> Vec<Value> {
    let ended = world.run(TaskKind::Inspect { vms }).await.done();
    result(world, ended.task.id)
}

fn result(world: &TestWorld, task: TaskId) -> Vec<Value> {
    let text = world.read(|state| state.output(task, OutputKind::Result, 0, usize::MAX));
    let text = String::from_utf8(text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn group<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["job_name"] == name).collect()
}

#[tokio::test]
async fn each_instance_and_each_vm_has_a_line_with_what_its_agent_says() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let before = world.read(|state| state.instances(&"p".into()));
    let instances = lines(&world, false).await;
    let (web, smoke) = (group(&instances, "web"), group(&instances, "smoke"));
    assert_eq!((web.len(), smoke.len(), instances.len()), (2, 1, 3));
    for line in &web {
        assert_eq!((&line["job_state"], &line["state"]), (&json!("running"), &json!("started")), "{line}");
        assert!(line["vm_cid"].is_string() && line["disk_cid"].is_string(), "{line}");
        assert_eq!(line["disk_cids"], json!([line["disk_cid"]]));
    }
    // The group of an errand has no VM.
    assert_eq!((&smoke[0]["vm_cid"], &smoke[0]["job_state"]), (&Value::Null, &Value::Null));
    let vms = lines(&world, true).await;
    assert_eq!((group(&vms, "web").len(), vms.len()), (2, 2));
    assert_eq!(world.read(|state| state.instances(&"p".into())), before, "nothing has changed");
}

#[tokio::test]
async fn an_agent_that_is_gone_is_unresponsive_and_keeps_nobody_waiting() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let dead = world.kill_a_vm();
    let instances = lines(&world, false).await;
    let state = |line: &&Value| (line["id"] == json!(dead), line["job_state"].clone());
    let mut states: Vec<(bool, Value)> = group(&instances, "web").iter().map(state).collect();
    states.sort_by_key(|(is_dead, _)| *is_dead);
    assert_eq!(states, [(false, json!("running")), (true, json!("unresponsive agent"))]);
}

#[tokio::test]
async fn a_new_leader_goes_on_after_the_lines_that_are_there() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let whole = lines(&world, false).await;
    world.depose().await;
    let task = world.queue(TaskKind::Inspect { vms: false });
    let epoch = world.read(|state| state.epoch());
    world.apply(Command::TaskTake { task, epoch });
    world.apply(Command::TaskReport { task, epoch, lines: "{\"told\":\"before\"}\n".into() });
    world.lead();
    world.ended(task).await.done();
    let ids = |lines: &[Value]| lines.iter().skip(1).map(|line| line["id"].clone()).collect::<Vec<_>>();
    let found = result(&world, task);
    assert_eq!((found.len(), &found[0]), (whole.len(), &json!({ "told": "before" })));
    assert_eq!(ids(&found), ids(&whole));
}
