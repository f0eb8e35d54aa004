//! The planner against 81 scenarios recorded from the reference director.
//!
//! Each scenario is a series of deploys. The runner plans every step, carries the plan out on a world in memory, and
//! compares: error, instances, what was deleted, progress, reasons, the CPI's and each agent's calls. Scenarios that
//! do not pass are listed with the reason; one that starts to pass must leave the list.
//!
//! `RECORDED` may name another folder with a `planning/` inside.

#![allow(clippy::unwrap_used, reason = "test support: a panic here is the report")]

#[path = "golden/adopt.rs"]
mod adopt;
#[path = "golden/compare.rs"]
mod compare;
#[path = "golden/fixture.rs"]
mod fixture;
#[path = "golden/perform.rs"]
mod perform;
#[path = "golden/recorded.rs"]
mod recorded;
#[path = "golden/render.rs"]
mod render;
#[path = "golden/runner.rs"]
mod runner;
#[path = "golden/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Scenarios that differ from the reference, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("dns-addresses", "short DNS names are refused by name in this release"),
    ("dry-run-rows", "a dry run of the reference leaves rows behind that block indexes; ours writes nothing"),
    ("hotswap", "create-swap-delete is refused by name in this release"),
    ("migrated-from-az", "its last step fails over rows that a dry run left behind; ours writes nothing"),
];

/// How many scenarios there are.
const SCENARIOS: usize = 81;

/// Steps that are left out of a scenario whose other steps all agree, and why. Each of them fails in the reference, or
/// is undone by the next step, so the rest still means something.
const LEFT_OUT: &[(&str, usize, &str)] = &[
    ("unresolved-variables", 0, "fails while templates are rendered, which is not the planner's part"),
    ("unresolved-variables", 1, "fails when the VM is created, where its env is resolved"),
    ("variables-errors", 0, "fails while templates are rendered"),
    ("variables-errors", 1, "fails while templates are rendered"),
    ("variables-errors", 2, "fails while templates are rendered"),
    ("variables-errors", 3, "fails while templates are rendered"),
    ("variables-errors", 8, "fails while templates are rendered"),
    ("vip-network", 3, "fails while templates are rendered, which is not the planner's part"),
];

fn folder() -> PathBuf {
    match std::env::var_os("RECORDED") {
        Some(root) => PathBuf::from(root).join("planning"),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/planning"),
    }
}

#[test]
fn plans_as_the_reference_does() {
    let only = std::env::var_os("SCENARIO").map(|s| s.to_string_lossy().into_owned());
    let different: BTreeMap<&str, &str> = DIFFERENT.iter().copied().collect();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder()).expect("recordings").map(|e| e.unwrap().path()).collect();
    paths.sort();
    let (mut passed, mut complaints) = (0, Vec::new());
    for path in &paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|o| *o != name) {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let left_out: Vec<usize> =
            LEFT_OUT.iter().filter(|(scenario, _, _)| *scenario == name).map(|(_, step, _)| *step).collect();
        let scenario = serde_json::from_str(&text).expect("valid recording");
        let verdict = runner::run(&scenario, &left_out);
        match (verdict, different.get(name.as_str())) {
            (Ok(()), None) => passed += 1,
            (Ok(()), Some(reason)) => complaints.push(format!("{name} passes now, but is listed: {reason}")),
            (Err(_), Some(_)) if only.is_none() => {}
            (Err(why), _) => complaints.push(format!("{name}: {why}")),
        }
    }
    println!("{passed} of {} scenarios pass, {} are listed as different", paths.len(), DIFFERENT.len());
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    // An empty folder agrees with everybody. Our own must have all scenarios; another one, some.
    let least = match (&only, std::env::var_os("RECORDED")) {
        (None, None) => SCENARIOS - DIFFERENT.len(),
        _ => 1,
    };
    assert!(passed >= least, "only {passed} scenarios pass in {}", folder().display());
}
