//! What each step changes besides the journal, and the audit events around it.

mod common;

use common::*;
use expect_test::expect;
use model::instance::NetworkKind;
use model::plan::{Change, Fate};
use model::step::{Action, Left, StepOutcome, VmRole};
use model::task::{OutputKind, TaskError};
use model::*;
use state::command::*;

#[test]
fn a_vm_is_known_before_it_exists_and_its_agent_may_connect() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm(), delete_vm()]));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    let vm = world.state().active_vm(&"i1".into()).unwrap();
    assert_eq!((vm.cid, vm.agent), (None, "a1".into()));
    assert_eq!(world.state().agent(&"a1".into()).unwrap().authorised_at, Timestamp(world.now));
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(1, 0, 1, vm_created("vm-1"))],
    });
    assert_eq!(world.state().vm(&"a1".into()).unwrap().cid, Some("vm-1".into()));
    world.step(task, 1, 1, StepOutcome::Done);
    assert_eq!(world.state().deployment_vms(&"web".into()), []);
    assert_eq!(world.state().agent(&"a1".into()), None);
    let audit = world.audit();
    let vms: Vec<&str> = audit.lines().filter(|line| line.contains(" vm ")).collect();
    expect![[r#"
        [
            "3 create vm -",
            "4 <- 3 create vm vm-1",
            "5 delete vm vm-1",
            "6 <- 5 delete vm vm-1",
        ]
    "#]]
    .assert_debug_eq(&vms);
}

#[test]
fn a_second_attempt_keeps_the_vm_row_and_a_certain_failure_removes_it() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm()]));
    let again = journal(1, 0, 1, StepEvent::Retrying("timeout".into()));
    let records = vec![started(1, 0, 1), again, started(1, 0, 2)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert!(world.state().vm(&"a1".into()).is_some());
    let records = vec![finished(1, 0, 2, failed("quota"))];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(world.state().vm(&"a1".into()), None);
    assert_eq!(world.state().agents(), []);
    expect!["4 <- 3 create vm - error: quota"].assert_eq(world.audit().lines().last().unwrap());
}

