//! Links that are there, missing, or asked for in vain.

use std::collections::BTreeMap;

use model::dns::DnsSubject;
use model::instance::InstanceSpec;
use model::link::LinkPlace;
use model::plan::Change;
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

/// What the client in `text` sees of its link, after a plan.
fn seen(director: &mut Director, manifest: &Value) -> Value {
    let view = director.view();
    let (draft, _) = director.plan_both(&view, manifest, &DeployOptions::default()).unwrap();
    let is_client = |spec: &&model::instance::InstanceSpec| spec.jobs[0].name.as_str() == "client";
    let client = draft.instances.iter().map(|i| &i.spec).find(is_client).unwrap();
    client.jobs[0].links["endpoint"].clone()
}

fn addresses(link: &Value) -> Vec<String> {
    let members = link["instances"].as_array().unwrap().iter();
    members.map(|member| member["address"].as_str().unwrap().to_owned()).collect()
}

/// A cloud with a second network `b`.
fn two_networks() -> Value {
    let mut config = cloud_config();
    let subnet = json!({"range": "10.20.0.0/24", "gateway": "10.20.0.1", "azs": ["z1", "z2", "z3"]});
    config["networks"].as_array_mut().unwrap().push(json!({"name": "b", "subnets": [subnet]}));
    config
}

/// A deployment with one server in both networks and a client that consumes its link like this.
fn server_and_client(consume: &Value) -> Value {
    let mut server = group(1);
    server["azs"] = json!(["z1"]);
    server["networks"] = json!([{"name": "a", "default": ["dns", "gateway"]}, {"name": "b"}]);
    server["jobs"][0]["provides"] = json!({"endpoint": {"as": "front", "shared": true}});
    let mut client = group(1);
    client["name"] = json!("c");
    client["jobs"] = json!([{"name": "client", "release": "golden", "consumes": {"endpoint": consume}}]);
    manifest(&[server, client])
}

#[test]
fn a_consumer_says_in_which_network_and_how_it_is_told_addresses() {
    let (ip_a, ip_b) = ("10.1.0.2", "10.20.0.2");
    for (dns, consume, wanted) in [
        (false, json!({"from": "front"}), ip_a),
        (false, json!({"from": "front", "network": "b"}), ip_b),
        (false, json!({"from": "front", "ip_addresses": true}), ip_a),
        (false, json!({"from": "front", "ip_addresses": false}), ".g.a.p.bosh"),
        (true, json!({"from": "front"}), ".g.a.p.bosh"),
        (true, json!({"from": "front", "network": "b"}), ".g.b.p.bosh"),
        (true, json!({"from": "front", "network": "b", "ip_addresses": true}), ip_b),
        (true, json!({"from": "front", "network": "b", "ip_addresses": false}), ".g.b.p.bosh"),
    ] {
        let mut director = Director::new(&two_networks());
        director.world.director.local_dns = true;
        director.world.director.use_dns_addresses = dns;
        let link = seen(&mut director, &server_and_client(&consume));
        let address = &addresses(&link)[0];
        assert!(address.ends_with(wanted), "{dns} {consume}: {address}");
        // `link('endpoint').address` asks for that network, too.
        let network = consume.get("network").cloned().unwrap_or(json!("a"));
        assert_eq!(link["default_network"], network, "{dns} {consume}");
    }
}

#[test]
fn a_consumer_in_another_deployment_is_told_addresses_as_it_wants_them() {
    for dns in [false, true] {
        let mut director = Director::new(&two_networks());
        director.world.director.local_dns = true;
        director.world.director.use_dns_addresses = dns;
        let mut provider = server_and_client(&json!({"from": "front"}));
        provider["name"] = json!("db");
        let view = director.world.view(&"db".into(), &[]);
        let plan = director.plan_with(&view, &provider, &DeployOptions::default()).unwrap();
        perform(&mut director.world, &plan, &Faults::default());
        let consumer = |how: Value| {
            let mut consume = json!({"from": "front", "deployment": "db"});
            consume.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
            let mut client = group(1);
            client["jobs"] =
                json!([{"name": "client", "release": "golden", "consumes": {"endpoint": consume}}]);
            manifest(&[client])
        };
        for (how, wanted) in [
            (json!({}), if dns { ".g.a.db.bosh" } else { "10.1.0.2" }),
            (json!({"ip_addresses": true}), "10.1.0.2"),
            (json!({"ip_addresses": false}), ".g.a.db.bosh"),
            (json!({"ip_addresses": true, "network": "b"}), "10.20.0.2"),
            (json!({"ip_addresses": false, "network": "b"}), ".g.b.db.bosh"),
        ] {
            let told = addresses(&seen(&mut director, &consumer(how.clone())));
            assert!(told[0].ends_with(wanted), "{dns} {how}: {told:?}");
        }
    }
}

