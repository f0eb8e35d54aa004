//! Disks that have names: several for each instance, attached and nothing else, and found by their jobs through a link.

use model::DiskName;
use model::plan::{Change, Plan};
use model::release::ConsumedLink;
use model::step::Action;
use model::task::DeployOptions;
use scheduler::input::Deletion;
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, is_empty, manifest, steps};
use crate::perform::{Faults, perform};

const UPDATING: Option<&str> = Some("Updating instance");
const MISSING: Option<&str> = Some("Creating missing vms");

fn config() -> Value {
    let mut config = cloud_config();
    config["disk_types"] = json!([
        {"name": "small", "disk_size": 10},
        {"name": "large", "disk_size": 1000, "cloud_properties": {"kind": "slow"}},
        {"name": "same", "disk_size": 10},
        {"name": "secret", "disk_size": 10, "cloud_properties": {"key": "((/disk_key))"}},
    ]);
    config
}

/// One instance with these disks, as `name: type`.
fn with(disks: &[(&str, &str)]) -> Value {
    let mut group = group(1);
    group["persistent_disks"] =
        disks.iter().map(|(name, of)| json!({"name": name, "type": of})).collect::<Vec<_>>().into();
    manifest(&[group])
}

fn deployed(disks: &[(&str, &str)]) -> Director {
    let mut director = Director::new(&config());
    director.deploy(&with(disks));
    director
}

/// What instances have, as `name=size`; `!` marks what does not count.
fn disks(director: &Director) -> Vec<String> {
    let mut found: Vec<String> = (director.world.disks.iter())
        .map(|disk| {
            let name = disk.spec.name.as_ref().map_or("-", DiskName::as_str);
            format!("{}{name}={}", if disk.active { "" } else { "!" }, disk.spec.size_mib)
        })
        .collect();
    found.sort();
    found
}

/// The steps of the one instance that have to do with disks.
fn about_disks(plan: &Plan, title: Option<&str>) -> String {
    let all = steps(plan, title).remove(0);
    all.split(' ').filter(|s| s.contains("disk") || *s == "update_settings").collect::<Vec<_>>().join(" ")
}

/// Why the one instance is touched.
fn changes(plan: &Plan) -> &[Change] {
    &plan.targets[0].changes
}

