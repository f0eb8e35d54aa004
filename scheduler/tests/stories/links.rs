//! Links that are there, missing, or asked for in vain.

use model::task::DeployOptions;
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest};
use crate::perform::{Faults, perform};

fn client(consumes: Value) -> Value {
    let mut client = group(1);
    client["jobs"] = json!([{"name": "client", "release": "golden", "consumes": consumes}]);
    manifest(&[client])
}

#[test]
fn an_optional_link_may_be_missing_unless_the_manifest_mentions_it() {
    let mut director = Director::new(&cloud_config());
    let by_hand = json!({"instances": [], "properties": {}});
    // The golden release's client needs `endpoint` and would like `db`.
    director.plan(&client(json!({"endpoint": by_hand}))).unwrap();
    director.plan(&client(json!({"endpoint": by_hand, "db": "nil"}))).unwrap();
    for mention in [json!({}), json!({"from": "db"}), json!({"ip_addresses": true})] {
        let complaint = director.complaint(&client(json!({"endpoint": by_hand, "db": mention})));
        assert!(complaint.1.contains("Failed to resolve link 'db'"), "{}", complaint.1);
    }
}

#[test]
fn a_shared_link_brings_names_of_its_provider() {
    let mut director = Director::new(&cloud_config());
    director.world.variables.available = true;
    let mut server = group(2);
    server["jobs"][0]["properties"] = json!({"greeting": "((pw))-((/shared/all.key))"});
    server["jobs"][0]["provides"] = json!({"endpoint": {"as": "api", "shared": true}});
    let mut provider = manifest(&[server]);
    provider["name"] = json!("db");
    let view = director.world.view(&"db".into(), &[]);
    let (draft, plan) = director.plan_both(&view, &provider, &DeployOptions::default()).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    assert_eq!(draft.references.own, names(&["/TestDirector/db/pw", "/shared/all"]));
    perform(&mut director.world, &plan, &Faults::default());

    let mut consumer = group(1);
    consumer["jobs"] = json!([{
        "name": "client", "release": "golden", "properties": {"note": "((pw))"},
        "consumes": {"endpoint": {"from": "api", "deployment": "db"}},
    }]);
    consumer["env"] = json!({"((key))": "x"});
    let view = director.view();
    let (draft, _) =
        director.plan_both(&view, &manifest(&[consumer.clone()]), &DeployOptions::default()).unwrap();
    let link = &draft.instances[0].spec.jobs[0].links["endpoint"];
    assert_eq!((&link["deployment_name"], &link["properties"]["port"]), (&json!("db"), &json!(8080)));
    assert_eq!(link["instances"].as_array().unwrap().len(), 2);
    assert_eq!(draft.references.own, names(&["/TestDirector/p/key", "/TestDirector/p/pw"]));
    let linked = [("db".into(), names(&["/TestDirector/db/pw", "/shared/all"]))].into();
    assert_eq!(draft.references.linked, linked);

    consumer["jobs"][0]["consumes"]["endpoint"]["from"] = json!("endpoint");
    let complaint = director.complaint(&manifest(&[consumer]));
    assert!(complaint.1.contains("No link providers found"), "{}", complaint.1);
}
