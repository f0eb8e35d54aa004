//! VMs that are described by what they should have.

use model::cloud_config::VmResources;
use model::task::DeployOptions;
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest};

const WANTED: VmResources = VmResources { cpu: 1, ram_mib: 2, ephemeral_disk_mib: 3 };

/// The last group wants a size instead of a type, and extensions; so do compilation workers.
fn sized() -> (Director, Value) {
    let mut config = cloud_config();
    config["azs"] = json!([
        {"name": "z1", "cloud_properties": {"a": "zone", "b": "zone", "c": "zone"}}, {"name": "z2"}, {"name": "z3"},
    ]);
    config["vm_extensions"] =
        json!([{"name": "ext", "cloud_properties": {"b": "extension", "c": "extension"}}]);
    let resources = json!({"cpu": 1, "ram": 2, "ephemeral_disk_size": 3});
    let compilation = config["compilation"].as_object_mut().unwrap();
    compilation.remove("vm_type");
    compilation.insert("vm_resources".into(), resources.clone());
    compilation.insert("vm_extensions".into(), json!(["ext"]));
    let mut group = group(1);
    group.as_object_mut().unwrap().remove("vm_type");
    group["azs"] = json!(["z1"]);
    group["vm_resources"] = resources;
    group["vm_extensions"] = json!(["ext"]);
    (Director::new(&config), manifest(&[group]))
}

fn asked(director: &mut Director, manifest: &Value) -> Vec<(String, VmResources)> {
    let view = director.view();
    let (text, options) = (manifest.to_string(), DeployOptions::default());
    let needed = scheduler::vm_sizes(&view.input(&director.world, &text, &options)).unwrap();
    needed.into_iter().map(|(cpi, resources)| (cpi.to_string(), resources)).collect()
}

#[test]
fn a_cloud_is_asked_once_for_each_size() {
    let (mut director, manifest) = sized();
    assert_eq!(asked(&mut director, &manifest), [(String::new(), WANTED)]);
    let mut director = Director::new(&cloud_config());
    assert_eq!(asked(&mut director, &crate::director::manifest(&[group(1)])), []);
}

#[test]
fn what_the_cloud_says_goes_over_zone_and_extensions() {
    let (mut director, manifest) = sized();
    let said = json!({"c": "calculated", "d": "calculated"});
    director.world.vm_properties.insert((Default::default(), WANTED), said);
    let plan = director.deploy(&manifest);
    let wanted = json!({"a": "zone", "b": "extension", "c": "calculated", "d": "calculated"});
    assert!(plan.targets.iter().any(|t| t.compilation), "packages are compiled");
    for target in &plan.targets {
        assert_eq!(target.spec.cloud_properties, wanted, "{}", target.spec.group);
    }
    assert_eq!(director.instances()[0].spec.vm_type, None);
}

#[test]
fn nothing_is_guessed_where_a_cloud_gave_no_answer() {
    let (mut director, manifest) = sized();
    let complaint = director.complaint(&manifest);
    assert!(complaint.1.contains("1 CPUs"), "{}", complaint.1);
}