#[test]
fn what_comes_before_a_dot_in_the_name_of_a_link_is_passed_over() {
    let mut director = Director::new(&two_networks());
    let link = seen(&mut director, &server_and_client(&json!({"from": "p.front"})));
    assert_eq!(link["instance_group"], json!("g"));
}

#[test]
fn a_link_that_no_release_offers_can_be_offered_by_the_manifest() {
    let mut director = Director::new(&cloud_config());
    let mut server = group(1);
    // The release's own offer is withdrawn, and another one of that type takes its place.
    server["jobs"][0]["provides"] = json!({"endpoint": "nil", "mine": {"as": "other", "shared": true}});
    server["jobs"][0]["custom_provider_definitions"] =
        json!([{"name": "mine", "type": "http", "properties": ["port"]}]);
    let mut client = group(1);
    client["name"] = json!("c");
    client["jobs"] = json!([{"name": "client", "release": "golden"}]);
    let link = seen(&mut director, &manifest(&[server.clone(), client.clone()]));
    assert_eq!(link["properties"], json!({"port": 1}));

    let view = director.view();
    let both = manifest(&[server, client]);
    let (draft, _) = director.plan_both(&view, &both, &DeployOptions::default()).unwrap();
    let links = draft.record.planned_links.unwrap();
    let offers: Vec<_> = links.offers.iter().map(|o| (&o.name[..], &o.alias[..], o.shared)).collect();
    assert_eq!(offers, [("endpoint", "endpoint", false), ("mine", "other", true)]);
    let source = links.wants[0].source.as_ref().unwrap();
    assert_eq!((&source.name[..], &links.wants[0].alias[..]), ("mine", "endpoint"));
}

#[test]
fn all_links_are_listed_with_who_offers_and_who_wants_them() {
    let mut director = Director::new(&cloud_config());
    let mut server = group(1);
    server["jobs"][0]["provides"] = json!({"endpoint": {"as": "front"}});
    let mut client = group(1);
    client["name"] = json!("c");
    client["migrated_from"] = json!([{"name": "old"}]);
    client["jobs"] = json!([{
        "name": "client", "release": "golden",
        "consumes": {"endpoint": {"instances": [], "address": "db.example"}},
    }]);
    let view = director.view();
    let both = manifest(&[server, client]);
    let (draft, plan) = director.plan_both(&view, &both, &DeployOptions::default()).unwrap();
    let links = draft.record.planned_links.clone().unwrap();
    let kinds: Vec<&str> = links.offers.iter().map(|offer| offer.owner.kind.name()).collect();
    assert_eq!(kinds, ["job", "manual"]);
    assert_eq!(links.offers[1].place, LinkPlace::ByHand { address: Some("db.example".into()) });
    let wants: Vec<(&str, bool, bool)> =
        links.wants.iter().map(|w| (&w.name[..], w.optional, w.source.is_some())).collect();
    assert_eq!(wants, [("endpoint", false, true), ("db", true, false)]);
    assert_eq!(links.wants[0].former_groups, ["old".into()]);
    assert_eq!(plan.record.unwrap().planned_links, draft.record.planned_links);
}

#[test]
fn a_certificate_that_is_named_after_a_link_consumes_it() {
    let mut director = Director::new(&cloud_config());
    director.world.variables.available = true;
    let mut server = group(1);
    server["jobs"][0]["custom_provider_definitions"] = json!([{"name": "addr", "type": "address"}]);
    let mut with_certificate = manifest(&[server]);
    with_certificate["variables"] = json!([{
        "name": "cert", "type": "certificate", "options": {"common_name": "x"},
        "consumes": {"alternative_name": {"from": "addr"}},
    }]);
    let view = director.view();
    let (draft, _) = director.plan_both(&view, &with_certificate, &DeployOptions::default()).unwrap();
    let links = draft.record.planned_links.unwrap();
    let want = &links.wants[0];
    assert_eq!(
        (want.owner.kind.name(), &want.owner.name[..], &want.owner.group),
        ("variable", "cert", &None)
    );
    assert_eq!((&want.name[..], &want.alias[..], &want.kind[..]), ("alternative_name", "addr", "address"));
    assert_eq!(want.source.as_ref().unwrap().name, "addr");
}

