//! Several clouds: which serves a zone, and what was made under an older name.

use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, is_empty, manifest};

fn with_zones(cpis: [&str; 3]) -> Value {
    let mut config = cloud_config();
    for (zone, cpi) in config["azs"].as_array_mut().unwrap().iter_mut().zip(cpis) {
        if !cpi.is_empty() {
            zone["cpi"] = json!(cpi);
        }
    }
    config
}

fn put_cpis(director: &mut Director, cpis: &Value) {
    director.world.put_config("cpi", "clouds", json!({ "cpis": cpis }).to_string());
}

/// Has every stemcell in one more cloud.
fn upload_to(director: &mut Director, cpi: &str) {
    let mut more = director.world.stemcells.clone();
    more.retain(|row| row.stemcell.cpi.as_str().is_empty());
    more.iter_mut().for_each(|row| {
        row.stemcell.cpi = cpi.into();
        row.stemcell.cid = format!("{cpi}-{}", row.stemcell.cid).as_str().into();
    });
    director.world.stemcells.extend(more);
}

#[test]
fn every_zone_in_use_names_a_cloud_that_there_is() {
    let mut director = Director::new(&with_zones(["east", "", "west"]));
    put_cpis(&mut director, &json!([{"name": "east", "type": "google"}]));
    assert_eq!(director.refusal(&manifest(&[group(1)])), 550001);
    let mut only = group(1);
    only["azs"] = json!(["z3"]);
    let told = director.complaint(&manifest(&[only.clone()])).1;
    assert!(told.contains("CPI 'west' of AZ 'z3'"), "{told}");
    upload_to(&mut director, "east");
    only["azs"] = json!(["z1"]);
    director.plan(&manifest(&[only.clone()])).unwrap();
    director.world.configs.iter_mut().find(|config| config.kind == "cpi").unwrap().deleted = true;
    let told = director.complaint(&manifest(&[only])).1;
    assert!(told.contains("no CPI config is defined"), "{told}");
}

#[test]
fn instances_are_made_from_the_stemcell_that_their_own_cloud_has() {
    let mut director = Director::new(&with_zones(["east", "west", "east"]));
    put_cpis(&mut director, &json!([{"name": "east", "type": "google"}, {"name": "west", "type": "aws"}]));
    upload_to(&mut director, "east");
    let three = manifest(&[group(3)]);
    let told = director.complaint(&three);
    assert!(told.0 == 50003 && told.1.contains("was not uploaded to CPI 'west'"), "{told:?}");
    upload_to(&mut director, "west");
    director.deploy(&three);
    for instance in director.instances() {
        let spec = &instance.spec;
        let wanted = if spec.az.as_ref().is_some_and(|az| az.as_str() == "z2") { "west" } else { "east" };
        assert_eq!(spec.cpi.as_str(), wanted);
        assert!(spec.stemcell.cid.as_str().starts_with(wanted), "{}", spec.stemcell.cid);
    }
}

#[test]
fn a_cloud_that_is_renamed_keeps_its_stemcells_and_nothing_is_made_anew() {
    let mut director = Director::new(&cloud_config());
    let two = manifest(&[group(2)]);
    director.deploy(&two);
    put_cpis(&mut director, &json!([{"name": "east", "type": "google", "migrated_from": [{"name": ""}]}]));
    director.world.put_config("cloud", "default", with_zones(["east"; 3]).to_string());
    let plan = director.deploy(&two);
    let names: Vec<&str> = plan.units().flat_map(|unit| &unit.steps).map(|step| step.action.name()).collect();
    assert_eq!(names, ["save_instance", "save_instance", "save_deployment"], "the same VMs under a new name");
    assert!(is_empty(&director.deploy(&two)));
}
