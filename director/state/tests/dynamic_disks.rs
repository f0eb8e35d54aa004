//! Dynamic disks: filed before a cloud is asked, attached only to VMs that stay, and gone before their deployment.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use common::*;
use model::step::{Action, StepOutcome};
use model::task::{TaskError, TaskKind};
use model::*;
use state::command::*;
use state::records::{DynamicDeed, Sought};

fn id() -> DiskId {
    "id-data".into()
}

/// A deployment whose instance works with VM `a1`, and a task that works on a disk.
fn world() -> (World, TaskId) {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm(), Action::SaveDeployment]));
    world.step(task, 1, 0, vm_created("vm-1"));
    world.step(task, 1, 1, StepOutcome::Done);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    let task = disk_task(&mut world);
    (world, task)
}

fn disk_task(world: &mut World) -> TaskId {
    let name = DynamicDiskName::new("data");
    let task = world.queue(TaskKind::DetachDynamicDisk { name }, &[]);
    world.must(Command::TaskTake { task, epoch: EPOCH });
    task
}

/// And the disk is there.
fn made() -> (World, TaskId) {
    let (mut world, task) = world();
    world.must(dynamic_deed(task, dynamic_make("a1")));
    world.must(dynamic_deed(task, DynamicDeed::Made { id: id(), cid: "disk-9".into() }));
    (world, task)
}

/// And attached.
fn attached() -> (World, TaskId) {
    let (mut world, task) = made();
    world.must(dynamic_deed(task, attach()));
    world.must(dynamic_deed(task, is_attached()));
    (world, task)
}

fn attach() -> DynamicDeed {
    DynamicDeed::Attach { agent: "a1".into() }
}

fn is_attached() -> DynamicDeed {
    DynamicDeed::Attached { agent: "a1".into(), hint: "/dev/sdc".into() }
}

fn detached() -> DynamicDeed {
    DynamicDeed::Detached { agent: "a1".into() }
}

/// `name cid of deployment on agent at hint`.
fn shown(world: &World) -> Vec<String> {
    let on = |agent: &str| world.state().dynamic_disks_on(&agent.into()).len();
    let all = world.state().dynamic_disks().into_iter();
    all.map(|disk| {
        let cid = disk.cid.as_ref().map_or("?", |cid| cid.as_str());
        let at = disk.attached.as_ref().map(|at| {
            assert_eq!(on(at.agent.as_str()), 1, "the index knows it");
            format!(" on {} at {}", at.agent, at.hint.as_ref().map_or("?", |hint| hint.as_str().unwrap()))
        });
        assert!(at.is_some() || on("a1") == 0, "the index knows no other");
        format!("{} {cid} of {}{}", disk.name, disk.deployment, at.unwrap_or_default())
    })
    .collect()
}

