use expect_test::{Expect, expect};

use super::*;

#[track_caller]
fn check(log: &[&str], expect: Expect) {
    let mut transcript = Transcript::new(39);
    let mut text = String::new();
    for piece in log.iter().flat_map(|line| transcript.line(line)) {
        match piece {
            Piece::Line(line) => text.push_str(&format!("\n{line}")),
            Piece::Behind(rest) => text.push_str(&rest),
        }
    }
    expect.assert_eq(&format!("{}\n", text.trim_start_matches('\n')));
}

/// Makes a line of the event log, `at` seconds after 08:55:11.
fn event(at: i64, stage: &str, tags: &[&str], task: &str, rest: &str) -> String {
    let time = 1_795_337_711 + at;
    let tags = serde_json::to_string(tags).unwrap();
    format!(r#"{{"time":{time},"stage":"{stage}","tags":{tags},"total":2,"task":"{task}","index":1,{rest}}}"#)
}

const STARTED: &str = r#""state":"started","progress":0"#;
const FINISHED: &str = r#""state":"finished","progress":100"#;

fn status(text: &str) -> String {
    format!(r#""state":"in_progress","progress":5,"data":{{"status":"{text}"}}"#)
}

#[test]
fn a_deploy_looks_as_it_does_in_bosh() {
    let api = "api/78871f0d-e157-4d5d-830a-1b256dc807d9 (0) (canary)";
    let log = [
        event(0, "Preparing deployment", &[], "Preparing deployment", STARTED),
        event(0, "Preparing deployment", &[], "Preparing deployment", FINISHED),
        event(1, "Updating instance", &["api"], api, STARTED),
        event(3, "Updating instance", &["api"], api, &status("executing pre-stop")),
        event(6, "Updating instance", &["api"], api, &status("executing post-start")),
        event(7, "Updating instance", &["api"], api, FINISHED),
    ];
    check(
        &log.each_ref().map(String::as_str),
        expect![[r#"
            Task 39 | 08:55:11 | Preparing deployment: Preparing deployment (00:00:00)
            Task 39 | 08:55:12 | Updating instance api: api/78871f0d-e157-4d5d-830a-1b256dc807d9 (0) (canary)
            Task 39 | 08:55:14 | L executing pre-stop: api/78871f0d-e157-4d5d-830a-1b256dc807d9 (0) (canary)
            Task 39 | 08:55:17 | L executing post-start: api/78871f0d-e157-4d5d-830a-1b256dc807d9 (0) (canary) (00:00:06)
        "#]],
    );
}

#[test]
fn work_that_runs_in_parallel_is_told_again_when_it_ends() {
    let log = [
        event(0, "Creating missing vms", &[], "a/1 (0)", STARTED),
        event(0, "Creating missing vms", &[], "a/2 (1)", STARTED),
        event(4, "Creating missing vms", &[], "a/1 (0)", FINISHED),
        event(5, "Creating missing vms", &[], "a/2 (1)", FINISHED),
    ];
    check(
        &log.each_ref().map(String::as_str),
        expect![[r#"
            Task 39 | 08:55:11 | Creating missing vms: a/1 (0)
            Task 39 | 08:55:11 | Creating missing vms: a/2 (1)
            Task 39 | 08:55:15 | Creating missing vms: a/1 (0) (00:00:04)
            Task 39 | 08:55:16 | Creating missing vms: a/2 (1) (00:00:05)
        "#]],
    );
}

#[test]
fn a_failure_says_where_and_why() {
    let log = [
        event(0, "Updating instance", &["api"], "api/0", STARTED),
        event(15, "Updating instance", &["api"], "api/0", &status("starting jobs")),
        event(
            18,
            "Updating instance",
            &["api"],
            "api/0",
            r#""state":"failed","progress":100,"data":{"error":"Task 39 cancelled"}"#,
        ),
        r#"{"time":1795337729,"error":{"code":10001,"message":"Task 39 cancelled"}}"#.to_owned(),
    ];
    check(
        &log.each_ref().map(String::as_str),
        expect![[r#"
            Task 39 | 08:55:11 | Updating instance api: api/0
            Task 39 | 08:55:26 | L starting jobs: api/0 (00:00:18)
                               L Error: Task 39 cancelled
            Task 39 | 08:55:29 | Error: Task 39 cancelled
        "#]],
    );
}

#[test]
fn warnings_stand_between_the_lines() {
    check(
        &[
            &event(0, "Preparing deployment", &[], "Rendering templates", STARTED),
            r#"{"time":1795337711,"type":"warning","message":"You have ignored instances."}"#,
            r#"{"time":1795337712,"type":"deprecation","message":"Do not."}"#,
            &event(2, "Preparing deployment", &[], "Rendering templates", FINISHED),
        ],
        expect![[r#"
            Task 39 | 08:55:11 | Preparing deployment: Rendering templates
            Task 39 | 08:55:11 | Warning: You have ignored instances.
            Task 39 | 08:55:12 | Deprecation: Do not.
            Task 39 | 08:55:13 | Preparing deployment: Rendering templates (00:00:02)
        "#]],
    );
}

#[test]
fn what_we_do_not_understand_is_shown_or_passed_over_but_never_fatal() {
    check(
        &[
            "not JSON",
            "",
            &event(0, "S", &[], "t", r#""state":"pondering""#),
            r#"{"time":1,"error":"a text where an object should be"}"#,
            &event(9, "S", &["x", "y"], "t", FINISHED),
        ],
        expect![[r#"
            not JSON
            {"time":1,"error":"a text where an object should be"}
            Task 39 | 08:55:20 | S x, y: t (00:00:00)
        "#]],
    );
}

#[test]
fn clocks_of_two_leaders_may_disagree() {
    check(
        &[&event(9, "S", &[], "t", STARTED), &event(2, "S", &[], "t", FINISHED)],
        expect![[r#"
            Task 39 | 08:55:20 | S: t (00:00:00)
        "#]],
    );
}
