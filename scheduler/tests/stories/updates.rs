//! Updates in which several things change at once.

use model::task::DeployOptions;
use scheduler::input::Deletion;
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest, steps};

fn tagged(tag: &str, disk: Option<u64>) -> Value {
    let mut group = group(1);
    if let Some(size) = disk {
        group["persistent_disk"] = json!(size);
    }
    let mut manifest = manifest(&[group]);
    manifest["tags"] = json!({"owner": tag});
    manifest
}

/// Tags and the disk change in one deploy: metadata is written for what is there then.
#[track_caller]
fn check(before: Option<u64>, after: Option<u64>, disks_described: usize) {
    let mut director = Director::new(&cloud_config());
    director.deploy(&tagged("red", before));
    let plan = director.deploy(&tagged("blue", after));
    let update = steps(&plan, Some("Updating instance")).remove(0);
    assert_eq!(update.matches("set_disk_metadata").count(), disks_described, "{update}");
    assert!(update.contains("set_vm_metadata"), "{update}");
}

#[test]
fn new_tags_reach_a_disk_that_stays() {
    check(Some(1), Some(1), 1);
}

#[test]
fn new_tags_reach_the_new_disk_and_not_the_one_that_was_given_up() {
    check(Some(1), Some(2), 1);
    check(None, Some(1), 1);
}

#[test]
fn new_tags_do_not_look_for_a_disk_that_was_given_up() {
    check(Some(1), None, 0);
}

#[test]
fn a_deployment_goes_in_the_order_of_its_manifest() {
    let mut director = Director::new(&cloud_config());
    let (mut first, mut second) = (group(2), group(1));
    (first["name"], second["name"]) = (json!("srv"), json!("cli"));
    director.deploy(&manifest(&[first, second]));
    let view = director.view();
    let options = DeployOptions::default();
    let input = view.input(&director.world, "", &options);
    let plan =
        scheduler::plan_delete_deployment(input.director, &input.deployment, Deletion::Orderly).unwrap();
    let label = |unit: &model::plan::Unit| {
        let (group, rest) = unit.label.split_once('/')?;
        Some(format!("{group} {}", rest.split_once(' ')?.1))
    };
    let told: Vec<String> = plan.units().filter_map(label).collect();
    assert_eq!(told, ["srv (0)", "srv (1)", "cli (0)"]);
}