fn events(world: &World) -> Vec<String> {
    let all = world.audit();
    let of_disks = all.lines().filter(|line| line.contains("dynamic_disk"));
    of_disks.map(|line| line.split(' ').skip(1).take(3).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_disk_is_filed_made_attached_detached_and_deleted_whatever_is_said_twice() {
    let (mut world, task) = world();
    for (deed, wanted) in [
        (dynamic_make("a1"), "data ? of web"),
        (DynamicDeed::Made { id: id(), cid: "disk-9".into() }, "data disk-9 of web"),
        (attach(), "data disk-9 of web on a1 at ?"),
        (is_attached(), "data disk-9 of web on a1 at /dev/sdc"),
        (attach(), "data disk-9 of web on a1 at /dev/sdc"),
        (detached(), "data disk-9 of web"),
    ] {
        for _ in 0..2 {
            world.must(dynamic_deed(task, deed.clone()));
            assert_eq!(shown(&world), [wanted], "{deed:?}");
        }
    }
    for _ in 0..2 {
        world.must(dynamic_deed(task, DynamicDeed::Gone { id: id() }));
        assert_eq!(shown(&world), Vec::<String>::new());
    }
    let wanted = ["create disk disk-9", "attach disk disk-9", "detach disk disk-9", "delete disk disk-9"];
    assert_eq!(events(&world), wanted);
}

#[test]
fn what_was_never_made_leaves_no_event() {
    let (mut world, task) = world();
    world.must(dynamic_deed(task, dynamic_make("a1")));
    world.must(dynamic_deed(task, DynamicDeed::Gone { id: "another".into() }));
    assert_eq!(shown(&world), ["data ? of web"], "another one of its name");
    world.must(dynamic_deed(task, DynamicDeed::Gone { id: id() }));
    assert_eq!((shown(&world).len(), events(&world).len()), (0, 0));
}

#[test]
fn a_name_is_given_once_and_only_beside_a_vm_of_the_deployment() {
    let (mut world, task) = world();
    assert_eq!(world.say(dynamic_deed(task, dynamic_make("a2"))), "refused: no such VM of agent: a2");
    let mut foreign = dynamic_disk();
    foreign.deployment = "other".into();
    let foreign = DynamicDeed::Make { disk: Box::new(foreign), beside: "a1".into() };
    let said = world.say(dynamic_deed(task, foreign));
    assert!(said.contains("no instance of deployment other works with VM a1"), "{said}");
    world.must(dynamic_deed(task, dynamic_make("a1")));
    let second = disk_task(&mut world);
    let said = world.say(dynamic_deed(second, dynamic_make("a1")));
    assert_eq!(said, "refused: dynamic disk exists already: data");
    let said = world.say(dynamic_deed(task, DynamicDeed::Made { id: "another".into(), cid: "d".into() }));
    assert_eq!(said, "refused: no such dynamic disk: another");
}

#[test]
fn only_an_open_task_of_the_current_epoch_does_anything() {
    let (mut world, task) = made();
    let late = Command::DynamicDisk { task, epoch: Epoch(0), name: "data".into(), deed: attach() };
    assert!(world.say(late).contains("epoch 0 is over"));
    assert!(
        world
            .say(Command::VmLeaves { task, epoch: Epoch(0), agent: "a1".into() })
            .contains("epoch 0 is over")
    );
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    assert!(world.say(dynamic_deed(task, attach())).contains("is done"));
}

#[test]
fn a_disk_is_attached_to_one_vm_that_somebody_works_with() {
    let (mut world, task) = world();
    assert_eq!(world.say(dynamic_deed(task, attach())), "refused: no such dynamic disk: data");
    world.must(dynamic_deed(task, dynamic_make("a1")));
    assert!(world.say(dynamic_deed(task, attach())).contains("it has not been made"));
    assert!(world.say(dynamic_deed(task, is_attached())).contains("VM a1 has lost it meanwhile"));
    world.must(dynamic_deed(task, DynamicDeed::Made { id: id(), cid: "disk-9".into() }));
    let other = || DynamicDeed::Attach { agent: "a2".into() };
    assert_eq!(world.say(dynamic_deed(task, other())), "refused: no such VM of agent: a2");
    world.must(dynamic_deed(task, attach()));
    assert_eq!(world.say(dynamic_deed(task, other())), "refused: dynamic disk data is in use by instance i1");
    world.must(dynamic_deed(task, DynamicDeed::Detached { agent: "a2".into() }));
    assert_eq!(shown(&world), ["data disk-9 of web on a1 at ?"], "that VM does not have it");
}

/// A deploy that is about to delete the VM.
fn deleting(world: &mut World) -> TaskId {
    let mut plan = plan_of(vec![Action::DeleteVm { instance: "i1".into(), agent: "a1".into() }]);
    plan.reservations.clear();
    let task = world.planned(plan);
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    task
}

#[test]
fn nothing_is_attached_to_a_vm_that_is_about_to_go() {
    let (mut world, task) = made();
    let deploy = deleting(&mut world);
    let refused = format!("refused: VM of agent a1 is in use by task {deploy}");
    assert_eq!(world.say(dynamic_deed(task, attach())), refused);
    // It stays after all.
    let failed = StepOutcome::failed(TaskError::plain("no"));
    world.must(Command::StepRecords { task: deploy, epoch: EPOCH, records: vec![finished(1, 0, 1, failed)] });
    world.must(Command::TaskFinish {
        task: deploy,
        epoch: EPOCH,
        end: TaskEnd::Error(TaskError::plain("no")),
    });
    world.must(dynamic_deed(task, attach()));

    // What was begun before is ended, and what is there is there.
    let swap = world.deploying();
    world.must(Command::VmLeaves { task: swap, epoch: EPOCH, agent: "a1".into() });
    assert!(
        world.say(dynamic_deed(task, attach())).contains("in use by task"),
        "nobody knows whether it is there"
    );
    world.must(dynamic_deed(task, is_attached()));
    world.must(dynamic_deed(task, attach()));
    assert_eq!(shown(&world), ["data disk-9 of web on a1 at /dev/sdc"]);
}

#[test]
fn a_vm_that_is_gone_has_no_disks() {
    let (mut world, task) = attached();
    let deploy = deleting(&mut world);
    world.must(Command::StepRecords {
        task: deploy,
        epoch: EPOCH,
        records: vec![finished(1, 0, 1, StepOutcome::Done)],
    });
    assert_eq!(shown(&world), ["data disk-9 of web"]);
    assert!(world.say(dynamic_deed(task, is_attached())).contains("VM a1 has lost it meanwhile"));
    assert_eq!(world.state().leaving(&"a1".into()), None);
    world.must(Command::VmLeaves { task: deploy, epoch: EPOCH, agent: "a1".into() });
    assert_eq!(world.state().leaving(&"a1".into()), None, "there is no such VM");
}

#[test]
fn a_deployment_is_not_deleted_before_its_disks() {
    let (mut world, task) = made();
    let steps = [
        Action::DeleteVm { instance: "i1".into(), agent: "a1".into() },
        Action::DeleteInstance { instance: "i1".into() },
        Action::DeleteDeployment,
    ];
    let mut plan = plan_of(steps.to_vec());
    plan.reservations.clear();
    let deletion = world.planned(plan);
    world.step(deletion, 1, 0, StepOutcome::Done);
    world.step(deletion, 1, 1, StepOutcome::Done);
    let last = || Command::StepRecords {
        task: deletion,
        epoch: EPOCH,
        records: vec![finished(1, 2, 1, StepOutcome::Done)],
    };
    assert_eq!(world.say(last()), "refused: deployment web is in use by dynamic disk data");
    world.must(dynamic_deed(task, DynamicDeed::Gone { id: id() }));
    assert_eq!(world.say(dynamic_deed(task, dynamic_make("a1"))), "refused: no such VM of agent: a1");
    world.must(last());
}

#[test]
fn a_disk_that_can_not_be_deleted_becomes_an_orphan() {
    let (mut world, task) = attached();
    for _ in 0..2 {
        world.must(dynamic_deed(task, DynamicDeed::Orphaned { id: id() }));
        assert_eq!(shown(&world), Vec::<String>::new());
    }
    let orphans = world.state().orphaned_disks();
    let told = orphans.iter().map(|orphan| (orphan.disk.cid.clone().unwrap(), orphan.slug.clone()));
    assert_eq!(told.collect::<Vec<_>>(), [("disk-9".into(), "data".to_owned())]);
    assert_eq!(events(&world).last().unwrap(), "orphan disk disk-9");
}

#[test]
fn what_comes_late_is_an_orphan_unless_it_is_the_disk_s() {
    let sought = || Sought::Disk(id());
    let looked = |found: &[&str]| Command::LatecomerLooked {
        epoch: EPOCH,
        sought: sought(),
        found: found.iter().map(|cid| (*cid).to_owned()).collect(),
        left_ms: (1000, 500),
    };
    let late = |task| Command::LatecomerPut { task, epoch: EPOCH, sought: sought(), look_for_ms: 1000 };
    let orphans = |world: &World| {
        let all = world.state().orphaned_disks();
        all.into_iter().map(|orphan| orphan.disk.cid.unwrap().to_string()).collect::<Vec<_>>()
    };
    let (mut world, task) = made();
    world.must(late(task));
    world.must(looked(&["disk-9", "disk-10"]));
    assert_eq!(orphans(&world), ["disk-10"]);

    let (mut world, task) = self::world();
    world.must(dynamic_deed(task, dynamic_make("a1")));
    world.must(late(task));
    world.must(looked(&["disk-9"]));
    assert_eq!(orphans(&world), Vec::<String>::new(), "it may be the one whose making is under way");
    world.must(dynamic_deed(task, DynamicDeed::Gone { id: id() }));
    let again = Command::LatecomerLooked {
        epoch: EPOCH,
        sought: sought(),
        found: vec!["disk-9".into()],
        left_ms: (500, 0),
    };
    world.must(again);
    assert_eq!(orphans(&world), ["disk-9"]);
}

#[test]
fn what_was_told_of_a_disk_is_kept() {
    let (mut world, task) = made();
    let metadata: model::dynamic_disk::DiskMetadata = [("owner".to_owned(), 7.into())].into();
    world.must(dynamic_deed(task, DynamicDeed::Told { metadata: metadata.clone() }));
    assert_eq!(world.state().dynamic_disk(&"data".into()).unwrap().metadata, metadata);
}
