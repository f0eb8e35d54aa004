//! Ignored instances stay as they are, whatever the manifest wants.

use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, is_empty, manifest};

fn listing(ips: &[&str]) -> Value {
    let mut group = group(ips.len());
    group["networks"] = json!([{"name": "a", "static_ips": ips}]);
    manifest(&[group])
}

const THREE: [&str; 3] = ["10.1.0.100", "10.2.0.100", "10.3.0.100"];

fn with_second_ignored() -> Director {
    let mut director = Director::new(&cloud_config());
    director.deploy(&listing(&THREE));
    assert_eq!(director.seats(), ["0 z1 10.1.0.100", "1 z2 10.2.0.100", "2 z3 10.3.0.100"]);
    director.ignore(1);
    director
}

#[test]
fn its_static_address_cannot_be_taken_off_the_list() {
    let mut director = with_second_ignored();
    let complaint = director.complaint(&listing(&["10.1.0.100", "10.3.0.100"]));
    assert_eq!(complaint.0, 190020);
    assert!(complaint.1.contains("'10.2.0.100/32'"), "{}", complaint.1);
    assert_eq!(
        director.refusal(&listing(&["10.1.0.100", "10.2.0.101", "10.3.0.100"])),
        190020,
        "nor replaced"
    );
}

#[test]
fn it_keeps_its_place_when_others_go() {
    let mut director = with_second_ignored();
    assert_eq!(director.refusal(&listing(&[])), 190020);
    director.deploy(&listing(&["10.2.0.100"]));
    assert_eq!(director.seats(), ["1 z2 10.2.0.100"]);
    let mut elsewhere = listing(&["10.1.0.100"]);
    elsewhere["instance_groups"][0]["azs"] = json!(["z1"]);
    assert_eq!(director.refusal(&elsewhere), 190020, "its zone");
}

#[test]
fn an_address_that_was_picked_cannot_be_replaced_by_a_listed_one() {
    let mut director = Director::new(&cloud_config());
    director.deploy(&manifest(&[group(1)]));
    director.ignore(0);
    assert_eq!(director.refusal(&listing(&["10.1.0.100"])), 190020);
}

#[test]
fn its_vip_cannot_be_taken_off_the_list() {
    let mut config = cloud_config();
    config["networks"].as_array_mut().unwrap().push(json!({"name": "float", "type": "vip"}));
    let with = |ips: &[&str]| {
        let mut group = group(2);
        group["networks"] = json!([
            {"name": "a", "default": ["dns", "gateway"]}, {"name": "float", "static_ips": ips},
        ]);
        manifest(&[group])
    };
    let mut director = Director::new(&config);
    director.deploy(&with(&["1.1.1.1", "1.1.1.2"]));
    director.ignore(1);
    assert_eq!(director.refusal(&with(&["1.1.1.1", "1.1.1.3"])), 190020);
    director.deploy(&with(&["1.1.1.2", "1.1.1.3"]));
    assert_eq!(director.seats(), ["0 z1 10.1.0.2 1.1.1.3", "1 z2 10.2.0.2 1.1.1.2"]);
}

#[test]
fn it_holds_no_second_address_when_the_cloud_config_moves_on() {
    let mut director = Director::new(&cloud_config());
    director.deploy(&manifest(&[group(1)]));
    director.ignore(0);
    let mut config = cloud_config();
    config["networks"][0]["subnets"][0]["reserved"] = json!(["10.1.0.2-10.1.0.9"]);
    director.world.put_config("cloud", "default", config.to_string());
    let plan = director.deploy(&manifest(&[group(1)]));
    assert!(is_empty(&plan) && plan.reservations.is_empty(), "{}", scheduler::explain(&plan));
    assert_eq!(director.seats(), ["0 z1 10.1.0.2"]);
    assert_eq!(director.world.addresses.len(), 1);
}