#[test]
fn each_disk_is_made_and_attached_and_none_is_mounted() {
    let mut director = Director::new(&config());
    let plan = director.deploy(&with(&[("wal", "small"), ("data", "large")]));
    let each = "create_disk attach_disk set_disk_metadata";
    assert_eq!(about_disks(&plan, UPDATING), format!("{each} {each} update_settings"));
    let names: Vec<&str> = (plan.units().flat_map(|unit| &unit.steps))
        .filter_map(|step| match &step.action {
            Action::CreateDisk { name, .. } => name.as_ref().map(DiskName::as_str),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["data", "wal"]);
    assert_eq!(disks(&director), ["data=1000", "wal=10"]);
    assert!(scheduler::explain(&plan).contains("disk[data]=1000M disk[wal]=10M"));
    let again = director.plan(&with(&[("data", "large"), ("wal", "same")])).unwrap();
    assert_eq!(steps(&again, UPDATING), [""; 0], "neither their order nor the type's name matters");
}

#[test]
fn a_secret_that_was_rotated_replaces_the_disk_that_is_made_with_it() {
    let mut director = deployed(&[("data", "large"), ("keyed", "secret")]);
    let set = director.world.instances[0].variable_set;
    director.world.variables.rotated = [(set, ["/disk_key".into()].into())].into();
    let plan = director.plan(&with(&[("data", "large"), ("keyed", "secret")])).unwrap();
    assert_eq!(changes(&plan), [Change::PersistentDisk]);
    assert_eq!(about_disks(&plan, UPDATING).matches("create_disk").count(), 1);
}

#[test]
fn only_the_disk_that_changed_is_replaced_and_nothing_is_copied() {
    let mut director = deployed(&[("data", "large"), ("wal", "small")]);
    let plan = director.deploy(&with(&[("data", "large"), ("wal", "large")]));
    assert_eq!(changes(&plan), [Change::PersistentDisk]);
    let replaced = "create_disk attach_disk set_disk_metadata detach_disk orphan_disk update_settings";
    assert_eq!(about_disks(&plan, UPDATING), replaced);
    assert_eq!(disks(&director), ["data=1000", "wal=1000"]);
}

#[test]
fn disks_come_and_go_by_name() {
    let mut director = deployed(&[("data", "large"), ("wal", "small")]);
    let plan = director.deploy(&with(&[("data", "large"), ("log", "small")]));
    assert_eq!(changes(&plan), [Change::PersistentDisk]);
    let come_and_go = "create_disk attach_disk set_disk_metadata detach_disk orphan_disk update_settings";
    assert_eq!(about_disks(&plan, UPDATING), come_and_go);
    assert_eq!(disks(&director), ["data=1000", "log=10"]);
    director.deploy(&with(&[]));
    assert_eq!(disks(&director), [""; 0]);
}

#[test]
fn a_mounted_disk_gives_way_to_named_ones_and_back() {
    let mut mounted = manifest(&[group(1)]);
    mounted["instance_groups"][0]["persistent_disk"] = json!(5);
    let mut director = Director::new(&config());
    director.deploy(&mounted);
    let plan = director.deploy(&with(&[("data", "small")]));
    let there = "check_disks check_disks unmount_disk detach_disk orphan_disk create_disk attach_disk set_disk_metadata";
    assert_eq!(about_disks(&plan, UPDATING), format!("{there} update_settings"));
    assert_eq!(disks(&director), ["data=10"]);
    let plan = director.deploy(&mounted);
    let back = "create_disk attach_disk set_disk_metadata mount_disk detach_disk orphan_disk";
    assert_eq!(about_disks(&plan, UPDATING), format!("{back} update_settings"));
    assert_eq!(disks(&director), ["-=5"]);
}

#[test]
fn a_new_vm_gets_all_of_them_before_its_agent_is_told_their_names() {
    let mut director = deployed(&[("data", "large"), ("wal", "small")]);
    let (view, recreate) = (director.view(), DeployOptions { recreate: true, ..DeployOptions::default() });
    let same = with(&[("data", "large"), ("wal", "small")]);
    let plan = director.plan_with(&view, &same, &recreate).unwrap();
    assert_eq!(perform(&mut director.world, &plan, &Faults::default()).error, None);
    let moved =
        "detach_disk detach_disk attach_disk set_disk_metadata attach_disk set_disk_metadata update_settings";
    assert_eq!(about_disks(&plan, UPDATING), moved);
    assert_eq!(disks(&director), ["data=1000", "wal=10"]);

    let mut swapped = same;
    swapped["update"]["vm_strategy"] = json!("create-swap-delete");
    let view = director.view();
    let plan = director.plan_with(&view, &swapped, &recreate).unwrap();
    assert_eq!(about_disks(&plan, MISSING), "update_settings", "the disks are the old VM's");
    assert_eq!(about_disks(&plan, UPDATING), moved);
}

#[test]
fn a_swapped_vm_never_gets_a_disk_that_goes_and_is_told_of_one_that_comes() {
    let mut swapped = with(&[("data", "large"), ("wal", "small")]);
    swapped["update"]["vm_strategy"] = json!("create-swap-delete");
    let mut director = Director::new(&config());
    director.deploy(&swapped);
    swapped["instance_groups"][0]["persistent_disks"] =
        json!([{"name": "data", "type": "large"}, {"name": "log", "type": "small"}]);
    swapped["instance_groups"][0]["env"] = json!({"another": "vm"});
    let plan = director.deploy(&swapped);
    let swap = "detach_disk detach_disk attach_disk set_disk_metadata update_settings";
    let then = "create_disk attach_disk set_disk_metadata orphan_disk update_settings";
    assert_eq!(about_disks(&plan, UPDATING), format!("{swap} {then}"));
    assert_eq!(disks(&director), ["data=1000", "log=10"]);
}

#[test]
fn to_recreate_disks_concerns_those_whose_content_is_copied() {
    let mut director = deployed(&[("data", "large")]);
    let options = DeployOptions { recreate_persistent_disks: true, ..DeployOptions::default() };
    let view = director.view();
    let plan = director.plan_with(&view, &with(&[("data", "large")]), &options).unwrap();
    assert!(is_empty(&plan), "{}", scheduler::explain(&plan));
}

#[test]
fn what_a_deploy_left_half_done_is_detached_and_given_up() {
    let mut director = deployed(&[("data", "large")]);
    let leftover = director.world.disks[0].clone();
    director.world.disks.push(model::instance::Disk { id: "left".into(), active: false, ..leftover });
    director.world.instances[0].update_completed = false;
    let plan = director.deploy(&with(&[("data", "large")]));
    assert_eq!(about_disks(&plan, UPDATING), "detach_disk orphan_disk update_settings");
    assert_eq!(disks(&director), ["data=1000"]);
}

#[test]
fn an_instance_that_goes_gives_all_its_disks_up() {
    let mut director = deployed(&[("data", "large"), ("wal", "small")]);
    let (view, options) = (director.view(), DeployOptions::default());
    let input = view.input(&director.world, "", &options);
    let plan =
        scheduler::plan_delete_deployment(input.director, &input.deployment, Deletion::Orderly).unwrap();
    let all = plan.units().flat_map(|unit| &unit.steps);
    assert_eq!(all.filter(|step| step.action.name() == "orphan_disk").count(), 2);
}

/// A group whose job wants to be told of a disk.
fn asking(director: &mut Director, disks: Value, consumes: Value) -> Value {
    let jobs = director.world.releases.iter_mut().flat_map(|release| &mut release.jobs);
    for job in jobs.filter(|job| job.name.as_str() == "server") {
        job.consumes = vec![ConsumedLink { name: "backing".into(), kind: "disk".into(), optional: false }];
    }
    let mut group = group(1);
    group["persistent_disks"] = disks;
    group["jobs"][0]["consumes"] = consumes;
    manifest(&[group])
}

#[test]
fn a_job_is_told_by_a_link_what_its_disk_is_called() {
    let mut director = Director::new(&config());
    let two = json!([{"name": "data", "type": "large"}, {"name": "wal", "type": "small"}]);
    let by_name = asking(&mut director, two.clone(), json!({"backing": {"from": "wal"}}));
    let (view, options) = (director.view(), DeployOptions::default());
    let (draft, plan) = director.plan_both(&view, &by_name, &options).unwrap();
    let told = &draft.instances[0].spec.jobs[0].links["backing"];
    let content =
        json!({"deployment_name": "p", "properties": {"name": "wal"}, "networks": [], "instances": []});
    assert_eq!(*told, content);
    let links = plan.record.unwrap().planned_links.unwrap();
    let offered: Vec<_> = links.offers.iter().filter(|offer| offer.kind == "disk").collect();
    let told: Vec<_> =
        offered.iter().map(|o| (o.owner.kind.name(), o.owner.name.as_str(), o.name.as_str())).collect();
    assert_eq!(told, [("disk", "g", "data"), ("disk", "g", "wal")]);

    let several = asking(&mut director, two, json!({}));
    let (_, complaint) = director.complaint(&several);
    assert!(complaint.contains("Multiple link providers found"), "{complaint}");
    assert!(complaint.contains("Link provider 'data' from job 'g' in instance group 'g'"), "{complaint}");
    let only = asking(&mut director, json!([{"name": "data", "type": "large"}]), json!({}));
    director.plan(&only).unwrap();
    let none = asking(&mut director, json!([]), json!({}));
    assert!(director.complaint(&none).1.contains("No link providers found"));
}