/// Why clients are touched.
fn changes_of_clients(plan: &model::plan::Plan) -> Vec<Change> {
    let jobs = |target: &model::plan::Target| target.spec.jobs.first().map(|job| job.name.to_string());
    let clients = plan.targets.iter().filter(|target| jobs(target).as_deref() == Some("client"));
    clients.flat_map(|target| target.changes.clone()).collect()
}

#[test]
fn trap_13_a_provider_that_grows_changes_its_consumers_in_the_same_deploy() {
    let mut director = Director::new(&two_networks());
    let mut both = server_and_client(&json!({"from": "front"}));
    director.deploy(&both);
    assert_eq!(changes_of_clients(&director.deploy(&both)), [], "nothing has changed");
    both["instance_groups"][0]["instances"] = json!(2);
    // The second instance is not there yet, and has its address already.
    let link = seen(&mut director, &both);
    assert_eq!(addresses(&link), ["10.1.0.2", "10.1.0.4"]);
    assert_eq!(changes_of_clients(&director.deploy(&both)), [Change::Configuration]);
}

#[test]
fn trap_13_a_consumer_in_another_deployment_hears_of_it_at_its_own_next_deploy() {
    let mut director = Director::new(&two_networks());
    let mut provider = server_and_client(&json!({"from": "front"}));
    provider["name"] = json!("db");
    let mut grow = |director: &mut Director, instances: usize| {
        provider["instance_groups"][0]["instances"] = json!(instances);
        let view = director.world.view(&"db".into(), &[]);
        let plan = director.plan_with(&view, &provider, &DeployOptions::default()).unwrap();
        assert!(plan.targets.iter().all(|target| target.spec.deployment.as_str() == "db"));
        perform(&mut director.world, &plan, &Faults::default());
    };
    grow(&mut director, 1);
    let mut client = group(1);
    let consume = json!({"endpoint": {"from": "front", "deployment": "db"}});
    client["jobs"] = json!([{"name": "client", "release": "golden", "consumes": consume}]);
    let consumer = manifest(&[client]);
    director.deploy(&consumer);
    grow(&mut director, 2);
    assert_eq!(changes_of_clients(&director.deploy(&consumer)), [Change::Configuration]);
    assert_eq!(changes_of_clients(&director.deploy(&consumer)), [], "it has heard of it");
}

#[test]
fn short_names_tell_the_numbers_of_instance_network_and_group_or_link() {
    for (features, link_group, own_group) in [
        (json!({"use_dns_addresses": true, "use_short_dns_addresses": true}), "g", "g"),
        (json!({"use_link_dns_names": true}), "front-http", "g"),
    ] {
        let mut director = Director::new(&two_networks());
        director.world.director.local_dns = true;
        let mut wanted = server_and_client(&json!({"from": "front"}));
        wanted["features"] = features.clone();
        // Until there are numbers the long names stand there.
        let view = director.world.view(&"p".into(), &[]);
        let (text, options) = (wanted.to_string(), DeployOptions::default());
        let mut input = view.input(&director.world, &text, &options);
        let draft = scheduler::draft(&input).unwrap();
        let numbers: BTreeMap<DnsSubject, u32> = draft.unnumbered.iter().cloned().zip(11..).collect();
        input.dns_numbers = &numbers;
        let settled = scheduler::draft(&input).unwrap();
        assert!(settled.unnumbered.is_empty());
        let specs: Vec<&InstanceSpec> = settled.to_render().collect();
        let of = |group: &str| specs.iter().find(|spec| spec.group.as_str() == group).unwrap();
        let (server, client) = (of("g"), of("c"));
        let number = |subject: DnsSubject| numbers[&subject];
        let group = |name: &str| match name.contains('-') {
            true => number(DnsSubject::Link("p".into(), name.into())),
            false => number(DnsSubject::Group("p".into(), name.into())),
        };
        let name = |of: &str| {
            let instance = number(DnsSubject::Instance("p".into(), server.id.clone()));
            let network = number(DnsSubject::Network("a".into()));
            format!("q-m{instance}n{network}s0.q-g{}.bosh", group(of))
        };
        let link = &client.jobs[0].links["endpoint"];
        assert_eq!(link["instances"][0]["address"], json!(name(link_group)), "{features}");
        assert_eq!(server.address, Some(name(own_group)), "{features}");
    }
}
