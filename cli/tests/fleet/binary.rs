//! The program itself: exit codes, what goes where, and what Ctrl-C does.

use std::process::{Output, Stdio};

use expect_test::{Expect, expect};
use futures::StreamExt as _;
use proto::v1::*;
use tokio::process::Command;
use tokio::sync::mpsc;
use tonic::Status;

use crate::director::{Director, Script, answer, hang, nobody, parts};
use crate::following::{LOG, ended, piece};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dctl"));
    // What the developer has set must not decide a test.
    command.env_clear().args(arguments).kill_on_drop(true);
    command
}

pub async fn run(arguments: &[&str]) -> Output {
    command(arguments).stdin(Stdio::null()).output().await.unwrap()
}

#[track_caller]
pub fn check(output: &Output, exit: i32, stdout: Expect, stderr: Expect) {
    stdout.assert_eq(&String::from_utf8_lossy(&output.stdout));
    stderr.assert_eq(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit));
}

fn one_task(state: &'static str, code: u32, message: &'static str) -> Script {
    Script {
        change_state: answer(|_| Ok(TaskStarted { task_id: 3 })),
        follow: answer(move |_: FollowTaskRequest| {
            let mut last = ended(state);
            let task = last.task.as_mut().unwrap();
            task.error_code = code;
            task.error_message = message.into();
            Ok(parts(vec![Ok(piece(0, LOG.len())), Ok(last)]))
        }),
        ..Script::default()
    }
}

