//! Hotswap: VMs that are made ahead, and what becomes of those that stood ready when a deploy was broken off.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::plan::Plan;
use model::task::{DeployOptions, TaskError};
use model::{AgentId, ErrorCode, InstanceId};
use scheduler::input::AgentObservation;
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, is_empty, manifest, steps};
use crate::perform::{Faults, perform};

const UPDATING: Option<&str> = Some("Updating instance");
const MISSING: Option<&str> = Some("Creating missing vms");

/// Two instances whose VMs are swapped, with a disk each.
fn swapped() -> Value {
    let mut group = group(2);
    group["persistent_disk"] = json!(1);
    let mut manifest = manifest(&[group]);
    manifest["update"]["vm_strategy"] = json!("create-swap-delete");
    manifest
}

fn with(pointer: &str, key: &str, value: Value) -> Value {
    let mut changed = swapped();
    changed.pointer_mut(pointer).unwrap()[key] = value;
    changed
}

fn recreate() -> DeployOptions {
    DeployOptions { recreate: true, ..DeployOptions::default() }
}

/// Plans a deploy and carries it out as far as the faults let it.
fn run(
    director: &mut Director,
    manifest: &Value,
    options: &DeployOptions,
    faults: &Faults,
) -> (Plan, Option<TaskError>) {
    let view = director.view();
    let plan = director.plan_with(&view, manifest, options).unwrap();
    let performed = perform(&mut director.world, &plan, faults);
    (plan, performed.error)
}

/// A director with two instances, of which the first has failed in the middle of a deploy that gives both new VMs: it has
/// got its own, and that of the other one stands ready.
fn broken_off() -> Director {
    let mut director = Director::new(&cloud_config());
    director.deploy(&swapped());
    let first = director.instances()[0].spec.id.clone();
    let faults = Faults { failing: vec![first], ..Faults::default() };
    let (_, error) = run(&mut director, &swapped(), &recreate(), &faults);
    assert_eq!(error.unwrap().code, ErrorCode::AgentJobNotRunning.number());
    assert_eq!(director.seats(), ["0 z1 10.1.0.3", "1 z2 10.2.0.2"]);
    assert_eq!(addresses(&director, false), ["10.2.0.3"]);
    director
}

/// Returns the addresses of VMs: those that instances work with, or those that stand ready.
fn addresses(director: &Director, active: bool) -> Vec<String> {
    let vms = director.world.vms.iter().filter(|vm| vm.active == active);
    let mut found: Vec<IpAddr> = vms.flat_map(|vm| &vm.networks).filter_map(|network| network.ip).collect();
    found.sort();
    found.iter().map(IpAddr::to_string).collect()
}

fn orphans(director: &Director) -> Vec<String> {
    let vms = director.world.orphaned_vms.iter();
    vms.flat_map(|vm| &vm.networks).filter_map(|network| network.ip).map(|ip| ip.to_string()).collect()
}

fn ready(director: &Director) -> AgentId {
    director.world.vms.iter().find(|vm| !vm.active).unwrap().agent.clone()
}

fn second(director: &Director) -> InstanceId {
    director.instances()[1].spec.id.clone()
}

#[test]
fn the_new_vm_is_made_before_the_old_one_is_touched() {
    let mut director = Director::new(&cloud_config());
    director.deploy(&swapped());
    let (plan, error) = run(&mut director, &swapped(), &recreate(), &Faults::default());
    assert_eq!(error, None);
    let made = "create_vm set_vm_metadata await_agent update_settings bind_vm";
    assert_eq!(steps(&plan, MISSING), [made, made]);
    assert_eq!(steps(&plan, Some("Downloading packages")), ["prepare", "prepare"]);
    let turn = "begin_update run_script drain stop run_script check_disks unmount_disk detach_disk elect_vm \
                attach_disk set_disk_metadata mount_disk update_settings check_disks release_addresses apply \
                save_instance run_script start watch run_script complete_update";
    assert_eq!(steps(&plan, UPDATING), [turn, turn]);
    assert_eq!(director.seats(), ["0 z1 10.1.0.3", "1 z2 10.2.0.3"]);
    assert_eq!(orphans(&director), ["10.1.0.2", "10.2.0.2"]);
}

