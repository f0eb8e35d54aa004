//! What this release cannot do is refused by name, never passed over.

use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest};

fn complaint(director: &mut Director, pointer: &str, key: &str, value: Value) -> String {
    let mut manifest = manifest(&[group(1)]);
    manifest.pointer_mut(pointer).unwrap()[key] = value;
    director.complaint(&manifest).1
}

#[test]
fn dns_names_need_local_dns() {
    let mut director = Director::new(&cloud_config());
    for feature in ["use_dns_addresses", "use_short_dns_addresses", "use_link_dns_names"] {
        let told = complaint(&mut director, "", "features", json!({ feature: true }));
        assert!(told.contains(&format!("'{feature}'")), "{told}");
        let mut off = manifest(&[group(1)]);
        off["features"] = json!({ feature: false });
        director.plan(&off).unwrap();
    }
    director.world.director.local_dns = true;
    for feature in ["use_dns_addresses", "use_short_dns_addresses", "use_link_dns_names"] {
        let mut names = manifest(&[group(1)]);
        names["features"] = json!({ feature: true });
        director.plan(&names).unwrap();
    }
}

#[test]
fn addons_for_teams_are_refused_where_they_would_count() {
    let addon = |filter: &str| json!({"name": "x", "jobs": [{"name": "check", "release": "golden"}], filter: {"teams": ["a"]}});
    let mut director = Director::new(&cloud_config());
    for filter in ["include", "exclude"] {
        let config = json!({"releases": [{"name": "golden", "version": "1"}], "addons": [addon(filter)]});
        director.world.put_config("runtime", "default", config.to_string());
        let told = director.complaint(&manifest(&[group(1)])).1;
        assert!(told.contains("'teams'"), "{told}");
    }
    director.world.configs.retain(|c| c.kind != "runtime");
    let mut own = manifest(&[group(1)]);
    own["addons"] = json!([addon("include")]);
    director.plan(&own).unwrap();
}

#[test]
fn dns_aliases_of_links_that_make_no_sense_are_refused() {
    let mut director = Director::new(&cloud_config());
    for aliases in [json!("api.internal"), json!([{"health_filter": "all"}]), json!(["api.internal"])] {
        let provides = json!({"endpoint": {"as": "api", "aliases": aliases}});
        let told = complaint(&mut director, "/instance_groups/0/jobs/0", "provides", provides);
        assert!(told.contains("'aliases'") && told.contains("link 'endpoint' in job 'server'"), "{told}");
    }
}