#[tokio::test]
async fn a_task_that_ends_well_is_success() {
    let director = Director::start(one_task("done", 0, "")).await;
    let output = run(&["-e", &director.address(), "-d", "web", "start"]).await;
    check(
        &output,
        0,
        expect![[r#"
            Task 3

            Task 3 | 00:01:00 | Preparing: Größe (00:00:01)
            Task 3 | 00:01:02 | Updating instance web: web/u (0)
            Task 3 | 00:01:03 | L stopping jobs: web/u (0) (00:00:05)
            Task 3 done
        "#]],
        expect![[""]],
    );
}

#[tokio::test]
async fn a_task_that_fails_is_failure() {
    let director =
        Director::start(one_task("error", 400007, "'web/u (0)' is not running after update.")).await;
    let output = run(&["-e", &director.address(), "-d", "web", "restart", "web/0"]).await;
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("\nTask 3 error\n"));
    check(
        &Output { stdout: Vec::new(), ..output },
        1,
        expect![[""]],
        expect![[r#"
            Error: task 3 ended in state `error`: 'web/u (0)' is not running after update.
            `dctl task 3 --debug` shows what happened.
        "#]],
    );
}

#[tokio::test]
async fn programs_get_json_on_standard_output_and_nothing_else() {
    let director = Director::start(one_task("done", 0, "")).await;
    let output = run(&["-e", &director.address(), "-d", "web", "stop", "--json"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("L stopping jobs"));
    check(
        &Output { stderr: Vec::new(), ..output },
        0,
        expect![[r#"
            {
              "id": 3,
              "state": "done",
              "started_at": null,
              "finished_at": null,
              "user": null,
              "deployment": null,
              "description": null,
              "result": null,
              "waits_for": [],
              "queued_at": null,
              "error": null,
              "context_id": null,
              "epoch": null
            }
        "#]],
        expect![[""]],
    );
}

#[tokio::test]
async fn a_failed_task_is_an_error_for_programs_too() {
    let director = Director::start(one_task("cancelled", 10001, "Task 3 cancelled")).await;
    let output = run(&["-e", &director.address(), "task", "3", "--event", "--json"]).await;
    check(
        &output,
        1,
        expect![[r#"
            {"time":60,"stage":"Preparing","tags":[],"total":1,"task":"Größe","index":1,"state":"started","progress":0}
            {"time":61,"stage":"Preparing","tags":[],"total":1,"task":"Größe","index":1,"state":"finished","progress":100}
            {"time":62,"stage":"Updating instance","tags":["web"],"total":1,"task":"web/u (0)","index":1,"state":"started","progress":0}
            {"time":63,"stage":"Updating instance","tags":["web"],"total":1,"task":"web/u (0)","index":1,"state":"in_progress","progress":5,"data":{"status":"stopping jobs"}}
            {"time":67,"stage":"Updating instance","tags":["web"],"total":1,"task":"web/u (0)","index":1,"state":"finished","progress":100}
        "#]],
        expect![[r#"
            {"error":{"exit_code":1,"code":10001,"name":null,"message":"task 3 ended in state `cancelled`: Task 3 cancelled","advice":"`dctl task 3 --debug` shows what happened."}}
        "#]],
    );
}

#[tokio::test]
async fn a_list_is_a_table_or_an_array() {
    let script = || Script {
        tasks: answer(|request: ListTasksRequest| {
            assert!(request.current);
            let waiting = Task {
                id: 8,
                state: "queued".into(),
                description: "create deployment".into(),
                deployment: "web".into(),
                user: "admin".into(),
                waits_for: vec![7],
                ..Task::default()
            };
            Ok(ListTasksResponse { tasks: vec![waiting], ..ListTasksResponse::default() })
        }),
        ..Script::default()
    };
    let director = Director::start(script()).await;
    let output = run(&["-e", &director.address(), "tasks"]).await;
    check(
        &output,
        0,
        expect![[r#"
             ID  State   Started at  Finished at  User   Deployment  Description        Result  Waits for
             8   queued  -           -            admin  web         create deployment  -       7

            1 task
        "#]],
        expect![[""]],
    );
    let output = run(&["-e", &director.address(), "tasks", "--json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["rows"][0]["waits_for"], serde_json::json!([7]));
    assert_eq!(value["rows"][0]["started_at"], serde_json::Value::Null);
}

#[tokio::test]
async fn nonsense_is_a_usage_error_and_help_is_not() {
    for arguments in [
        &["no-such-command"][..],
        &["tasks"],
        &["-e", "http://127.0.0.1:1", "start"],
        &["-e", "http://10.0.0.1:1", "tasks"],
        &["-e", "http://127.0.0.1:1", "--profile", "/no/such/file", "tasks"],
        &["-e", "http://127.0.0.1:1", "deploy", "/no/such/manifest.yml"],
        &["task", "3", "--debug", "--cpi"],
    ] {
        let output = run(arguments).await;
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    let output = run(&["--help"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exit codes:"));
}

#[tokio::test]
async fn an_unreachable_fleet_is_told_address_by_address() {
    let (one, other) = (nobody().await, nobody().await);
    let output = run(&["-e", &format!("{one},{other}"), "--timeout", "0", "locks"]).await;
    let stderr = String::from_utf8_lossy(&output.stderr).replace(&one, "ONE").replace(&other, "OTHER");
    expect![[r#"
        Error: no director answered `LocksClient.list` within 0 s
        Tried:
          ONE: Connection refused (os error 111)
          OTHER: not reached in time
        Check the addresses (--endpoint, DCTL_ENDPOINTS or the profile), and that the directors run.
    "#]]
    .assert_eq(&stderr);
    assert_eq!(output.status.code(), Some(3));
}

#[tokio::test]
async fn rights_have_an_exit_code_of_their_own() {
    for (status, wanted) in [
        (Status::unauthenticated("wrong name or password"), "not logged in: wrong name or password"),
        (Status::permission_denied("needs bosh.admin"), "not allowed: needs bosh.admin"),
    ] {
        let script = Script { locks: answer(move |_| Err(status.clone())), ..Script::default() };
        let director = Director::start(script).await;
        let output = run(&["-e", &director.address(), "locks"]).await;
        assert_eq!(output.status.code(), Some(4));
        assert!(String::from_utf8_lossy(&output.stderr).contains(wanted));
    }
}

#[tokio::test]
async fn an_older_director_is_named_as_such() {
    let director = Director::start(Script::default()).await;
    let output = run(&["-e", &director.address(), "events"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is it older than this dctl?"));
}

#[tokio::test]
async fn ctrl_c_detaches_and_cancels_nothing() {
    let (called, mut calls) = mpsc::channel(1);
    let director = Director::start(Script {
        change_state: answer(|_| Ok(TaskStarted { task_id: 3 })),
        // A call to cancel would find no script, and fail with exit code 1.
        follow: Box::new(move |_| {
            let called = called.clone();
            Box::pin(async move {
                called.send(()).await.unwrap();
                Ok(parts(vec![Ok(piece(0, 150))]).chain(futures::stream::pending()).boxed())
            })
        }),
        task: answer(|_| Ok(Task { id: 3, state: "processing".into(), ..Task::default() })),
        ..Script::default()
    })
    .await;
    let address = director.address();
    let mut command = command(&["-e", &address, "-d", "web", "start"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    calls.recv().await.unwrap();
    // The first line of the log is on the screen: following has begun, and so has the watch for signals.
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("Preparing") {
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut byte).await.unwrap();
        seen.push(char::from(byte[0]));
    }
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("`dctl cancel-task 3` cancels it"), "{stderr}");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let (called, mut calls) = mpsc::channel(1);
    let slow = Director::start(Script { locks: hang(called), ..Script::default() }).await;
    let quick =
        Director::start(Script { locks: answer(|_| Ok(ListLocksResponse::default())), ..Script::default() })
            .await;
    let address = format!("{},{}", slow.address(), quick.address());
    let mut command = command(&["-e", &address, "locks"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    calls.recv().await.unwrap();
    drop(child.stdout.take());
    slow.kill().await;
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[tokio::test]
async fn completions_need_no_fleet() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]).await;
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains("upload-release"), "{shell}");
    }
}
