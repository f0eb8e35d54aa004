//! Links that are there, missing, or asked for in vain.

use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest};

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
