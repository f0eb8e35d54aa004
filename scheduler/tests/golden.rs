//! The planner against 81 scenarios recorded from the reference director.
//!
//! Each scenario is a series of deploys. The runner plans every step, carries the plan out on a world in memory, and
//! compares: error, instances, what was deleted, progress, reasons, the CPI's and each agent's calls. Scenarios that
//! do not pass are listed with the reason and how it shows; one that starts to pass must leave the list.
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

use std::path::PathBuf;

use serde_json::Value;

/// A scenario that differs from the reference.
struct Different {
    scenario: &'static str,
    why: &'static str,
    /// What shows that it differs for this reason and no other.
    shows: &'static str,
}

const DIFFERENT: &[Different] = &[
    Different {
        scenario: "dry-run-rows",
        why: "a dry run of the reference leaves rows behind that block indexes; ours writes nothing",
        shows: "step 1 (real deploy of something else): instances",
    },
    Different {
        scenario: "migrated-from-az",
        why: "its last step fails over rows that a dry run left behind; ours writes nothing",
        shows: "step 2 (azs given with migrated_from): error",
    },
];

/// How many scenarios there are.
const SCENARIOS: usize = 81;

/// A step that is left out of a scenario whose other steps all agree. Each of them fails in the reference, so the rest
/// still means something.
struct LeftOut {
    scenario: &'static str,
    step: usize,
    why: &'static str,
    /// What the reference said.
    error: &'static str,
}

const RENDERING: &str = "fails while templates are rendered, which is not the planner's part";

const LEFT_OUT: &[LeftOut] = &[
    left_out("unresolved-variables", 0, RENDERING, "Unable to render templates for job 'server'"),
    left_out("variables-errors", 0, RENDERING, "Unable to render templates for job 'dump'"),
    left_out("variables-errors", 1, RENDERING, "Unable to render templates for job 'dump'"),
    left_out("variables-errors", 2, RENDERING, "Unable to render templates for job 'dump'"),
    left_out("variables-errors", 3, RENDERING, "Unable to render templates for job 'dump'"),
    left_out("variables-errors", 8, RENDERING, "Unable to render templates for job 'dump'"),
    left_out("vip-network", 3, RENDERING, "Unable to render jobs for instance group 'g'"),
];

const fn left_out(scenario: &'static str, step: usize, why: &'static str, error: &'static str) -> LeftOut {
    LeftOut { scenario, step, why, error }
}

fn folder() -> PathBuf {
    match std::env::var_os("RECORDED") {
        Some(root) => PathBuf::from(root).join("planning"),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/planning"),
    }
}

/// Whether the recordings are our own, whose every step the lists above know.
fn are_our_own() -> bool {
    std::env::var_os("RECORDED").is_none()
}

/// Runs a scenario and returns what there is to complain of; none if it agrees.
fn judge(name: &str, scenario: &Value) -> Vec<String> {
    let left_out: Vec<&LeftOut> = LEFT_OUT.iter().filter(|l| l.scenario == name).collect();
    let steps: Vec<usize> = left_out.iter().map(|l| l.step).collect();
    let verdict = runner::run(scenario, &steps);
    let mut complaints = match verdict.agreement {
        Ok(()) => Vec::new(),
        Err(why) => vec![format!("{name}: {why}")],
    };
    if are_our_own() {
        for LeftOut { step, why, error, .. } in left_out {
            if verdict.left_out_in_vain.contains(step) {
                complaints.push(format!("{name}: step {step} agrees now, but is left out: {why}"));
            }
            let recorded = &scenario["steps"][step]["outcome"]["error"]["message"];
            if !recorded.as_str().is_some_and(|message| message.contains(error)) {
                complaints.push(format!("{name}: step {step} did not fail with `{error}`, but: {recorded}"));
            }
        }
    }
    complaints
}

/// Holds a scenario that is listed to what the list says of it.
fn judge_different(listed: &Different, found: &[String]) -> Vec<String> {
    let Different { scenario, why, shows } = listed;
    if found.is_empty() {
        return vec![format!("{scenario} passes now, but is listed: {why}")];
    }
    let is_other = |complaint: &&String| are_our_own() && !complaint.contains(shows);
    let others = found.iter().filter(is_other);
    others.map(|other| format!("{other}\n  but is listed, and should show `{shows}`: {why}")).collect()
}

#[test]
fn plans_as_the_reference_does() {
    let only = std::env::var_os("SCENARIO").map(|s| s.to_string_lossy().into_owned());
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
        let found = judge(&name, &serde_json::from_str(&text).expect("valid recording"));
        let listed = DIFFERENT.iter().find(|d| d.scenario == name);
        passed += usize::from(found.is_empty() && listed.is_none());
        complaints.extend(match listed {
            // Whoever asks for it alone wants to see the difference.
            Some(listed) if only.is_none() => judge_different(listed, &found),
            _ => found,
        });
    }
    println!("{passed} of {} scenarios pass, {} are listed as different", paths.len(), DIFFERENT.len());
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    // An empty folder agrees with everybody. Our own must have all scenarios; another one, some.
    let least = if only.is_none() && are_our_own() { SCENARIOS - DIFFERENT.len() } else { 1 };
    assert!(passed >= least, "only {passed} scenarios pass in {}", folder().display());
}

#[test]
fn the_lists_name_what_was_recorded() {
    if !are_our_own() {
        println!(
            "skipped: the lists are about our own recordings, not about those in {}",
            folder().display()
        );
        return;
    }
    let named = DIFFERENT.iter().map(|d| d.scenario).chain(LEFT_OUT.iter().map(|l| l.scenario));
    for name in named {
        assert!(folder().join(name).with_extension("json").is_file(), "'{name}' is listed, but no recording");
    }
}
