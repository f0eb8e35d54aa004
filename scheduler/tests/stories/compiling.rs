//! What is compiled, on what, and what is used as it came.

use std::collections::BTreeSet;

use model::plan::{Plan, Unit};
use model::release::{CompiledPackage, PackageInfo};
use model::step::{Action, PackageRefKey};
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, is_empty, manifest};
use crate::fixture;

/// Turns release 1 into a compiled one: its packages have no source, but a compiled form for each of these stemcells.
fn without_source(director: &mut Director, compiled_on: &[(&str, &str)]) {
    let world = &mut director.world;
    for key in fixture::packages(&world.releases[..1]) {
        for (os, version) in compiled_on {
            world.compiled.push(CompiledPackage {
                key: PackageRefKey { os: (*os).into(), stemcell_version: (*version).into(), ..key.clone() },
                build: 1,
                blob: "b".into(),
                digest: String::new(),
                size_bytes: 1,
            });
        }
    }
    world.releases[0].packages.iter_mut().for_each(|p| p.source = None);
}

fn on_stemcell(version: &str, exported_from: Value) -> Value {
    let mut manifest = manifest(&[group(1)]);
    manifest["stemcells"][0]["version"] = json!(version);
    if !exported_from.is_null() {
        manifest["releases"][0]["exported_from"] = exported_from;
    }
    manifest
}

/// The stemcells that the packages of the first instance were compiled on, as its agent would get them.
fn used(director: &Director) -> BTreeSet<String> {
    let spec = &director.instances()[0].spec;
    spec.packages.iter().map(|p| p.key(&spec.stemcell).stemcell_version.to_string()).collect()
}

#[test]
fn a_package_without_source_is_taken_from_the_newest_stemcell_of_the_line() {
    let mut director = Director::new(&cloud_config());
    without_source(&mut director, &[("toronto-os", "1"), ("other-os", "1.9"), ("toronto-os", "2")]);
    let plan = director.deploy(&on_stemcell("1.1", Value::Null));
    assert!(!scheduler::explain(&plan).contains("Compiling"));
    assert_eq!(used(&director), BTreeSet::from(["1".to_owned()]), "its name is in the plan");
    assert!(is_empty(&director.deploy(&on_stemcell("1.1", Value::Null))));
    let plan = director.deploy(&on_stemcell("1", Value::Null));
    let changes = &plan.targets[0].changes;
    assert_eq!(
        serde_json::to_value(changes).unwrap(),
        json!(["stemcell"]),
        "the packages are the same blobs"
    );
    assert_eq!(used(&director), BTreeSet::from(["1".to_owned()]));
}

#[test]
fn the_stemcell_itself_comes_before_others_of_the_line() {
    let mut director = Director::new(&cloud_config());
    without_source(&mut director, &[("toronto-os", "1"), ("toronto-os", "1.1")]);
    director.deploy(&on_stemcell("1", Value::Null));
    assert_eq!(used(&director), BTreeSet::from(["1".to_owned()]));
}

#[test]
fn without_source_and_without_a_compiled_form_nothing_can_be_done() {
    let mut director = Director::new(&cloud_config());
    without_source(&mut director, &[("toronto-os", "2"), ("other-os", "1")]);
    assert_eq!(director.refusal(&on_stemcell("1", Value::Null)), 60001);
}

#[test]
fn an_exported_release_is_used_as_it_was_exported() {
    let mut director = Director::new(&cloud_config());
    without_source(&mut director, &[("toronto-os", "1"), ("toronto-os", "1.1")]);
    let exported = |os: &str, version: &str| json!([{"os": os, "version": version}]);
    director.deploy(&on_stemcell("1.1", exported("toronto-os", "1")));
    assert_eq!(used(&director), BTreeSet::from(["1".to_owned()]), "1.1 is there, but not listed");
    assert_eq!(director.refusal(&on_stemcell("1.1", exported("toronto-os", "1.7"))), 60003);
    assert_eq!(director.refusal(&on_stemcell("1.1", exported("toronto-os", "3"))), 80015);
    // By its name instead of its system, the stemcell is only known once it is looked up.
    let mut named = on_stemcell("1.1", exported("other-os", "1"));
    named["stemcells"] = json!([{"alias": "default", "name": "ubuntu-stemcell", "version": "1.1"}]);
    assert_eq!(director.refusal(&named), 60004);
}

