//! A stand-in for Ruby: what the golden release's templates print, as one text per job.
//!
//! It reads exactly what those templates read, so that a property which nobody prints changes nothing.

use std::collections::BTreeMap;

use model::instance::{InstanceSpec, JobSpec};
use scheduler::RenderedHashes;
use serde_json::{Value, json};

use super::world::World;

/// Renders all jobs of an instance, with the secrets that the world knows.
pub fn render(spec: &InstanceSpec, world: &World) -> RenderedHashes {
    let text = |j: &JobSpec| world.reveal_known(&job(spec, j), &spec.deployment).to_string();
    let texts: BTreeMap<_, _> = spec.jobs.iter().map(|j| (j.name.clone(), text(j))).collect();
    let all: Vec<String> = texts.iter().map(|(name, text)| format!("{name}:{text}")).collect();
    RenderedHashes { configuration_hash: all.join("\n"), template_hashes: texts }
}

fn job(spec: &InstanceSpec, job: &JobSpec) -> Value {
    let p = |path: &str| job.properties.pointer(&format!("/{}", path.replace('.', "/"))).cloned();
    match job.name.as_str() {
        "server" => json!([
            spec.group,
            spec.index,
            spec.bootstrap,
            p("port"),
            p("greeting"),
            p("secret"),
            p("pre_start_seconds"),
            p("fail_pre_start"),
        ]),
        "store" => json!([p("db.name")]),
        "check" => json!([p("exit_code"), p("seconds")]),
        "client" => {
            let link = |name: &str| job.links.get(name).map(|l| json!([l["properties"], l["instances"]]));
            json!([p("note"), link("endpoint"), link("db")])
        }
        "dump" => json!([
            p("a"),
            p("b.c"),
            spec.group,
            spec.index,
            spec.id,
            spec.az,
            spec.bootstrap,
            spec.deployment,
            spec.persistent_disk.as_ref().map(|d| d.size_mib),
            job.release.version,
            spec.networks,
        ]),
        other => panic!("no stand-in for the templates of job {other}"),
    }
}