#[test]
fn what_may_exist_keeps_its_row_and_a_disk_of_it_becomes_an_orphan() {
    let mut world = World::new();
    let unclear = || StepOutcome::Failed {
        error: TaskError::plain("nobody answers"),
        left: Left::Perhaps,
        result_line: None,
    };
    let mut plan = plan_of(vec![create_vm()]);
    let units = &mut plan.phases[0].stages[0].waves[0].units;
    units.push(unit(2, "disk", vec![create_disk("d1")]));
    units.push(unit(3, "end", vec![Action::OrphanDisk { instance: "i1".into(), disk: "d1".into() }]));
    let task = world.planned(plan);
    world.step(task, 1, 0, unclear());
    world.step(task, 2, 0, unclear());
    let vm = world.state().vm(&"a1".into()).unwrap();
    assert_eq!((vm.cid.clone(), vm.is_current()), (None, false));
    assert_eq!(world.state().disks(&"i1".into()).len(), 1);
    let records = vec![finished(3, 0, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(world.state().disks(&"i1".into()), []);
    assert_eq!(world.state().orphaned_disk(&"d1".into()).unwrap().disk.cid, None);
}

#[test]
fn a_vm_is_the_instances_once_it_was_introduced() {
    let bind = Action::BindVm { instance: "i1".into(), agent: "a1".into() };
    let learned = StepOutcome::Bound { networks: vec![network(Some("10.9.9.9"))] };
    for outcome in [StepOutcome::Done, learned] {
        let mut world = World::new();
        let task = world.planned(plan_of(vec![create_vm(), bind.clone()]));
        world.step(task, 1, 0, vm_created("vm-1"));
        assert!(!world.state().active_vm(&"i1".into()).unwrap().is_current());
        world.step(task, 1, 1, outcome);
        assert!(world.state().active_vm(&"i1".into()).unwrap().is_current());
    }
}

#[test]
fn a_step_that_is_passed_over_changes_nothing_and_is_told() {
    let mut world = World::new();
    let detach = Action::DetachDisk { instance: "i1".into(), agent: "a1".into(), disk: "d1".into() };
    let task = world.planned(plan_of(vec![create_vm(), detach, watch()]));
    world.step(task, 1, 0, vm_created("vm-1"));
    world.step(task, 1, 1, StepOutcome::PassedOver { error: TaskError::plain("the cloud is closed") });
    world.step(task, 1, 2, StepOutcome::Done);
    assert!(world.state().vm(&"a1".into()).is_some());
    assert_eq!(world.state().unit_progress(task, UnitNo(1)).state, state::records::UnitState::Done);
    let events = world.events(task);
    let warning = events.lines().find(|line| line.contains("warning")).unwrap();
    assert!(warning.ends_with(r#""message":"Passed over: the cloud is closed"}"#), "{warning}");
}

#[test]
fn what_an_errand_ran_well_on_is_remembered_and_forgotten() {
    let save = |digest: Option<&str>| Action::SaveErrand {
        errand: "smoke".into(),
        digest: digest.map(str::to_owned),
    };
    let errand = || Action::RunErrand { instance: "i1".into(), agent: "a1".into(), errand: "check".into() };
    for exit_codes in [[0, 0], [0, 3]] {
        let mut world = World::new();
        let mut plan = plan_of(vec![save(Some("before"))]);
        let units = &mut plan.phases[0].stages[0].waves[0].units;
        units.push(unit(2, "begin", vec![save(None)]));
        units.push(unit(3, "run", vec![errand(), errand()]));
        units.push(unit(4, "end", vec![save(Some("after"))]));
        units.push(unit(
            5,
            "gone",
            vec![Action::DeleteInstance { instance: "i1".into() }, Action::DeleteDeployment],
        ));
        let task = world.planned(plan);
        let done = |world: &mut World, unit, index| {
            let records = vec![finished(unit, index, 1, StepOutcome::Done)];
            world.must(Command::StepRecords { task, epoch: EPOCH, records });
        };
        let remembered = |world: &World| world.state().errand(&"web".into(), "smoke");
        done(&mut world, 1, 0);
        assert_eq!(remembered(&world), None, "no run has ended well yet");
        for (index, exit_code) in (0..).zip(exit_codes) {
            world.step(task, 3, index, StepOutcome::ErrandRan { exit_code, result_line: "{}".into() });
        }
        done(&mut world, 4, 0);
        let expected = (exit_codes == [0, 0]).then(|| "after".to_owned());
        assert_eq!(remembered(&world), expected, "{exit_codes:?}");
        done(&mut world, 5, 0);
        done(&mut world, 5, 1);
        assert_eq!(remembered(&world), None);
    }
    let mut world = World::new();
    let task = world.planned(plan_of(vec![errand(), save(Some("x")), save(None)]));
    world.step(task, 1, 0, StepOutcome::ErrandRan { exit_code: 0, result_line: "{}".into() });
    let records = vec![finished(1, 1, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(world.state().errand(&"web".into(), "smoke"), Some("x".into()));
    let records = vec![finished(1, 2, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(world.state().errand(&"web".into(), "smoke"), None);
}

#[test]
fn ids_belong_to_one_instance() {
    let mut world = World::new();
    let mut plan = plan_of(vec![create_vm(), create_disk("d1")]);
    plan.targets.push(target("i2", None, Fate::New));
    let units = &mut plan.phases[0].stages[0].waves[0].units;
    let vm = Action::CreateVm { instance: "i2".into(), agent: "a1".into(), role: VmRole::Current };
    units.push(unit(2, "api/i2 (1)", vec![vm]));
    let disk =
        Action::CreateDisk { instance: "i2".into(), agent: "a2".into(), disk: "d1".into(), name: None };
    units.push(unit(3, "api/i2 (1)", vec![disk]));
    let task = world.planned(plan);
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    let mut begin = |unit| show(&world.records(task, vec![started(unit, 0, 1)]));
    expect!["refused: VM of agent exists already: a1"].assert_eq(&begin(2));
    let created = vec![finished(1, 0, 1, vm_created("vm-1")), started(1, 1, 1)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records: created });
    let mut begin = |unit| show(&world.records(task, vec![started(unit, 0, 1)]));
    expect!["refused: disk exists already: d1"].assert_eq(&begin(3));
}

#[test]
fn nothing_is_made_for_an_instance_that_is_gone() {
    let mut world = World::new();
    let mut plan = plan_of(vec![Action::DeleteInstance { instance: "i1".into() }]);
    let units = &mut plan.phases[0].stages[0].waves[0].units;
    units.push(unit(2, "api/i1 (0)", vec![create_vm()]));
    units.push(unit(3, "api/i1 (0)", vec![create_disk("d1")]));
    let task = world.planned(plan);
    world.step(task, 1, 0, StepOutcome::Done);
    let mut begin = |unit| show(&world.records(task, vec![started(unit, 0, 1)]));
    expect!["refused: no such instance: i1"].assert_eq(&begin(2));
    expect!["refused: no such instance: i1"].assert_eq(&begin(3));
}

#[test]
fn a_replacement_becomes_the_active_vm() {
    let mut world = World::new();
    let second = Action::CreateVm { instance: "i1".into(), agent: "a2".into(), role: VmRole::Current };
    let task = world.planned(plan_of(vec![create_vm(), second]));
    world.step(task, 1, 0, vm_created("vm-1"));
    world.step(task, 1, 1, vm_created("vm-2"));
    assert_eq!(world.state().vms(&"i1".into()).len(), 2);
    assert_eq!(world.state().active_vm(&"i1".into()).unwrap().agent, "a2".into());
}

#[test]
fn learned_addresses_reach_the_vm_and_the_spec() {
    let mut world = World::new();
    let bind = Action::BindVm { instance: "i1".into(), agent: "a1".into() };
    let apply = Action::Apply { instance: "i1".into(), agent: "a1".into() };
    let mut plan = plan_of(vec![create_vm(), bind, apply]);
    plan.targets[0].spec.networks = vec![network(None)];
    let task = world.planned(plan);
    world.step(task, 1, 0, vm_created("vm-1"));
    let mut learned = network(Some("10.9.9.9"));
    learned.kind = NetworkKind::Dynamic;
    world.step(task, 1, 1, StepOutcome::Bound { networks: vec![learned.clone()] });
    let template_hashes: std::collections::BTreeMap<JobName, String> = [("web".into(), "h1".into())].into();
    let outcome =
        StepOutcome::Applied { configuration_hash: "h".into(), template_hashes: template_hashes.clone() };
    world.step(task, 1, 2, outcome);
    let state = world.state();
    assert_eq!(state.vm(&"a1".into()).unwrap().networks, std::slice::from_ref(&learned));
    assert_eq!(state.target(task, &"i1".into()).unwrap().spec.networks, std::slice::from_ref(&learned));
    let spec = state.instance(&"i1".into()).unwrap().spec;
    assert_eq!((spec.networks, spec.configuration_hash), (vec![learned], Some("h".into())));
    assert_eq!(spec.template_hashes, template_hashes);
    assert_eq!(state.addresses(), []);
}

#[test]
fn disks_become_active_when_mounted_or_migrated_and_orphans_when_given_up() {
    let mut world = World::new();
    let migrate =
        Action::MigrateDisk { instance: "i1".into(), agent: "a1".into(), from: "d1".into(), to: "d2".into() };
    let orphan = Action::OrphanDisk { instance: "i1".into(), disk: "d1".into() };
    let destroy = Action::DeleteOrphanedDisk { disk: "d1".into() };
    let actions = vec![
        create_disk("d1"),
        mount_disk("d1"),
        create_disk("d2"),
        mount_disk("d2"),
        migrate,
        orphan,
        destroy,
    ];
    let task = world.planned(plan_of(actions));
    let active = |world: &World| -> Vec<String> {
        let disks = world.state().disks(&"i1".into());
        disks.iter().map(|disk| format!("{} {}", disk.id, disk.active)).collect()
    };
    world.step(task, 1, 0, disk_created("disk-1"));
    assert_eq!(active(&world), ["d1 false"]);
    world.step(task, 1, 1, StepOutcome::Done);
    assert_eq!(active(&world), ["d1 true"]);
    world.step(task, 1, 2, disk_created("disk-2"));
    world.step(task, 1, 3, StepOutcome::Done);
    assert_eq!(active(&world), ["d1 true", "d2 false"]);
    world.step(task, 1, 4, StepOutcome::Done);
    assert_eq!(active(&world), ["d1 false", "d2 true"]);
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(1, 5, 1, StepOutcome::Done)],
    });
    assert_eq!(active(&world), ["d2 true"]);
    let orphan = world.state().orphaned_disk(&"d1".into()).unwrap();
    assert_eq!((orphan.slug.as_str(), orphan.disk.cid), ("api/i1", Some("disk-1".into())));
    world.step(task, 1, 6, StepOutcome::Done);
    assert_eq!(world.state().orphaned_disks(), []);
    let audit = world.audit();
    let disks: Vec<&str> = audit.lines().filter(|line| line.contains(" disk ")).collect();
    expect![[r#"
        [
            "3 create disk -",
            "4 <- 3 create disk disk-1",
            "5 create disk -",
            "6 <- 5 create disk disk-2",
            "7 orphan disk disk-1",
            "8 delete disk disk-1",
            "9 <- 8 delete disk disk-1",
        ]
    "#]]
    .assert_debug_eq(&disks);
}

#[test]
fn a_disk_with_a_name_takes_the_place_of_that_name_when_it_is_attached() {
    let mut world = World::new();
    let attach =
        |disk: &str| Action::AttachDisk { instance: "i1".into(), agent: "a1".into(), disk: disk.into() };
    let mut actions = Vec::new();
    for (disk, name) in [("d1", None), ("d2", Some("data")), ("d3", Some("wal")), ("d4", Some("data"))] {
        actions.extend([create_disk_of(disk, name), attach(disk)]);
    }
    actions.push(mount_disk("d1"));
    let mut plan = plan_of(actions);
    plan.targets[0].spec.named_disks = vec![disk_spec(Some("data")), disk_spec(Some("wal"))];
    let task = world.planned(plan);
    let active = |world: &World| -> Vec<String> {
        let disks = world.state().disks(&"i1".into()).into_iter().filter(|disk| disk.active);
        disks.map(|disk| disk.id.to_string()).collect()
    };
    for at in 0..4 {
        world.step(task, 1, 2 * at, disk_created(&format!("disk-{at}")));
        world.step(task, 1, 2 * at + 1, StepOutcome::Done);
        let now: &[&str] = [&[][..], &["d2"], &["d2", "d3"], &["d3", "d4"]][at as usize];
        assert_eq!(active(&world), now, "after disk {at}");
    }
    world.step(task, 1, 8, StepOutcome::Done);
    assert_eq!(active(&world), ["d1", "d3", "d4"]);
}

#[test]
fn an_instance_gets_no_disk_of_a_name_that_it_is_not_to_have() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_disk_of("d1", Some("data"))]));
    expect!["refused: disk d1 makes no sense here: instance i1 is to have none with the name 'data'"]
        .assert_eq(&show(&world.records(task, vec![started(1, 0, 1)])));
}

#[test]
fn a_disk_that_could_not_be_made_leaves_no_row() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_disk("d1")]));
    world.step(task, 1, 0, failed("quota"));
    assert_eq!(world.state().disks(&"i1".into()), []);
}

