//! DNS names that templates make for links.

use model::task::{DeployOptions, TaskKind};
use serde_json::{Value, json};

use crate::artifacts::{release_of, tgz};
use crate::world::TestWorld;

/// A release whose job `client` fails unless it gets this name for the link's group in its own zone.
async fn with_release(world: &TestWorld, name: &str) {
    let provides = json!([{"name": "front", "type": "http"}]);
    let site = json!({"name": "site", "templates": {}, "packages": [], "provides": provides});
    let consumes = json!([{"name": "front", "type": "http"}]);
    let templates = json!({"run.erb": "run"});
    let client = json!({"name": "client", "templates": templates, "packages": [], "consumes": consumes});
    let template = format!(
        "<% got = link('front').address(azs: [spec.az]); raise \"it is #{{got}}\" unless got == '{name}' %>"
    );
    let jobs = [
        ("site", tgz(&[("job.MF", &site.to_string()), ("monit", "")])),
        ("client", tgz(&[("job.MF", &client.to_string()), ("monit", ""), ("templates/run.erb", &template)])),
    ];
    let blob = world.put(release_of("linked", &jobs, &[])).await;
    world.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
}

fn deploy() -> TaskKind {
    deploy_with(&json!({}))
}

fn deploy_with(features: &Value) -> TaskKind {
    let group = |name: &str| {
        json!({
            "name": name, "instances": 1, "azs": ["z1"], "vm_type": "small", "stemcell": "default",
            "networks": [{"name": "a"}], "jobs": [{"name": name, "release": "linked"}],
        })
    };
    let groups: Vec<Value> = ["site", "client"].map(group).into();
    let manifest = json!({
        "name": "p", "releases": [{"name": "linked", "version": "1"}],
        "stemcells": [{"alias": "default", "os": "toronto-os", "version": "1"}],
        "update": {"canaries": 1, "max_in_flight": 1, "canary_watch_time": 1, "update_watch_time": 1},
        "instance_groups": groups, "features": features,
    });
    TaskKind::Deploy { manifest_text: manifest.to_string(), options: DeployOptions::default() }
}

#[tokio::test]
async fn a_template_can_ask_for_the_name_of_a_link_in_a_zone() {
    let world = TestWorld::seed().await;
    with_release(&world, "q-a1s0.site.a.p.bosh").await;
    world.run(deploy()).await.done();
    let hash = |world: &TestWorld| {
        world.read(|state| {
            let all = state.instances(&"p".into());
            all.into_iter().map(|i| i.spec.configuration_hash).collect::<Vec<_>>()
        })
    };
    let before = hash(&world);
    let again = world.run(deploy()).await.done();
    assert!(!again.events.contains("Updating instance"), "numbers stay: {}", again.events);
    assert_eq!(hash(&world), before);
    let link = model::dns::DnsSubject::Link("p".into(), "front-http".into());
    assert_eq!(world.read(|state| state.dns_number(&link)), Some(3), "after the two groups");
}

#[tokio::test]
async fn a_deploy_that_went_well_lists_its_links_and_a_later_one_keeps_their_numbers() {
    let world = TestWorld::seed().await;
    with_release(&world, "q-a1s0.site.a.p.bosh").await;
    let listed = |world: &TestWorld| {
        world.read(|state| {
            let p = "p".into();
            let providers: Vec<_> = state.link_providers(&p).map(|row| (row.id.0, row.offer.alias)).collect();
            let consumers: Vec<_> = state.link_consumers(&p).map(|row| (row.id.0, row.alias)).collect();
            (providers, consumers, state.links(&p).collect::<Vec<_>>())
        })
    };
    world.run(deploy()).await.done();
    let first = listed(&world);
    let front = vec![(1, "front".to_owned())];
    assert_eq!((&first.0, &first.1, first.2.len()), (&front, &front, 1));
    assert_eq!(first.2[0].provider, Some(model::LinkProviderId(1)));
    world.run(deploy()).await.done();
    assert_eq!(listed(&world), first);
}

#[tokio::test]
async fn a_name_that_a_template_does_not_expect_fails_the_deploy() {
    let world = TestWorld::seed().await;
    with_release(&world, "q-s0.site.a.p.bosh").await;
    let told = world.run(deploy()).await.error();
    assert!(told.contains("it is q-a1s0.site.a.p.bosh"), "{told}");
    assert!(world.read(|state| state.dns_numbers(&"p".into()).is_empty()), "nothing was accepted");
    assert_eq!(world.read(|state| state.link_providers(&"p".into()).count()), 0);
}

#[tokio::test]
async fn what_short_names_tell_has_its_numbers_before_anything_is_rendered() {
    let world = TestWorld::seed().await;
    *world.local_dns.lock().unwrap() = true;
    world.depose().await;
    world.lead();
    with_release(&world, "q-a1n1s0.q-g3.bosh").await;
    world.run(deploy_with(&json!({"use_link_dns_names": true}))).await.done();
    let (site, number, link) = world.read(|state| {
        let all = state.instances(&"p".into());
        let of = |group: &str| all.iter().find(|i| i.spec.group.as_str() == group).unwrap().spec.clone();
        let subject = model::dns::DnsSubject::Instance("p".into(), of("site").id);
        (of("site"), state.dns_number(&subject).unwrap(), of("client").jobs[0].links["front"].clone())
    });
    assert_eq!(site.address, Some(format!("q-m{number}n1s0.q-g1.bosh")), "by its group");
    assert_eq!(link["instances"][0]["address"], json!(format!("q-m{number}n1s0.q-g3.bosh")), "by the link");
    // The records say the same.
    let records = world.until("there are records", |state| {
        let found = state.dns_records("bosh");
        (state.dns_blob().is_some() && found.unnumbered.is_empty()).then_some(found.records)
    });
    let record = records.await.into_iter().find(|record| record.group == "site").unwrap();
    assert_eq!((record.num_id, record.group_ids), (Some(number.to_string()), vec!["1".into(), "3".into()]));
}
