//! From the recorded release to the hashes that the reference director sent to agents in its recorded deploys.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod recorded;

use recorded::recorded;
use release::archive::{ImportedRelease, JobArchive, KnownParts};
use release::blobstore::MemorySink;
use release::render::{DnsIds, LinkGroup, RenderContext};
use release::{ReleaseArchive, RenderOptions, RenderedInstance, Renderer};
use serde_json::{Value, json};

fn golden() -> (ImportedRelease, MemorySink) {
    let mut sink = MemorySink::default();
    let archive = ReleaseArchive::open(recorded("release/golden-1.tgz")).unwrap();
    (archive.import(&KnownParts::default(), &mut sink).unwrap(), sink)
}

/// Renders one job as the only one of its group. Properties are those of the manifest over the job's defaults.
async fn render(
    group: &str,
    index: u32,
    job: &str,
    given: Value,
    links: &[(&str, &str, &str)],
) -> RenderedInstance {
    let (release, sink) = golden();
    let info = release.jobs.iter().find(|j| j.name.as_str() == job).unwrap();
    let archive = JobArchive::read(&info.name, &sink.blobs[&info.blob][..]).unwrap();
    let templates = archive.templates(&release.release).unwrap();
    let mut properties = json!({});
    for property in &info.properties {
        let mut at = &mut properties;
        let mut value = &given;
        for key in property.name.split('.') {
            at = &mut at[key];
            value = &value[key];
        }
        *at = if value.is_null() { property.default.clone().unwrap_or_default() } else { value.clone() };
    }
    let spec = json!({"deployment": "web", "name": group, "index": index, "bootstrap": index == 0,
        "job": {"name": group}, "properties_need_filtering": true, "properties": {job: properties}, "links": {}});
    let link = |(name, kind, group): &(&str, &str, &str)| LinkGroup {
        name: (*name).into(),
        kind: (*kind).into(),
        group: (*group).into(),
    };
    let context = RenderContext::new(&spec, links.iter().map(link).collect());
    let renderer = Renderer::start(RenderOptions::default()).await.unwrap();
    renderer.render_instance(group, &DnsIds::default(), &[(&templates, context)]).await.unwrap()
}

#[track_caller]
fn check(rendered: &RenderedInstance, job: &str, template_hash: &str, configuration_hash: &str) {
    assert_eq!(rendered.template_hashes()[job], template_hash);
    assert_eq!(rendered.configuration_hash(), configuration_hash);
}

#[tokio::test]
async fn a_job_without_links_has_the_recorded_hashes() {
    let rendered = render("smoke", 0, "check", json!({}), &[]).await;
    let (template, configuration) =
        ("042b37c3d7cf7ff75f47d1a7f6caeb9897ca744d", "55e8c4e937539fb109acaaaef19ea6d20394b30d");
    check(&rendered, "check", template, configuration);
}

#[tokio::test]
async fn a_provided_link_is_part_of_the_recorded_hashes() {
    let rendered = render("db", 0, "store", json!({"db": {"name": "one"}}), &[("db", "database", "5")]).await;
    let (template, configuration) =
        ("e60b0a2d1cae562208b2ff876dc0c3ce68ab2513", "51f4f887c53ecadeff9bcbd4c39988d6f91c0c14");
    check(&rendered, "store", template, configuration);
}

#[tokio::test]
async fn several_templates_are_hashed_in_the_recorded_order() {
    for (index, template, configuration) in [
        (0, "c9e9ba487d4963e8c78ea959473b9c076f301ddf", "ede79c5631af01b4cee409c926afeeffd7d471e3"),
        (1, "18a8d38ee5605757f402ff591689bb4a3a2a8080", "89f28c6722a11be3d7b54cb4d2de07b8d8e5a4b7"),
    ] {
        let rendered =
            render("api", index, "server", json!({"port": 80}), &[("endpoint", "http", "4")]).await;
        check(&rendered, "server", template, configuration);
    }
}
