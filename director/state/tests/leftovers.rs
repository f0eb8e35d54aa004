//! What outlives the instance that had it: VMs and disks that wait for their deletion.

mod common;

use common::*;
use expect_test::expect;
use model::instance::DiskSpec;
use model::plan::Fate;
use model::step::{Action, Left, StepOutcome};
use model::task::TaskError;
use state::command::*;

#[test]
fn a_vm_whose_deletion_is_passed_over_is_an_orphan() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm(), delete_vm()]));
    world.step(task, 1, 0, vm_created("vm-1"));
    world.step(task, 1, 1, StepOutcome::PassedOver { error: TaskError::plain("the cloud is closed") });
    assert_eq!((world.state().vm(&"a1".into()), world.state().agent(&"a1".into())), (None, None));
    let orphan = world.state().orphaned_vm(&"a1".into()).unwrap();
    assert_eq!(orphan.vm.cid, Some("vm-1".into()));
}

#[test]
fn a_stemcell_is_in_use_until_the_last_vm_of_it_is_deleted() {
    let mut world = World::new();
    let orphan = Action::OrphanVm { instance: "i1".into(), agent: "a1".into() };
    let gone = Action::DeleteInstance { instance: "i1".into() };
    let mut plan = plan_of(vec![create_vm(), orphan, gone]);
    plan.record = None;
    let task = world.planned(plan);
    world.step(task, 1, 0, vm_created("vm-1"));
    for index in [1, 2] {
        let records = vec![finished(1, index, 1, StepOutcome::Done)];
        world.must(Command::StepRecords { task, epoch: EPOCH, records });
    }
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    let stemcell = stemcell("1");
    let users = |world: &World| world.state().users_of_stemcell(&stemcell.name, &stemcell.version);
    assert_eq!(users(&world), ["web".into()].into());
    assert_eq!(world.state().artifacts_in_use().stemcells.len(), 1);
    let task = world.planned(plan_of(vec![Action::DeleteOrphanedVm { agent: "a1".into() }]));
    world.step(task, 1, 0, StepOutcome::Done);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    assert_eq!(world.state().orphaned_vms(), []);
}

#[test]
fn a_vm_that_is_left_to_be_deleted_later_keeps_its_addresses_from_others() {
    let mut world = World::new();
    let orphan = Action::OrphanVm { instance: "i1".into(), agent: "a1".into() };
    let gone = Action::DeleteInstance { instance: "i1".into() };
    let mut plan = plan_of(vec![create_vm(), orphan, gone]);
    plan.targets = vec![target("i1", Some("10.0.0.1"), Fate::New)];
    plan.reservations = vec![reservation("i1", "10.0.0.1"), reservation("i1", "10.0.0.2")];
    let task = world.planned(plan);
    world.step(task, 1, 0, vm_created("vm-1"));
    let records = |index| vec![finished(1, index, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records: records(1) });
    world.must(Command::StepRecords { task, epoch: EPOCH, records: records(2) });
    assert_eq!(world.state().instance(&"i1".into()), None);
    assert_eq!((world.state().vm(&"a1".into()), world.state().agent(&"a1".into())), (None, None));
    let left = world.state().orphaned_vm(&"a1".into()).unwrap();
    assert_eq!((left.slug.as_str(), left.vm.cid), ("api/i1", Some("vm-1".into())));
    let held: Vec<_> = world.state().addresses().into_iter().map(|a| (a.ip.to_string(), a.orphan)).collect();
    assert_eq!(held, [("10.0.0.1".to_owned(), Some("a1".into()))], "the other one was the instance's alone");

    // Neither somebody else nor an instance of the same id gets it.
    let end = |task| Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) };
    world.must(end(task));
    for id in ["i1", "i2"] {
        let other = world.deploying();
        let mut plan = plan_of(Vec::new());
        plan.targets = vec![target(id, Some("10.0.0.1"), Fate::New)];
        plan.reservations = vec![reservation(id, "10.0.0.1")];
        plan.generation = world.state().deployment(&"web".into()).unwrap().generation;
        let refused = show(&world.ask(commit(other, plan)));
        assert!(refused.contains("10.0.0.1") && refused.contains("api/i1"), "{refused}");
        world.must(end(other));
    }
    let task = world.planned(plan_of(vec![Action::DeleteOrphanedVm { agent: "a1".into() }]));
    world.step(task, 1, 0, StepOutcome::Done);
    assert_eq!(world.state().orphaned_vms(), []);
    assert_eq!(world.state().addresses(), []);
    let audit = world.audit();
    let vms: Vec<&str> = audit.lines().filter(|line| line.contains(" vm ")).collect();
    expect![[r#"
        [
            "3 create vm -",
            "4 <- 3 create vm vm-1",
            "5 orphan vm vm-1",
            "19 delete vm vm-1",
            "20 <- 19 delete vm vm-1",
        ]
    "#]]
    .assert_debug_eq(&vms);
}

#[test]
fn what_may_be_a_vm_is_left_to_be_deleted_later_too() {
    let mut world = World::new();
    let mut plan = plan_of(vec![create_vm()]);
    let orphan = Action::OrphanVm { instance: "i1".into(), agent: "a1".into() };
    let units = &mut plan.phases[0].stages[0].waves[0].units;
    units.push(unit(2, "end", vec![orphan]));
    plan.targets = vec![target("i1", Some("10.0.0.1"), Fate::New)];
    plan.reservations = vec![reservation("i1", "10.0.0.1")];
    let task = world.planned(plan);
    let error = TaskError::plain("nobody answers");
    world.step(task, 1, 0, StepOutcome::Failed { error, left: Left::Perhaps, result_line: None });
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(2, 0, 1, StepOutcome::Done)],
    });
    assert_eq!(world.state().orphaned_vm(&"a1".into()).unwrap().vm.cid, None);
    assert_eq!(world.state().addresses()[0].orphan, Some("a1".into()));
}

