//! Plans as people read them: one test per story.

#![allow(clippy::unwrap_used, reason = "test support: a panic here is the report")]
#![allow(dead_code, reason = "the world is shared with the golden tests, which use all of it")]

#[path = "golden/fixture.rs"]
mod fixture;
#[path = "golden/perform.rs"]
mod perform;
#[path = "golden/render.rs"]
mod render;
#[path = "golden/world.rs"]
mod world;

use expect_test::{Expect, expect};
use model::instance::InstanceState;
use model::plan::{OnFailure, Plan, Step};
use model::problem::{Fault, Finding, Problem, Standing};
use model::task::{DeployOptions, InstanceFilter, StateChange, TaskError};
use model::{DeploymentName, ProblemId, TaskId};
use perform::{Faults, perform};
use scheduler::input::{
    Afterwards, AgentObservation, Deletion, DrainMode, ErrandRequest, StateChangeRequest,
};
use scheduler::{DecidedBy, Decision};
use serde_json::{Value, json};
use world::{View, World};

fn manifest(instances: u32, port: u32) -> Value {
    let group = |name: &str, instances: u32, job: Value| {
        json!({
            "name": name, "instances": instances, "azs": ["z1"], "vm_type": "small", "stemcell": "default",
            "networks": [{"name": "a"}], "jobs": [job],
        })
    };
    let mut web =
        group("web", instances, json!({"name": "server", "release": "golden", "properties": {"port": port}}));
    web["persistent_disk"] = json!(1024);
    let mut smoke = group("smoke", 1, json!({"name": "check", "release": "golden"}));
    smoke["lifecycle"] = json!("errand");
    json!({
        "name": "p", "releases": [{"name": "golden", "version": "1"}],
        "stemcells": [{"alias": "default", "os": "toronto-os", "version": "1"}],
        "update": {"canaries": 1, "max_in_flight": 1, "canary_watch_time": 1, "update_watch_time": 1},
        "instance_groups": [web, smoke],
    })
}

fn new_world() -> World {
    let mut world = World::new();
    let config = json!({
        "azs": [{"name": "z1"}],
        "vm_types": [{"name": "small"}],
        "networks": [{"name": "a", "subnets": [{"range": "10.0.0.0/24", "gateway": "10.0.0.1", "az": "z1"}]}],
        "compilation": {"workers": 2, "network": "a", "az": "z1", "vm_type": "small", "reuse_compilation_vms": true},
    });
    world.put_config("cloud", "default", config.to_string());
    world
}

fn view(world: &mut World) -> View {
    world.view(&DeploymentName::from("p"), &[])
}

fn deploy(world: &mut World, manifest: &Value, options: &DeployOptions) -> Result<Plan, TaskError> {
    let view = view(world);
    plan_with(world, &view, manifest, options)
}

fn plan_with(
    world: &World,
    view: &View,
    manifest: &Value,
    options: &DeployOptions,
) -> Result<Plan, TaskError> {
    let text = manifest.to_string();
    let input = view.input(world, &text, options);
    let draft = scheduler::draft(&input)?;
    let rendered = draft.to_render().map(|spec| (spec.id.clone(), render::render(spec, world))).collect();
    scheduler::plan(&input, &draft, &rendered)
}

fn deployed(instances: u32) -> World {
    let mut world = new_world();
    let plan = deploy(&mut world, &manifest(instances, 1), &DeployOptions::default()).unwrap();
    perform(&mut world, &plan, &Faults::default());
    world
}

#[track_caller]
fn check(plan: &Plan, expect: Expect) {
    // UUIDs come from the test's seed; texts that hold one are cut to be readable.
    let text = scheduler::explain(plan);
    let is_uuid = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
    let words: Vec<String> = text.split(['/', ' ', '\n']).filter(is_uuid).map(str::to_owned).collect();
    expect.assert_eq(&words.iter().fold(text, |text, word| text.replace(word.as_str(), "<uuid>")));
}

/// Plans a change of state as the executor does: a deploy of what was deployed last.
fn changed(world: &World, view: &View, request: &StateChangeRequest<'_>) -> Result<Plan, TaskError> {
    let facts = view.facts();
    let (manifest, options) = (scheduler::stored_manifest(&facts)?, request.options());
    let mut input = view.input(world, &manifest, &options);
    input.change = Some(request);
    let draft = scheduler::draft(&input)?;
    let rendered = draft.to_render().map(|spec| (spec.id.clone(), render::render(spec, world))).collect();
    scheduler::plan(&input, &draft, &rendered)
}

