//! A client that lost an answer asks again with the same request id, and is told what it was told before, whatever has
//! happened since: also where what it asked for would be refused by now.

use model::plan::Plan;
use model::step::{Action, StepOutcome};
use model::{NodeId, RequestId, TaskId, Timestamp};
use service::ops::ErrandRun;
use service::{Service, ServiceError};
use state::command::{Command, TaskEnd};
use state::records::Member;

use crate::fleet::{Fleet, admin};
use crate::nouns::{EPOCH, START, commit, deploy, plan, queue, stage, unit};

fn id() -> Option<RequestId> {
    Some("lost".into())
}

/// A plan of one deed that concerns no instance.
fn deed(action: Action) -> Plan {
    plan(Vec::new(), Vec::new(), vec![stage(None, vec![unit(1, "u", vec![action])])])
}

/// Carries a task out.
fn done(fleet: &Fleet, task: TaskId, action: Action) {
    let mut world = fleet.world();
    world.must(Command::TaskTake { task, epoch: EPOCH });
    let generation = world.state().deployment(&"web".into()).map_or(0, |deployment| deployment.generation);
    world.must(commit(task, Plan { generation, ..deed(action) }));
    world.step(task, 1, 0, StepOutcome::Done);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
}

/// A fleet with an empty deployment `web`.
fn with_web() -> (Fleet, Service) {
    let fleet = Fleet::new();
    let task = fleet.world().queue(deploy(), &[]);
    done(&fleet, task, Action::SaveDeployment);
    let service = fleet.service();
    (fleet, service)
}

#[tokio::test]
async fn a_task_is_cancelled_once_and_the_second_answer_is_the_first() {
    let fleet = Fleet::new();
    let service = fleet.service();
    fleet.world().must(queue(deploy(), Vec::new()));
    let task = TaskId(1);
    let first = service.cancel_task(&admin(), id(), task).await.unwrap();
    assert_eq!(service.cancel_task(&admin(), id(), task).await, Ok(first));
    // Another request is refused, in BOSH's words.
    let refused = service.cancel_task(&admin(), Some("other".into()), task).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot cancel task 1: invalid state (cancelled)");
    let unknown = service.cancel_task(&admin(), None, TaskId(9)).await.unwrap_err();
    assert_eq!(unknown.to_string(), "Task 9 not found");
}

#[tokio::test]
async fn a_deployment_is_deleted_once_and_the_second_answer_is_the_first() {
    let (fleet, service) = with_web();
    let web = "web".into();
    let task = service.delete_deployment(&admin(), id(), &web, false, "").await.unwrap();
    done(&fleet, task, Action::DeleteDeployment);
    let again = service.delete_deployment(&admin(), id(), &web, false, "").await;
    assert_eq!(again, Ok(task));
    let other = service.delete_deployment(&admin(), None, &web, false, "").await.unwrap_err();
    assert!(other.to_string().contains("doesn't exist"), "{other}");
    let run = ErrandRun { errand: "e".into(), keep_alive: false, when_changed: false, instances: Vec::new() };
    let errand = service.run_errand(&admin(), None, &web, run).await.unwrap_err();
    assert!(errand.to_string().contains("doesn't exist"), "{errand}");
}

#[tokio::test]
async fn an_upload_is_filed_once_though_its_blob_is_gone() {
    let fleet = Fleet::new();
    let service = fleet.service();
    let held = Command::BlobHeld { digest: "b1".into(), size_bytes: 1, nodes: vec![NodeId(1)] };
    // Copies of those who are not members count for nothing.
    let member = Member {
        node: NodeId(1),
        name: "one".into(),
        api_address: "one:1".into(),
        peer_address: "one:2".into(),
        agent_address: "one:3".into(),
        version: "0".into(),
        feature_level: state::command::FEATURE_LEVEL,
    };
    fleet.world().must(Command::MemberPut { member });
    fleet.world().must(held);
    let task = service.upload_release(&admin(), id(), "b1".into(), false, false).await.unwrap();
    fleet.world().must(Command::BlobForget { digest: "b1".into() });
    assert_eq!(service.upload_release(&admin(), id(), "b1".into(), false, false).await, Ok(task));
    let other = service.upload_release(&admin(), None, "b1".into(), false, false).await.unwrap_err();
    assert_eq!(other.to_string(), "blob b1 was never uploaded");
}

#[tokio::test]
async fn disks_are_deleted_once_and_the_second_answer_is_the_first() {
    let fleet = Fleet::new();
    crate::disks::with_orphans(&mut fleet.world());
    let (service, now, cids) = (fleet.service(), Timestamp(START), ["disk-1".to_owned()]);
    let task = service.delete_orphaned_disks(&admin(), id(), &cids, now).await.unwrap();
    let other = fleet.world().queue(deploy(), &[]);
    done(&fleet, other, Action::DeleteOrphanedDisk { disk: "d1".into() });
    assert_eq!(service.delete_orphaned_disks(&admin(), id(), &cids, now).await, Ok(task));
    let other = service.delete_orphaned_disks(&admin(), None, &cids, now).await;
    assert!(matches!(other, Err(ServiceError::Told(_))), "{other:?}");
}
