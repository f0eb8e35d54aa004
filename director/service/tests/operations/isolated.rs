//! Changes of one instance and of nothing else: which one is meant.

use model::instance::InstanceState;
use model::task::{StateChange, TaskKind};
use model::{DeploymentName, TaskId};
use service::ServiceError;
use service::ops::InstanceWish;

use crate::fleet::{Fleet, admin, caller};
use crate::nouns::{create_vm, plan_of, vm_created};

const HARD_STOP: InstanceWish =
    InstanceWish { change: StateChange::Become(InstanceState::Detached), skip_drain: true, fix: false };

/// Instance `api/i1`, with a VM.
fn with_vm() -> Fleet {
    let fleet = Fleet::new();
    let mut world = fleet.world();
    let task = world.planned(plan_of(vec![create_vm()]));
    world.step(task, 1, 0, vm_created("vm-1"));
    drop(world);
    fleet
}

async fn ask(fleet: &Fleet, deployment: &str, which: (&str, &str)) -> Result<TaskId, ServiceError> {
    let deployment = DeploymentName::new(deployment);
    fleet.service().change_instance(&admin(), None, &deployment, which, HARD_STOP).await
}

#[tokio::test]
async fn an_instance_is_named_by_its_index_or_its_id() {
    let fleet = with_vm();
    for id_or_index in ["0", "i1"] {
        let filed = ask(&fleet, "web", ("api", id_or_index)).await.unwrap();
        let task = fleet.world().state().task(filed).unwrap();
        let kind = TaskKind::ChangeInstance {
            change: StateChange::Become(InstanceState::Detached),
            instance: "i1".into(),
            skip_drain: true,
            fix: false,
        };
        assert_eq!(task.kind, kind);
        assert_eq!(task.locks, ["lock:deployment:web".into()]);
    }
}

#[tokio::test]
async fn one_that_is_not_there_is_refused_before_there_is_a_task() {
    let fleet = with_vm();
    for (deployment, group, id, code) in [
        ("none", "api", "0", 70000),
        ("web", "nope", "0", 70001),
        ("web", "api", "1", 70001),
        ("web", "api", "i2", 70001),
    ] {
        let error = ask(&fleet, deployment, (group, id)).await.unwrap_err();
        let ServiceError::Told(told) = &error else { panic!("{error:?}") };
        assert_eq!(told.code, code, "{told:?}");
    }
    let reader = caller("bosh.read");
    let refused =
        fleet.service().change_instance(&reader, None, &"web".into(), ("api", "0"), HARD_STOP).await;
    assert!(matches!(refused, Err(ServiceError::Forbidden { .. })), "{refused:?}");
}