fn change(change: StateChange, filter: &InstanceFilter) -> StateChangeRequest<'_> {
    StateChangeRequest {
        change,
        filter,
        drain: DrainMode::Drain,
        max_in_flight: None,
        canaries: None,
        created_before: None,
    }
}

fn one() -> InstanceFilter {
    InstanceFilter { group: Some("web".into()), id_or_index: Some("0".into()) }
}

#[test]
fn a_first_deploy_compiles_creates_and_updates() {
    let mut world = new_world();
    let plan = deploy(&mut world, &manifest(2, 1), &DeployOptions::default()).unwrap();
    check(
        &plan,
        expect![[r#"
        create smoke/0 az=z1 ip=10.0.0.4
        create web/0 az=z1 ip=10.0.0.2 disk=1024M
        create web/1 az=z1 ip=10.0.0.3 disk=1024M
        Compiling packages
          #0 base-lib/164b06a71e788ad319292645e40538bddd7ace24fea367214c14a0524ce497db: create_vm set_vm_metadata await_agent update_settings bind_vm set_vm_metadata compile_package
          #1 mid-tool/d8078102160629eb2ff835d7ff5301621c0774f7cc40b468edf046b1d6d65b7c after 0: set_vm_metadata compile_package
          #2 top-app/ba259de45062e7eeb2c189a18d4ea5f79a550b0c9f143d5c15020fcea3324dd0 after 0,1: set_vm_metadata compile_package
        (silent)
          #3 compilation/<uuid> (0) after 0,1,2: delete_vm delete_instance
        Creating missing vms
          #4 web/0: create_vm set_vm_metadata await_agent update_settings bind_vm
          #5 web/1: create_vm set_vm_metadata await_agent update_settings bind_vm
        Updating instance [web]
          wave 1, 1 at once
          #6 web/0 (canary): begin_update prepare run_script drain stop run_script create_disk attach_disk set_disk_metadata mount_disk update_settings release_addresses apply save_instance run_script start watch run_script complete_update
          wave 2, 1 at once
          #7 web/1: begin_update prepare run_script drain stop run_script create_disk attach_disk set_disk_metadata mount_disk update_settings release_addresses apply save_instance run_script start watch run_script complete_update
        (silent)
          #8 smoke/0: save_instance
        (silent)
          #9 p: save_deployment
        (silent)
          #10 web/0: run_script
          #11 web/1: run_script
    "#]],
    );
}

#[test]
fn a_property_is_changed_in_place() {
    let mut world = deployed(1);
    let plan = deploy(&mut world, &manifest(1, 2), &DeployOptions::default()).unwrap();
    check(
        &plan,
        expect![[r#"
        update web/0 az=z1 ip=10.0.0.2 disk=1024M because of configuration
        Updating instance [web]
          #0 web/0 (canary): begin_update prepare run_script drain stop run_script check_disks update_settings release_addresses apply save_instance run_script start watch run_script complete_update
        (silent)
          #1 p: save_deployment
        (silent)
          #2 web/0: run_script
    "#]],
    );
}

#[test]
fn a_dead_agent_fails_the_deploy_unless_it_is_to_be_fixed() {
    let mut world = deployed(1);
    let mut view = view(&mut world);
    let error = TaskError { code: 450002, message: "Timed out".into() };
    let web = world.instances.iter().find(|i| i.spec.group.as_str() == "web").unwrap().spec.id.clone();
    view.agents.insert(web.clone(), AgentObservation::Unresponsive { error });
    let manifest = manifest(1, 1);
    let refused = plan_with(&world, &view, &manifest, &DeployOptions::default()).unwrap_err();
    assert_eq!((refused.code, refused.message), (450002, format!("web/{web}: Timed out")));
    let fix = DeployOptions { fix: true, ..DeployOptions::default() };
    check(
        &plan_with(&world, &view, &manifest, &fix).unwrap(),
        expect![[r#"
        recreate web/0 az=z1 ip=10.0.0.2 disk=1024M because of recreate
        Updating instance [web]
          #0 web/0 (canary): begin_update delete_vm create_vm set_vm_metadata await_agent attach_disk set_disk_metadata mount_disk update_settings bind_vm check_disks release_addresses apply save_instance run_script start watch run_script complete_update
        (silent)
          #1 p: save_deployment
        (silent)
          #2 web/0: run_script
    "#]],
    );
}

#[test]
fn a_hard_stop_keeps_the_disk_and_a_start_brings_it_back() {
    let mut world = deployed(1);
    let filter = one();
    let stop = change(StateChange::Become(InstanceState::Detached), &filter);
    let facts = view(&mut world);
    let plan = changed(&world, &facts, &stop).unwrap();
    check(
        &plan,
        expect![[r#"
        update web/0 az=z1 ip=10.0.0.2 disk=1024M detached because of state
        Updating instance [web]
          #0 web/0 (canary): begin_update run_script drain stop run_script check_disks unmount_disk detach_disk delete_vm release_addresses save_instance complete_update
    "#]],
    );
    perform(&mut world, &plan, &Faults::default());
    let start = change(StateChange::Become(InstanceState::Started), &filter);
    let facts = view(&mut world);
    let plan = changed(&world, &facts, &start).unwrap();
    check(
        &plan,
        expect![[r#"
        update web/0 az=z1 ip=10.0.0.2 disk=1024M because of packages, configuration, state
        Creating missing vms
          #0 web/0: create_vm set_vm_metadata await_agent attach_disk set_disk_metadata mount_disk update_settings bind_vm
        Updating instance [web]
          #1 web/0 (canary): begin_update check_disks update_settings release_addresses apply save_instance run_script start watch run_script complete_update
        (silent)
          #2 web/0: run_script
    "#]],
    );
    perform(&mut world, &plan, &Faults::default());
    let facts = view(&mut world);
    let again = changed(&world, &facts, &start).unwrap();
    assert_eq!(again.units().count(), 0, "it is started already");
}

#[test]
fn a_recreate_of_one_instance_moves_its_disk() {
    let mut world = deployed(2);
    let filter = one();
    let facts = view(&mut world);
    let request = change(StateChange::Recreate, &filter);
    let plan = changed(&world, &facts, &request).unwrap();
    check(
        &plan,
        expect![[r#"
        recreate web/0 az=z1 ip=10.0.0.2 disk=1024M because of recreate
        Updating instance [web]
          #0 web/0 (canary): begin_update run_script drain stop run_script check_disks unmount_disk detach_disk delete_vm create_vm set_vm_metadata await_agent attach_disk set_disk_metadata mount_disk update_settings bind_vm check_disks release_addresses apply save_instance run_script start watch run_script complete_update
        (silent)
          #1 web/0: run_script
          #2 web/1: run_script
    "#]],
    );
}

#[test]
fn a_snapshot_is_taken_once_jobs_have_stopped_and_of_nobody_who_goes() {
    let mut world = deployed(2);
    let (filter, facts) = (one(), view(&mut world));
    let plan = changed(&world, &facts, &change(StateChange::Recreate, &filter)).unwrap();
    check(
        &world.with_snapshots(plan),
        expect![[r#"
        recreate web/0 az=z1 ip=10.0.0.2 disk=1024M because of recreate
        Updating instance [web]
          #0 web/0 (canary): begin_update run_script drain stop run_script snapshot_disk check_disks unmount_disk detach_disk delete_vm create_vm set_vm_metadata await_agent attach_disk set_disk_metadata mount_disk update_settings bind_vm check_disks release_addresses apply save_instance run_script start watch run_script complete_update
        (silent)
          #1 web/0: run_script
          #2 web/1: run_script
    "#]],
    );
    let plan = scheduler::plan_taking_snapshots(&facts.facts(), None).unwrap();
    check(
        &plan,
        expect![[r#"
        (silent)
          #0 web/1: snapshot_disk
          #1 web/0: snapshot_disk
    "#]],
    );
    let smoke = &world.instances.iter().find(|i| i.spec.group.as_str() == "smoke").unwrap().spec.id;
    assert!(scheduler::plan_taking_snapshots(&facts.facts(), Some(smoke)).is_none(), "it has no disk");
    let scaled_down = deploy(&mut world, &manifest(1, 1), &DeployOptions::default()).unwrap();
    let text = scheduler::explain(&world.with_snapshots(scaled_down));
    assert!(text.contains("delete_instance") && !text.contains("snapshot_disk"), "{text}");
}

#[test]
fn a_state_change_of_an_ignored_or_unknown_instance_is_refused() {
    let mut world = deployed(1);
    world.instances.iter_mut().for_each(|i| i.ignore = true);
    let facts = view(&mut world);
    let refuse = |filter: &InstanceFilter| {
        let request = change(StateChange::Restart, filter);
        changed(&world, &facts, &request).map_err(|e| e.code)
    };
    assert_eq!(refuse(&one()).unwrap_err(), 140021);
    let unknown = InstanceFilter { id_or_index: Some("9".into()), ..one() };
    assert_eq!(refuse(&unknown).unwrap_err(), 70001);
    let all = refuse(&InstanceFilter::default()).unwrap();
    assert_eq!((all.units().count(), all.warnings.len()), (0, 3));
}

#[test]
fn an_errand_group_lives_for_its_errand_only() {
    let mut world = deployed(1);
    let facts = view(&mut world);
    let request = ErrandRequest {
        errand: "smoke",
        afterwards: Afterwards::DeleteVms,
        instances: &[],
        variables: "",
        unless: None,
    };
    let plan = scheduler::plan_errand(&world.director, &facts.facts(), &world.releases, &request);
    let plan = plan.unwrap().unwrap();
    check(
        &plan,
        expect![[r#"
            update smoke/0 az=z1 ip=10.0.0.3
            Creating missing vms
              #0 smoke/0: create_vm set_vm_metadata await_agent update_settings bind_vm
            Updating instance [smoke]
              #1 smoke/0 (canary): begin_update prepare run_script drain stop run_script update_settings release_addresses apply save_instance run_script start watch run_script complete_update
            (silent)
              #2 smoke: save_errand
            Running errand
              #3 smoke/0: run_errand
            (silent)
              #4 smoke: save_errand
            (silent)
              #5 smoke/0 after 0,1,2,3,4: delete_vm
        "#]],
    );
    let unknown = ErrandRequest { errand: "nope", ..request };
    let refused = scheduler::plan_errand(&world.director, &facts.facts(), &world.releases, &unknown);
    assert_eq!(refused.unwrap_err().code, 70009);
}

#[test]
fn resurrection_replaces_only_what_is_dead() {
    let mut world = deployed(2);
    let gone = world.instances.iter().find(|i| i.spec.index == 1).unwrap().spec.id.clone();
    world.vms.retain(|v| v.instance != gone);
    let all: Vec<_> = world.instances.iter().map(|i| i.spec.id.clone()).collect();
    let facts = view(&mut world);
    let plan = scheduler::plan_resurrection(&world.director, &facts.facts(), &all).unwrap();
    check(
        &plan,
        expect![[r#"
            recreate web/1 az=z1 ip=10.0.0.3 disk=1024M because of recreate
            Applying problem resolutions
              #0 web/1: begin_update create_vm set_vm_metadata await_agent attach_disk set_disk_metadata mount_disk update_settings bind_vm apply save_instance run_script start watch run_script complete_update
            (silent)
              #1 web/1 after 0: run_script
              #2 web/0 after 0: run_script
        "#]],
    );
}

#[test]
fn problems_of_one_instance_take_turns_and_a_disk_that_is_given_up_is_not_mounted_again() {
    let mut world = deployed(2);
    let facts = view(&mut world);
    let web = world.instances.iter().find(|i| i.spec.group.as_str() == "web" && i.spec.index == 1).unwrap();
    let vm = world.vms.iter().find(|vm| vm.instance == web.spec.id).unwrap();
    let disk = world.disks.iter().find(|disk| disk.instance == web.spec.id).unwrap();
    let decision = |id, fault, resolution: &str| Decision {
        problem: Standing {
            problem: Problem {
                id: ProblemId(id),
                found_by: TaskId(1),
                finding: Finding { instance: web.spec.id.clone(), group: "web".into(), index: 1, fault },
            },
            outdated: None,
        },
        resolution: Some(resolution.to_owned()),
    };
    let silent = Fault::UnresponsiveAgent { agent: vm.agent.clone(), cid: vm.cid.clone() };
    let cid = disk.cid.clone().unwrap();
    let gone = Fault::MissingDisk { disk: disk.id.clone(), cid, size_mib: 1024 };
    let decisions =
        [decision(1, silent, "recreate_vm_without_wait"), decision(2, gone, "delete_disk_reference")];
    let none = std::collections::BTreeMap::new();
    let by = DecidedBy::Operator(&none);
    let plan = scheduler::plan_resolutions(&world.director, &facts.facts(), &decisions, &by).unwrap();
    check(
        &plan,
        expect![[r#"
        recreate web/1 az=z1 ip=10.0.0.3 disk=1024M because of recreate
        Applying problem resolutions
          wave 1, 1 at once
          #0 web/1: unmount_disk detach_disk orphan_disk close_problem
          wave 2, 1 at once
          #1 web/1: confirm_problem begin_update delete_vm create_vm set_vm_metadata await_agent update_settings bind_vm apply save_instance run_script start complete_update close_problem
        (silent)
          #2 web/1 after 0,1: run_script
          #3 web/0 after 0,1: run_script
    "#]],
    );
    let labels: Vec<&str> = plan.units().take(2).map(|unit| unit.label.as_str()).collect();
    assert!(
        labels[0].ends_with("is missing (missing_disk 2): Delete disk reference (DANGEROUS!)"),
        "{labels:?}"
    );
    assert!(labels[1].contains("is not responding. (unresponsive_agent 1): Recreate VM"), "{labels:?}");
}

#[test]
fn repairs_keep_to_the_order_of_groups_and_to_max_in_flight() {
    let group = |name: &str, serial: bool| {
        let mut group = manifest(3, 1)["instance_groups"][0].clone();
        group["name"] = json!(name);
        group["update"] = json!({"serial": serial, "max_in_flight": 2});
        group
    };
    let mut manifest = manifest(1, 1);
    manifest["instance_groups"] =
        json!([group("a", true), group("b", false), group("c", false), group("d", true)]);
    let mut world = new_world();
    let plan = deploy(&mut world, &manifest, &DeployOptions::default()).unwrap();
    perform(&mut world, &plan, &Faults::default());
    let all: Vec<_> = world.instances.iter().map(|i| i.spec.id.clone()).collect();
    world.vms.clear();
    let facts = view(&mut world);
    let plan = scheduler::plan_resurrection(&world.director, &facts.facts(), &all).unwrap();
    let shape = |phase: &model::plan::Phase| -> Vec<(u32, usize)> {
        phase.stages.iter().flat_map(|s| &s.waves).map(|w| (w.max_in_flight, w.units.len())).collect()
    };
    let (afterwards, repairs) = plan.phases.split_last().unwrap();
    let repairs: Vec<_> = repairs.iter().map(shape).collect();
    assert_eq!(repairs, [vec![(2, 3)], vec![(2, 3), (2, 3)], vec![(2, 3)]]);
    assert_eq!(shape(afterwards), [(32, 12)]);
    assert!(plan.units().all(|unit| unit.on_failure == OnFailure::GoOn));
}

#[test]
fn a_deployment_is_deleted_with_its_disks_given_up() {
    let mut world = deployed(1);
    let facts = view(&mut world);
    let plan = scheduler::plan_delete_deployment(&world.director, &facts.facts(), Deletion::Orderly).unwrap();
    check(
        &plan,
        expect![[r#"
            delete smoke/0 az=z1 ip=10.0.0.3
            delete web/0 az=z1 ip=10.0.0.2 disk=1024M
            Deleting instances
              #0 web/0: run_script drain stop run_script delete_vm orphan_disk delete_instance
              #1 smoke/0: delete_instance
            (silent)
              #2 p: delete_deployment
        "#]],
    );
    let forced =
        scheduler::plan_delete_deployment(&world.director, &facts.facts(), Deletion::Forced).unwrap();
    let steps = |plan: &Plan| plan.units().flat_map(|unit| unit.steps.clone()).collect::<Vec<_>>();
    let names = |plan: &Plan| steps(plan).iter().map(|step| step.action.name()).collect::<Vec<_>>();
    assert_eq!(names(&forced), names(&plan), "jobs are stopped then, too");
    let may_fail = |step: &Step| step.on_failure == OnFailure::GoOn;
    assert!(steps(&forced).iter().filter(|step| step.action.name() == "drain").all(may_fail));
}

#[test]
fn orphaned_vms_are_deleted_side_by_side() {
    check(
        &scheduler::plan_orphaned_vms(&[("a1".into(), Some("vm-7".into())), ("a2".into(), None)]),
        expect![[r#"
        Deleting orphaned vms
          #0 vm-7: delete_orphaned_vm
          #1 VM of agent a2: delete_orphaned_vm
    "#]],
    );
}

#[test]
fn orphaned_disks_are_deleted_side_by_side() {
    check(
        &scheduler::plan_orphaned_disks(&[("d1".into(), Some("disk-7".into())), ("d2".into(), None)]),
        expect![[r#"
        Deleting orphaned disks
          #0 disk-7: delete_orphaned_disk
          #1 disk d2: delete_orphaned_disk
    "#]],
    );
}
