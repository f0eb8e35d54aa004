//! Bad manifests: which mistake the reference told the operator, and in which words. Each was recorded from a deploy
//! by the CLI; texts are compared to the letter, since people search for them.

#![allow(clippy::unwrap_used, reason = "test support: a panic here is the report")]
#![allow(dead_code, reason = "the world is shared with the golden tests, which use all of it")]

#[path = "golden/fixture.rs"]
mod fixture;
#[path = "golden/world.rs"]
mod world;

use model::DeploymentName;
use model::task::{DeployOptions, TaskError};
use serde_json::Value;
use world::World;

/// Cases whose error the planner does not raise, or not like this, and why.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "too-many-for-tiny",
        "a row of an earlier failed deploy blocks an index in the reference; ours leaves none",
    ),
    ("unresolved-variable", "found while templates are rendered, which is not the planner's part"),
];

fn refusal(cloud_config: &str, manifest: &str) -> Option<TaskError> {
    let mut world = World::new();
    world.put_config("cloud", "default", cloud_config.to_owned());
    let view = world.view(&DeploymentName::from("bad"), &[]);
    let options = DeployOptions::default();
    let input = view.input(&world, manifest, &options);
    scheduler::draft(&input).err()
}

/// UUIDs are made up anew every time.
fn without_uuids(message: &str) -> String {
    let is_uuid = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let words = message.split_inclusive(['/', ' ', '\'']);
    words
        .map(|word| {
            let bare = word.trim_end_matches(['/', ' ', '\'']);
            if is_uuid(bare) { word.replace(bare, "<uuid>") } else { word.to_owned() }
        })
        .collect()
}

#[test]
fn bad_manifests_are_refused_in_the_reference_s_words() {
    let path = format!("{}/tests/golden/manifest_errors.json", env!("CARGO_MANIFEST_DIR"));
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    let (mut agreed, mut complaints) = (0, Vec::new());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let ours = refusal(recorded["cloud_config"].as_str().unwrap(), case["manifest"].as_str().unwrap());
        let ours = ours.map(|e| (u64::from(e.code), without_uuids(&e.message)));
        let wanted = case["error"]["code"]
            .as_u64()
            .map(|code| (code, without_uuids(case["error"]["message"].as_str().unwrap())));
        match (ours == wanted, DIFFERENT.iter().find(|(listed, _)| *listed == name)) {
            (true, None) => agreed += 1,
            (false, Some(_)) => {}
            (true, Some((_, why))) => complaints.push(format!("{name} agrees, but is listed: {why}")),
            (false, None) => complaints.push(format!("{name}:\n  ours     {ours:?}\n  recorded {wanted:?}")),
        }
    }
    println!("{agreed} of {} bad manifests agree", cases.len());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