#[test]
fn groups_with_named_addresses_are_updated_as_any_other() {
    let named = json!([{"name": "a", "static_ips": ["10.1.0.100", "10.2.0.100"]}]);
    let mut cloud = cloud_config();
    cloud["networks"].as_array_mut().unwrap().push(json!({"name": "float", "type": "vip"}));
    let vips = json!([
        {"name": "a", "default": ["dns", "gateway"]},
        {"name": "float", "static_ips": ["1.1.1.1", "1.1.1.2"]},
    ]);
    for networks in [named, vips] {
        let mut director = Director::new(&cloud);
        let manifest = with("/instance_groups/0", "networks", networks);
        director.deploy(&manifest);
        let (plan, error) = run(&mut director, &manifest, &recreate(), &Faults::default());
        assert_eq!(error, None);
        assert_eq!(steps(&plan, MISSING), Vec::<String>::new());
        assert!(steps(&plan, UPDATING).iter().all(|turn| turn.contains("delete_vm create_vm")));
        assert_eq!(orphans(&director), Vec::<String>::new());
    }
}

#[test]
fn a_group_may_say_otherwise_than_its_deployment() {
    let mut director = Director::new(&cloud_config());
    let manifest = with("/instance_groups/0", "update", json!({"vm_strategy": "delete-create"}));
    director.deploy(&manifest);
    let (plan, _) = run(&mut director, &manifest, &recreate(), &Faults::default());
    assert_eq!(steps(&plan, MISSING), Vec::<String>::new());
}

#[test]
fn a_vm_that_stands_ready_is_used_by_the_next_deploy() {
    for options in [DeployOptions::default(), recreate()] {
        let mut director = broken_off();
        let spare = ready(&director);
        let (plan, error) = run(&mut director, &swapped(), &options, &Faults::default());
        assert_eq!(error, None);
        // The first one has its new VM; it gets another one only if that is asked for again.
        assert_eq!(steps(&plan, MISSING).len(), usize::from(options.recreate));
        assert_eq!(steps(&plan, None).iter().filter(|steps| steps.contains("orphan_vm")).count(), 0);
        let current = director.world.vms.iter().find(|vm| vm.instance == second(&director)).unwrap();
        assert_eq!((&current.agent, current.active), (&spare, true));
        assert_eq!(addresses(&director, false), Vec::<String>::new());
        assert!(director.seats().contains(&"1 z2 10.2.0.3".to_owned()));
    }
}

#[test]
fn a_vm_that_stands_ready_and_is_not_what_is_wanted_any_more_becomes_an_orphan() {
    let env = with("/instance_groups/0", "env", json!({"a": 1}));
    let usual = with("/update", "vm_strategy", json!("delete-create"));
    for (manifest, address) in [(env, "10.2.0.4"), (usual, "10.2.0.2")] {
        let mut director = broken_off();
        let (plan, error) = run(&mut director, &manifest, &DeployOptions::default(), &Faults::default());
        assert_eq!(error, None);
        assert_eq!(steps(&plan, None)[0], "orphan_vm");
        assert!(orphans(&director).contains(&"10.2.0.3".to_owned()));
        assert_eq!(director.seats()[1], format!("1 z2 {address}"));
        assert_eq!(addresses(&director, false), Vec::<String>::new());
    }
}

#[test]
fn a_vm_that_does_not_answer_takes_nobodys_place() {
    let mut director = broken_off();
    director.world.silent_spares.insert(ready(&director));
    let (plan, error) = run(&mut director, &swapped(), &recreate(), &Faults::default());
    assert_eq!(error, None);
    assert_eq!(steps(&plan, None)[0], "orphan_vm");
    assert_eq!(director.seats()[1], "1 z2 10.2.0.4");
}

#[test]
fn an_instance_that_goes_or_rests_takes_the_vm_that_stands_ready_along() {
    let mut director = broken_off();
    director.deploy(&with("/instance_groups/0", "instances", json!(1)));
    assert_eq!(director.world.vms.len(), 1);

    let mut director = broken_off();
    let mut resting = swapped();
    let id = second(&director);
    resting["instance_groups"][0]["instances"] = json!(2);
    resting["instance_groups"][0]["state"] = json!("detached");
    director.deploy(&resting);
    assert_eq!(director.world.vms, []);
    assert!(orphans(&director).contains(&"10.2.0.3".to_owned()), "{id}");
}

#[test]
fn an_ignored_instance_keeps_what_it_has() {
    let mut director = broken_off();
    director.ignore(1);
    director.deploy(&swapped());
    assert_eq!(addresses(&director, false), ["10.2.0.3"]);
}

