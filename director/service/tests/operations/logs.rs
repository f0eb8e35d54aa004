//! Logs: whose can be had, what is said of the others, and how long they are kept.

use model::task::{InstanceFilter, TaskKind};
use model::{DeploymentName, TaskId, Timestamp};
use service::ServiceError;
use service::ops::{LogWish, blobs_to_forget, bundles_to_forget};
use state::command::Command;

use crate::fleet::{Fleet, admin, caller};
use crate::nouns::{EPOCH, create_vm, plan_of, vm_created};

const DAY: i64 = 24 * 3600 * 1000;

/// Instance `api/i1`, with a VM.
fn with_vm() -> Fleet {
    let fleet = Fleet::new();
    let mut world = fleet.world();
    let task = world.planned(plan_of(vec![create_vm()]));
    world.step(task, 1, 0, vm_created("vm-1"));
    drop(world);
    fleet
}

fn wish(group: Option<&str>, id_or_index: Option<&str>) -> LogWish {
    let instances = InstanceFilter { group: group.map(Into::into), id_or_index: id_or_index.map(Into::into) };
    LogWish { instances, ..LogWish::default() }
}

async fn ask(fleet: &Fleet, deployment: &str, wish: LogWish) -> Result<TaskId, ServiceError> {
    fleet.service().fetch_logs(&admin(), None, &DeploymentName::new(deployment), wish).await
}

#[tokio::test]
async fn logs_are_those_of_instances_with_a_vm() {
    let fleet = with_vm();
    for (group, id_or_index) in [
        (None, None),
        (Some("api"), None),
        (Some("api"), Some("0")),
        (Some("api"), Some("i1")),
        (None, Some("0")),
    ] {
        let task = ask(&fleet, "web", wish(group, id_or_index)).await.unwrap();
        let TaskKind::FetchLogs { instances, logs, filters } = fleet.world().state().task(task).unwrap().kind
        else {
            panic!("it fetches logs");
        };
        assert_eq!((instances, logs.as_str(), filters.len()), (vec!["i1".into()], "job", 0));
        assert!(fleet.world().state().task(task).unwrap().locks.is_empty(), "it waits for no deploy");
    }
    for (deployment, group, id, code, text) in [
        ("none", None, None, 70000, "Deployment 'none' doesn't exist"),
        ("web", Some("nope"), Some("0"), 70001, "'web/nope/0' doesn't exist"),
        ("web", Some("api"), Some("1"), 70001, "'web/api/1' doesn't exist"),
        ("web", Some("nope"), None, 70001, "'web/nope/*' doesn't exist"),
    ] {
        let error = ask(&fleet, deployment, wish(group, id)).await.unwrap_err();
        let ServiceError::Told(told) = &error else { panic!("{error:?}") };
        assert_eq!((told.code, told.message.as_str()), (code, text));
    }
    let long = LogWish { filters: vec!["a".repeat(9000)], ..LogWish::default() };
    assert!(ask(&fleet, "web", long).await.is_err());
    let reader = caller("bosh.read");
    let refused = fleet.service().fetch_logs(&reader, None, &"web".into(), LogWish::default()).await;
    assert!(matches!(refused, Err(ServiceError::Forbidden { .. })), "logs may hold secrets");
}

#[tokio::test]
async fn an_instance_without_a_vm_has_no_logs() {
    let fleet = Fleet::new();
    fleet.world().planned(plan_of(vec![create_vm()]));
    let error = ask(&fleet, "web", wish(Some("api"), Some("0"))).await.unwrap_err();
    let ServiceError::Told(told) = &error else { panic!("{error:?}") };
    assert_eq!((told.code, told.message.as_str()), (70004, "'web/api/0' has no VM"));
}

#[tokio::test]
async fn what_tasks_left_is_forgotten_after_ten_days() {
    let fleet = with_vm();
    let task = ask(&fleet, "web", LogWish::default()).await.unwrap();
    let mut world = fleet.world();
    world.must(Command::BlobHeld { digest: "b1".into(), size_bytes: 1, nodes: vec![] });
    world.must(Command::BundlePut { task, epoch: EPOCH, digest: "b1".into() });
    let left_at = world.now;
    assert_eq!(bundles_to_forget(&world.state(), Timestamp(left_at + 10 * DAY - 1)), None);
    let forget = bundles_to_forget(&world.state(), Timestamp(left_at + 10 * DAY)).unwrap();
    world.must(forget);
    // The row goes at once; the blob when no task can be about to leave the same.
    assert!(world.state().is_forgettable(&"b1".into()));
    assert_eq!(blobs_to_forget(&world.state(), Timestamp(world.now + 30 * DAY)), None, "tasks are open");
    assert_eq!(bundles_to_forget(&world.state(), Timestamp(left_at + 20 * DAY)), None);
}
