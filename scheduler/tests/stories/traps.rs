//! What is easily taken for something else in manifests and configs, where no recorded plan shows it.

use model::ErrorCode;
use model::instance::InstanceState;
use model::plan::Change;
use model::step::Action;
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest, steps};

#[test]
fn one_group_has_no_two_packages_of_one_name() {
    let mut director = Director::new(&cloud_config());
    let mut other = director.world.releases[0].clone();
    other.release.name = "other".into();
    other.packages.iter_mut().for_each(|package| package.fingerprint = "another".into());
    let server = other.job("server").unwrap().packages.clone();
    other
        .jobs
        .iter_mut()
        .filter(|job| job.name.as_str() == "store")
        .for_each(|job| job.packages = server.clone());
    director.world.releases.push(other);
    let mut apart = manifest(&[group(1), group(1)]);
    apart["releases"].as_array_mut().unwrap().push(json!({"name": "other", "version": "1"}));
    apart["instance_groups"][1]["name"] = json!("h");
    let store = json!({"name": "store", "release": "other"});
    apart["instance_groups"][1]["jobs"] = json!([store]);
    director.plan(&apart).unwrap();
    let mut together = apart.clone();
    together["instance_groups"][0]["jobs"].as_array_mut().unwrap().push(store);
    let (code, told) = director.complaint(&together);
    assert_eq!(code, ErrorCode::JobPackageCollision.number());
    assert!(told.contains("collision detected in instance group 'g'"), "{told}");
}

#[test]
fn properties_of_a_job_hide_those_of_its_group_even_if_there_are_none() {
    let mut director = Director::new(&cloud_config());
    let mut port = |properties: Option<Value>| {
        let mut group = group(1);
        group["properties"] = json!({"port": 7});
        let job = group["jobs"][0].as_object_mut().unwrap();
        job.remove("properties");
        job.extend(properties.map(|given| ("properties".to_owned(), given)));
        let plan = director.plan(&manifest(&[group])).unwrap();
        let with_jobs = plan.targets.iter().find(|target| !target.spec.jobs.is_empty());
        with_jobs.unwrap().spec.jobs[0].properties["port"].clone()
    };
    assert_eq!(port(None), json!(7));
    let default = port(Some(json!({})));
    assert_ne!(default, json!(7), "what the job's own default is, if it has one");
    assert_eq!(port(Some(json!({"greeting": "x"}))), default);
}

#[test]
fn another_type_of_disk_with_the_same_in_it_changes_nothing() {
    let mut config = cloud_config();
    config["disk_types"] = json!([
        {"name": "first", "disk_size": 10},
        {"name": "second", "disk_size": 10},
        {"name": "smaller", "disk_size": 9},
        {"name": "slow", "disk_size": 10, "cloud_properties": {"kind": "slow"}},
    ]);
    let with = |of: &str| {
        let mut group = group(1);
        group["persistent_disk_type"] = json!(of);
        manifest(&[group])
    };
    let mut director = Director::new(&config);
    director.deploy(&with("first"));
    let plan = director.plan(&with("second")).unwrap();
    assert_eq!(plan.targets[0].changes, []);
    assert_eq!(
        steps(&plan, None),
        ["save_instance", "save_deployment"],
        "only what it is called is remembered"
    );
    for other in ["smaller", "slow"] {
        let plan = director.plan(&with(other)).unwrap();
        assert_eq!(plan.targets[0].changes, [Change::PersistentDisk], "{other}");
    }
}

#[test]
fn names_that_are_relative_to_a_deployment_are_not_for_cloud_configs() {
    let mut config = cloud_config();
    config["compilation"]["workers"] = json!("((secret))");
    let mut director = Director::new(&config);
    director.world.variables.available = true;
    let (code, told) = director.complaint(&manifest(&[group(1)]));
    assert_eq!(code, ErrorCode::ConfigServerIncorrectNameSyntax.number());
    assert!(told.contains("'secret'"), "{told}");
    // In a runtime config they are each deployment's own.
    let mut director = Director::new(&cloud_config());
    director.world.variables.available = true;
    let check = json!({"name": "check", "release": "golden", "properties": {"exit_code": "((secret))"}});
    let addons =
        json!({"releases": [{"name": "golden", "version": "1"}], "addons": [{"name": "x", "jobs": [check]}]});
    director.world.put_config("runtime", "default", addons.to_string());
    director.plan(&manifest(&[group(1)])).unwrap();
}

#[test]
fn only_those_who_should_have_a_vm_are_missed() {
    let mut director = Director::new(&cloud_config());
    director.deploy(&manifest(&[group(4)]));
    director.world.vms.clear();
    for instance in &mut director.world.instances {
        match instance.spec.index {
            1 => instance.state = InstanceState::Stopped,
            2 => instance.state = InstanceState::Detached,
            3 => instance.ignore = true,
            _ => {}
        }
    }
    let all: Vec<_> = director.world.instances.iter().map(|instance| instance.spec.id.clone()).collect();
    let view = director.view();
    let plan = scheduler::plan_resurrection(&director.world.director, &view.facts(), &all).unwrap();
    let made = |index: u32| {
        let id = director.instances()[index as usize].spec.id.clone();
        plan.units()
            .flat_map(|unit| &unit.steps)
            .any(|step| matches!(&step.action, Action::CreateVm { instance, .. } if *instance == id))
    };
    assert_eq!([0, 1, 2, 3].map(made), [true, true, false, false], "who is stopped has a VM, too");
}