#[test]
fn deploys_that_fail_over_and_over_take_no_more_addresses() {
    let mut director = Director::new(&cloud_config());
    director.deploy(&swapped());
    let held = |director: &Director| {
        director.world.addresses.iter().map(|held| held.ip).collect::<BTreeSet<_>>().len()
    };
    let before = held(&director);
    for _ in 0..3 {
        let faults = Faults { no_room: vec!["g".into()], ..Faults::default() };
        let (_, error) = run(&mut director, &swapped(), &recreate(), &faults);
        assert!(error.unwrap().message.contains("no room"));
        assert_eq!(held(&director), before + 2);
    }
    let (_, error) = run(&mut director, &swapped(), &recreate(), &Faults::default());
    assert_eq!(error, None);
    assert_eq!(director.seats(), ["0 z1 10.1.0.3", "1 z2 10.2.0.3"]);
    // The old VMs have theirs until they are deleted.
    assert_eq!(held(&director), before + 2);
}

#[test]
fn addresses_that_were_meant_for_a_vm_are_given_back_when_nobody_needs_one() {
    let mut director = Director::new(&cloud_config());
    director.deploy(&swapped());
    let before = director.world.addresses.len();
    let faults = Faults { no_room: vec!["g".into()], ..Faults::default() };
    run(&mut director, &swapped(), &recreate(), &faults).1.unwrap();
    assert_eq!(director.world.addresses.len(), before + 2);
    let plan = director.deploy(&swapped());
    assert_eq!(steps(&plan, None), ["release_addresses", "release_addresses", "save_deployment"]);
    assert_eq!(director.world.addresses.len(), before);
    assert!(is_empty(&director.deploy(&swapped())));
}

#[test]
fn a_dead_vm_is_deleted_when_its_successor_stands_ready() {
    let mut director = Director::new(&cloud_config());
    director.deploy(&swapped());
    let mut view = director.view();
    let error = TaskError::new(ErrorCode::RpcTimeout, "silent");
    view.agents.insert(second(&director), AgentObservation::Unresponsive { error });
    let fix = DeployOptions { fix: true, ..DeployOptions::default() };
    let plan = director.plan_with(&view, &swapped(), &fix).unwrap();
    assert_eq!(steps(&plan, MISSING).len(), 1);
    assert!(
        steps(&plan, UPDATING)[0].starts_with("begin_update delete_vm elect_vm attach_disk"),
        "{:?}",
        steps(&plan, UPDATING)
    );
    assert_eq!(perform(&mut director.world, &plan, &Faults::default()).error, None);
    assert_eq!(orphans(&director), Vec::<String>::new());
}

#[test]
fn a_disk_that_goes_never_reaches_the_new_vm() {
    let mut director = Director::new(&cloud_config());
    director.deploy(&swapped());
    let mut without = with("/instance_groups/0", "env", json!({"a": 1}));
    without["instance_groups"][0].as_object_mut().unwrap().remove("persistent_disk");
    let plan = director.deploy(&without);
    let turn = &steps(&plan, UPDATING)[0];
    assert!(turn.contains("unmount_disk detach_disk elect_vm update_settings orphan_disk"), "{turn}");
    assert!(!turn.contains("attach_disk"), "{turn}");
    assert_eq!(director.world.disks, []);
}

#[test]
fn a_stopped_instance_gets_no_vm_ahead() {
    let mut director = Director::new(&cloud_config());
    let stopped = with("/instance_groups/0", "state", json!("stopped"));
    director.deploy(&swapped());
    director.deploy(&stopped);
    let (plan, error) = run(&mut director, &stopped, &recreate(), &Faults::default());
    assert_eq!(error, None);
    assert_eq!(steps(&plan, MISSING), Vec::<String>::new());
}

#[test]
fn vms_are_swapped_where_the_cloud_chooses_addresses() {
    let mut cloud = cloud_config();
    cloud["networks"].as_array_mut().unwrap().push(json!({
        "name": "dyn", "type": "dynamic", "subnets": [{"azs": ["z1", "z2", "z3"]}],
    }));
    let mut director = Director::new(&cloud);
    let manifest = with("/instance_groups/0", "networks", json!([{"name": "dyn"}]));
    director.deploy(&manifest);
    let first = director.instances()[0].spec.id.clone();
    let faults = Faults { failing: vec![first], ..Faults::default() };
    run(&mut director, &manifest, &recreate(), &faults).1.unwrap();
    let spare = ready(&director);
    // Nothing shows in its networks; that it stands ready is reason enough.
    let plan = director.deploy(&manifest);
    assert_eq!(steps(&plan, MISSING), Vec::<String>::new());
    let vm = director.world.vms.iter().find(|vm| vm.instance == second(&director)).unwrap();
    assert_eq!((&vm.agent, vm.active), (&spare, true));
}
