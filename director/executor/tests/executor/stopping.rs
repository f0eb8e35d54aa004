//! How jobs are stopped: what their scripts are told, and how long anybody waits for them.

use std::time::Duration;

use agent_api::Method;
use agent_api::fake::Behaviour;
use model::instance::InstanceState;
use model::step::DrainKind;
use model::task::TaskKind;
use serde_json::{Value, json};

use crate::artifacts::{Shape, become_state};
use crate::world::TestWorld;

/// Returns how often a drain of this kind was told that a disk of this size comes next.
fn drains(world: &TestWorld, wanted: DrainKind, disk_mib: u32) -> usize {
    let told = |method: &Method| match method {
        Method::Drain { kind, spec } => {
            let spec = spec.as_ref().expect("every drain is told what comes next");
            // What goes away with its instance is told of nothing: that is no disk.
            *kind == wanted && spec["persistent_disk"].as_u64().unwrap_or(0) == u64::from(disk_mib)
        }
        _ => false,
    };
    world.outside.deeds().iter().filter(|(_, deed)| told(&deed.method)).count()
}

#[tokio::test]
async fn every_drain_is_told_what_comes_next() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(drains(&world, DrainKind::Shutdown, 1024), 2, "their first disks come");
    world.run(Shape { port: json!(9090), ..Shape::default() }.deploy()).await.done();
    assert_eq!(drains(&world, DrainKind::Update, 1024), 2);
    world.run(Shape { disk_mib: 0, port: json!(9090), ..Shape::default() }.deploy()).await.done();
    assert_eq!(drains(&world, DrainKind::Shutdown, 0), 2);
    world.run(become_state(InstanceState::Detached)).await.done();
    assert_eq!(drains(&world, DrainKind::Shutdown, 0), 3);
    world.run(TaskKind::DeleteDeployment { force: false }).await.done();
    assert_eq!(drains(&world, DrainKind::Shutdown, 0), 4);
}

/// The configurations that an agent was told of, in order: by which method, and which.
fn configurations(world: &TestWorld) -> Vec<(&'static str, String)> {
    let vm = world.read(|state| state.vms(&world.first_web())).remove(0);
    let told = |method: Method| {
        let name = method.name();
        match method {
            Method::Drain { spec: Some(spec), .. } | Method::Apply { spec } => {
                Some((name, spec["configuration_hash"].as_str()?.to_owned()))
            }
            _ => None,
        }
    };
    world.outside.agents.deeds(&vm.agent).into_iter().filter_map(|deed| told(deed.method)).collect()
}

#[tokio::test]
async fn drain_scripts_learn_whether_their_configuration_changes() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let before = configurations(&world);
    let first = before.last().expect("it was applied").1.clone();
    world.run(Shape { port: json!(9090), ..Shape::default() }.deploy()).await.done();
    let told = configurations(&world).split_off(before.len());
    let [("drain", drained), ("apply", applied)] = told.as_slice() else { panic!("{told:?}") };
    assert_ne!(*drained, first);
    assert_eq!(drained, applied);
}

#[tokio::test]
async fn jobs_that_do_not_stop_do_not_hold_up_a_deploy_for_ever() {
    let world = TestWorld::seed().await;
    world.outside.behave("stop", Behaviour::Hang { then: Value::Null });
    let task = world.queue(Shape { instances: 1, ..Shape::default() }.deploy());
    world.until_asked("stop", 1).await;
    tokio::time::pause();
    for _ in 0..40 {
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
    world.ended(task).await.done();
    assert!(world.debug().contains("did not stop in time: timed out sending 'stop'"), "{}", world.debug());
}