#[test]
fn a_deleted_instance_leaves_orphans_and_nothing_else() {
    let mut world = World::new();
    let delete = Action::DeleteInstance { instance: "i1".into() };
    let mut plan = plan_of(vec![create_vm(), create_disk("d1"), delete_vm(), delete.clone()]);
    plan.phases[0].stages[0].waves[0].units.push(unit(2, "early", vec![delete]));
    plan.phases[0].stages[0].waves[0].units.push(unit(3, "end", vec![Action::DeleteDeployment]));
    plan.reservations = vec![reservation("i1", "10.0.0.5")];
    let task = world.planned(plan);
    world.step(task, 1, 0, vm_created("vm-1"));
    world.step(task, 1, 1, disk_created("disk-1"));
    let early = world.records(task, vec![finished(2, 0, 1, StepOutcome::Done)]);
    expect!["refused: instance api/i1 is in use by VM of agent a1"].assert_eq(&show(&early));
    let early = world.records(task, vec![finished(3, 0, 1, StepOutcome::Done)]);
    expect!["refused: deployment web is in use by instance i1"].assert_eq(&show(&early));
    world.step(task, 1, 2, StepOutcome::Done);
    world.step(task, 1, 3, StepOutcome::Done);
    let state = world.state();
    assert_eq!(state.instances(&"web".into()), []);
    assert_eq!((state.addresses(), state.disks(&"i1".into())), (Vec::new(), Vec::new()));
    assert_eq!(state.orphaned_disk(&"d1".into()).unwrap().slug, "api/i1");
    world.step(task, 3, 0, StepOutcome::Done);
    assert_eq!(world.state().deployments(), []);
}

#[test]
fn an_orphaned_disk_becomes_an_instances_again_once() {
    let mut world = World::new();
    let orphan = Action::OrphanDisk { instance: "i1".into(), disk: "d1".into() };
    let adopt = |cid: &str, foreign: Option<DiskSpec>| Action::AdoptDisk {
        instance: "i1".into(),
        disk: if foreign.is_some() { "d2".into() } else { "d1".into() },
        cid: cid.into(),
        foreign,
        at_once: true,
    };
    let spec = DiskSpec { size_mib: 1, disk_type: None, cloud_properties: serde_json::json!({}), name: None };
    let actions = vec![
        create_disk("d1"),
        orphan,
        adopt("disk-1", None),
        adopt("strange", Some(spec.clone())),
        adopt("disk-1", Some(spec)),
    ];
    let task = world.planned(plan_of(actions));
    world.step(task, 1, 0, disk_created("disk-1"));
    world.step(task, 1, 1, StepOutcome::Done);
    assert_eq!(world.state().orphaned_disks().len(), 1);
    world.step(task, 1, 2, StepOutcome::Done);
    assert_eq!(world.state().orphaned_disks(), []);
    let disk = world.state().disk(&"d1".into()).unwrap();
    assert!(disk.active && disk.spec.size_mib > 1, "as it was made: {disk:?}");
    // One that nobody here has made is not the active one beside it.
    let records = vec![finished(1, 3, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    let strange = world.state().disk_by_cid(&"strange".into()).unwrap();
    assert!(!strange.active && strange.id.as_str() == "d2", "{strange:?}");
    // The same disk twice would be two disks that are one.
    let records = vec![finished(1, 4, 1, StepOutcome::Done)];
    let twice = world.apply(None, Command::StepRecords { task, epoch: EPOCH, records }).outcome;
    assert!(show(&twice).contains("disk disk-1 is in use by instance i1"), "{}", show(&twice));
}