#[test]
fn a_package_with_source_is_told_where_its_dependencies_were_compiled() {
    let mut director = Director::new(&cloud_config());
    let release = &mut director.world.releases[0];
    release.packages.iter_mut().filter(|p| p.name.as_str() == "base-lib").for_each(|p| p.source = None);
    let base = fixture::packages(&director.world.releases[..1]).remove(0);
    let key = PackageRefKey { os: "toronto-os".into(), stemcell_version: "1".into(), ..base };
    let (blob, digest) = ("b".into(), String::new());
    director.world.compiled.push(CompiledPackage { key: key.clone(), build: 1, blob, digest, size_bytes: 1 });
    let plan = director.plan(&on_stemcell("1.1", Value::Null)).unwrap();
    let told = |unit: &Unit| match &unit.steps.last().unwrap().action {
        Action::CompilePackage { package, compiled_elsewhere, .. } => {
            Some((package.name.to_string(), compiled_elsewhere.clone()))
        }
        _ => None,
    };
    let told: Vec<_> = plan.units().filter_map(told).collect();
    assert_eq!(told, [("mid-tool".into(), vec![key.clone()]), ("top-app".into(), vec![key])]);
}

#[test]
fn a_release_is_called_as_it_was_uploaded() {
    let mut director = Director::new(&cloud_config());
    let mut manifest = manifest(&[group(1)]);
    manifest["releases"][0]["version"] = json!("1.0");
    let plan = director.deploy(&manifest);
    let record = plan.record.unwrap();
    assert_eq!(record.releases[0].version.as_str(), "1", "so that it is found in use");
    assert_eq!(record.manifest["releases"][0]["version"], "1");
    // What is said of it in the manifest still belongs to it.
    without_source(&mut director, &[]);
    manifest["releases"][0]["exported_from"] = json!([{"os": "toronto-os", "version": "1.1"}]);
    director.world.compiled.clear();
    assert_eq!(director.refusal(&manifest), 60003);
}

/// A deploy in a network of this size of a release with twenty packages that need no other.
fn many_packages(range: &str, compilation: Value) -> (Director, Plan) {
    let mut config = cloud_config();
    config["networks"][0]["subnets"] = json!([{"range": range, "gateway": "10.1.0.1", "azs": ["z1"]}]);
    config["compilation"]["workers"] = json!(3);
    config["compilation"].as_object_mut().unwrap().extend(compilation.as_object().unwrap().clone());
    let mut director = Director::new(&config);
    let release = &mut director.world.releases[0];
    let names: Vec<model::PackageName> = (0..20).map(|n| format!("p{n:02}").into()).collect();
    release.packages = names
        .iter()
        .map(|name| PackageInfo {
            name: name.clone(),
            fingerprint: name.as_str().into(),
            digest: String::new(),
            source: Some("b".into()),
            dependencies: Vec::new(),
        })
        .collect();
    release.jobs.iter_mut().for_each(|job| job.packages = names.clone());
    let mut group = group(1);
    group["azs"] = json!(["z1"]);
    let plan = director.plan(&manifest(&[group])).unwrap();
    (director, plan)
}

#[test]
fn compilation_takes_no_more_addresses_than_there_are_workers() {
    for reuse in [true, false] {
        let (_, plan) = many_packages("10.1.0.0/28", json!({"reuse_compilation_vms": reuse}));
        assert_eq!(plan.reservations.len(), 3 + 1, "three workers and the instance");
        let steps = plan.units().flat_map(|u| &u.steps);
        let machines = steps.filter(|s| s.action.name() == "create_vm").count();
        assert_eq!(machines, if reuse { 3 } else { 20 } + 1);
    }
}