#[test]
fn an_instance_that_wants_no_disk_gets_none() {
    let mut world = World::new();
    let mut plan = plan_of(vec![create_disk("d1")]);
    plan.targets[0].spec.persistent_disk = None;
    let task = world.planned(plan);
    expect!["refused: disk d1 makes no sense here: instance i1 is to have none"]
        .assert_eq(&show(&world.records(task, vec![started(1, 0, 1)])));
}

#[test]
fn an_update_is_dirty_until_it_is_complete() {
    let mut world = World::new();
    let begin = Action::BeginUpdate { instance: "i1".into() };
    let complete = Action::CompleteUpdate { instance: "i1".into() };
    let task = world.planned(plan_of(vec![begin.clone(), complete.clone()]));
    let done = |index| vec![finished(1, index, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records: done(0) });
    assert!(!world.state().instance(&"i1".into()).unwrap().update_completed);
    world.must(Command::StepRecords { task, epoch: EPOCH, records: done(1) });
    let instance = world.state().instance(&"i1".into()).unwrap();
    assert_eq!((instance.update_completed, instance.variable_set), (true, VariableSetId(1)));
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });

    let mut update = plan_of(vec![begin, watch()]);
    update.targets[0].fate = Fate::Updated;
    update.targets[0].changes = vec![Change::Stemcell, Change::PersistentDisk];
    let task = world.planned(update);
    world.must(Command::StepRecords { task, epoch: EPOCH, records: done(0) });
    world.step(task, 1, 1, failed("not running"));
    assert!(!world.state().instance(&"i1".into()).unwrap().update_completed);
    let audit = world.audit();
    let instances: Vec<&str> = audit.lines().filter(|line| line.contains(" instance ")).collect();
    expect![[r#"
        [
            "3 create instance api/i1 {\"az\":\"z1\"}",
            "4 <- 3 create instance api/i1",
            "9 update instance api/i1 {\"az\":\"z1\",\"changes\":[\"stemcell\",\"persistent_disk\"]}",
            "10 <- 9 update instance api/i1 error: not running",
        ]
    "#]]
    .assert_debug_eq(&instances);
}

#[test]
fn saving_an_instance_keeps_what_was_rendered() {
    let mut world = World::new();
    let apply = Action::Apply { instance: "i1".into(), agent: "a1".into() };
    let save = Action::SaveInstance { instance: "i1".into() };
    let task = world.planned(plan_of(vec![apply, save]));
    let outcome =
        StepOutcome::Applied { configuration_hash: "h".into(), template_hashes: Default::default() };
    world.step(task, 1, 0, outcome);
    world.step(task, 1, 1, StepOutcome::Done);
    assert_eq!(world.state().instance(&"i1".into()).unwrap().spec.configuration_hash, Some("h".into()));
}

#[test]
fn addresses_are_freed_when_no_longer_wanted() {
    let mut world = World::new();
    let mut plan = plan_of(vec![Action::ReleaseAddresses { instance: "i1".into() }]);
    plan.reservations = vec![reservation("i1", "10.0.0.5"), reservation("i1", "10.0.0.6")];
    let task = world.planned(plan);
    world.step(task, 1, 0, StepOutcome::Done);
    let held: Vec<String> =
        world.state().instance_addresses(&"i1".into()).iter().map(|a| a.ip.to_string()).collect();
    assert_eq!(held, ["10.0.0.5"]);
    assert_eq!(world.state().address("10.0.0.6".parse().unwrap()), None);
}

#[test]
fn the_deployment_and_its_variable_set_are_saved_together() {
    let mut world = World::new();
    let task = world.deploying();
    world.must(Command::VariableSetOpen { task, epoch: EPOCH, deployment: "web".into() });
    world.must(commit(task, plan_of(vec![Action::SaveDeployment])));
    world.step(task, 1, 0, StepOutcome::Done);
    let state = world.state();
    assert_eq!(state.deployment(&"web".into()).unwrap().record, Some(record(1)));
    assert!(state.deployed_variable_set(&"web".into()).unwrap().deployed);
}

#[test]
fn results_compiled_packages_and_leaks_are_kept() {
    let mut world = World::new();
    let compile = |dependencies| Action::CompilePackage {
        worker: "i1".into(),
        agent: "a1".into(),
        package: package_key("p", "1", dependencies),
        compiled_elsewhere: Vec::new(),
    };
    let errand = Action::RunErrand { instance: "i1".into(), agent: "a1".into(), errand: "smoke".into() };
    let task = world.planned(plan_of(vec![compile("a"), compile("b"), compile("a"), errand, delete_vm()]));
    let built =
        |blob: &str| StepOutcome::Compiled { blob: blob.into(), digest: "sha1".into(), size_bytes: 1 };
    world.step(task, 1, 0, built("b1"));
    world.step(task, 1, 1, built("b2"));
    world.step(task, 1, 2, built("b3"));
    world.step(task, 1, 3, StepOutcome::ErrandRan { exit_code: 0, result_line: "{\"exit_code\":0}".into() });
    world.step(task, 1, 4, StepOutcome::MayHaveLeaked { what: "VM of agent a1".into() });
    let state = world.state();
    let packages: Vec<_> =
        state.compiled_packages().iter().map(|row| format!("{} {}", row.blob, row.build)).collect();
    assert_eq!(packages, ["b1 1", "b2 2"]);
    assert_eq!(state.output(task, OutputKind::Result, 0, 99), b"{\"exit_code\":0}\n");
    assert_eq!(state.leaks()[0].what, "VM of agent a1");
    let events = world.events(task);
    let warning = events.lines().find(|line| line.contains("warning")).unwrap();
    expect![[r#"{"time":1700000010,"type":"warning","message":"Something may have been left behind: VM of agent a1"}"#]]
        .assert_eq(warning);
}