#[test]
fn a_worker_s_next_vm_waits_until_the_one_before_is_gone() {
    let (mut director, plan) = many_packages("10.1.0.0/28", json!({"reuse_compilation_vms": false}));
    let makes = |unit: &Unit| match &unit.steps[0].action {
        Action::CreateVm { instance, agent, .. } => Some((instance.clone(), agent.clone())),
        _ => None,
    };
    let deletes = |unit: &Unit| match &unit.steps[0].action {
        Action::DeleteVm { agent, .. } => Some(agent.clone()),
        _ => None,
    };
    let compiling: Vec<&Unit> = plan.phases[0].stages[0].waves[0].units.iter().collect();
    let cleanup: Vec<&Unit> = plan.phases[0].stages[1].waves[0].units.iter().collect();
    for (at, unit) in compiling.iter().enumerate() {
        let (worker, agent) = makes(unit).unwrap();
        let own = cleanup.iter().find(|c| deletes(c) == Some(agent.clone())).unwrap();
        assert_eq!(own.after, [unit.no], "it goes as soon as its package is done, well or not");
        assert!(own.cleanup);
        let earlier = compiling[..at].iter().rev().find(|u| makes(u).unwrap().0 == worker);
        let waits_for: Vec<_> = earlier
            .map(|u| cleanup.iter().find(|c| c.after == [u.no] && deletes(c).is_some()).unwrap().no)
            .into_iter()
            .collect();
        assert_eq!(unit.after, waits_for);
    }
    let gone = cleanup.iter().filter(|u| u.steps.iter().any(|s| s.action.name() == "delete_instance"));
    assert_eq!(gone.count(), 3, "a worker goes after its last VM");
    crate::perform::perform(&mut director.world, &plan, &Default::default());
    assert_eq!(director.world.instances.len(), 1);
    assert_eq!(director.world.addresses.len(), 1);
}

#[test]
fn workers_may_be_left_to_be_deleted_later() {
    for (reuse, vms) in [(true, 3), (false, 20)] {
        let compilation = json!({"reuse_compilation_vms": reuse, "orphan_workers": true});
        let (mut director, plan) = many_packages("10.1.0.0/26", compilation);
        assert_eq!(plan.reservations.len(), vms + 1, "each keeps its address, and nobody gets it meanwhile");
        let steps =
            |name: &str| plan.units().flat_map(|u| &u.steps).filter(|s| s.action.name() == name).count();
        assert_eq!((steps("orphan_vm"), steps("delete_vm"), steps("delete_instance")), (vms, 0, vms));
        crate::perform::perform(&mut director.world, &plan, &Default::default());
        assert_eq!(director.world.instances.len(), 1);
        assert_eq!(director.world.orphaned_vms.len(), vms);
        assert_eq!(director.world.addresses.iter().filter(|a| a.instance.is_none()).count(), vms);
    }
}

#[test]
fn a_worker_s_vm_makes_room_for_one_of_another_stemcell() {
    let mut config = cloud_config();
    config["compilation"]["workers"] = json!(1);
    let mut director = Director::new(&config);
    let mut second = group(1);
    second["name"] = json!("h");
    second["stemcell"] = json!("newer");
    let mut manifest = manifest(&[group(1), second]);
    let newer = json!({"alias": "newer", "os": "toronto-os", "version": "1.1"});
    manifest["stemcells"].as_array_mut().unwrap().push(newer);
    let plan = director.plan(&manifest).unwrap();
    let units: Vec<&Unit> =
        plan.phases[0].stages.iter().flat_map(|s| &s.waves).flat_map(|w| &w.units).collect();
    let (mut alive, mut most) = (0_i32, 0);
    // In the order of what waits for what, with one worker at a time.
    let mut done: BTreeSet<_> = BTreeSet::new();
    while done.len() < units.len() {
        let cleanup_first = |u: &&&Unit| (!u.cleanup, u.no);
        let next =
            units.iter().filter(|u| !done.contains(&u.no) && u.after.iter().all(|no| done.contains(no)));
        let next = next.min_by_key(cleanup_first).expect("nobody waits for ever");
        for step in &next.steps {
            alive +=
                i32::from(step.action.name() == "create_vm") - i32::from(step.action.name() == "delete_vm");
        }
        most = most.max(alive);
        done.insert(next.no);
    }
    assert_eq!((most, alive), (1, 0));
}
