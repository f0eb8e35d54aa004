//! What lists and streams look like, from the wire to the screen.

use std::sync::Mutex;

use expect_test::expect;
use futures::StreamExt as _;
use proto::v1::*;
use tonic::Status;

use crate::binary::{check, run};
use crate::director::{Director, Script, answer, parts};

fn instance(index: u32, process_state: &str) -> Instance {
    Instance {
        deployment: "web".into(),
        group: "web".into(),
        id: format!("uuid-{index}"),
        index,
        az: "z1".into(),
        wanted_state: "started".into(),
        process_state: process_state.into(),
        ips: vec![format!("10.0.0.{}", index + 2)],
        processes: vec![Process { name: "nginx".into(), state: process_state.into() }],
        vitals_json: br#"{"load":["0.10","0.20","0.30"],"cpu":{"user":"1.0","sys":"0.5","wait":"0.0"},
            "mem":{"percent":"12","kb":"204800"},"disk":{"system":{"percent":"40","inode_percent":"7"}}}"#
            .as_slice()
            .into(),
        ..Instance::default()
    }
}

fn with_instances() -> Script {
    Script {
        instances: answer(|request: ListInstancesRequest| {
            // Two pages, so that nobody stops after the first.
            let (instance, next) = match request.page.unwrap_or_default().token.as_str() {
                "" => (instance(0, "running"), "more"),
                _ => (instance(1, "failing"), ""),
            };
            Ok(ListInstancesResponse {
                instances: vec![instance],
                next_page_token: next.into(),
                as_of_revision: 1,
            })
        }),
        ..Script::default()
    }
}

#[tokio::test]
async fn instances_with_vitals_and_processes() {
    let director = Director::start(with_instances()).await;
    let address = director.address();
    check(
        &run(&["-e", &address, "-d", "web", "instances", "--vitals"]).await,
        0,
        expect![[r#"
             Instance    Process state  AZ  IPs       Load (1m, 5m, 15m)  CPU user, sys, wait  Memory         Swap  System disk  Ephemeral disk  Persistent disk
             web/uuid-0  running        z1  10.0.0.2  0.10, 0.20, 0.30    1.0%, 0.5%, 0.0%     12% (200 MiB)  -     40% (7i%)    -               -
             web/uuid-1  failing        z1  10.0.0.3  0.10, 0.20, 0.30    1.0%, 0.5%, 0.0%     12% (200 MiB)  -     40% (7i%)    -               -

            2 instances
        "#]],
        expect![[""]],
    );
    check(
        &run(&["-e", &address, "-d", "web", "instances", "--ps", "--failing"]).await,
        0,
        expect![[r#"
             Instance    Process  State    AZ  IPs
             web/uuid-1  -        failing  z1  10.0.0.3
                           nginx  failing

            2 lines
        "#]],
        expect![[""]],
    );
    let output = run(&["-e", &address, "-d", "web", "instances", "--json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = &value["rows"];
    assert_eq!((rows.as_array().unwrap().len(), &value["revision"]), (2, &serde_json::json!(1)));
    assert_eq!(rows[1]["processes"][0]["state"], "failing");
    assert_eq!(rows[0]["vitals"]["mem"]["kb"], "204800");
}

#[tokio::test]
async fn vms_that_wait_to_be_deleted() {
    let script = Script {
        orphaned_vms: answer(|_| {
            let vm = |cid: &str, ips: &[&str]| OrphanedVm {
                cid: cid.into(),
                agent_id: "agent-1".into(),
                deployment: "web".into(),
                instance: "compilation-1/uuid-1".into(),
                az: "z1".into(),
                ips: ips.iter().map(ToString::to_string).collect(),
                orphaned_at_unix_ms: 1_700_000_000_000,
            };
            Ok(ListOrphanedVmsResponse {
                vms: vec![vm("vm-1", &["10.0.0.9"]), vm("", &[])],
                next_page_token: String::new(),
                as_of_revision: 1,
            })
        }),
        ..Script::default()
    };
    let director = Director::start(script).await;
    check(
        &run(&["-e", &director.address(), "orphaned-vms"]).await,
        0,
        expect![[r#"
             VM CID  Deployment  Instance              AZ  IPs       Orphaned at
             vm-1    web         compilation-1/uuid-1  z1  10.0.0.9  2023-11-14T22:13:20Z
             -       web         compilation-1/uuid-1  z1  -         2023-11-14T22:13:20Z

            2 VMs
        "#]],
        expect![[""]],
    );
    let output = run(&["-e", &director.address(), "orphaned-vms", "--json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["rows"][0]["ips"], serde_json::json!(["10.0.0.9"]));
}

#[tokio::test]
async fn watching_goes_on_behind_the_last_revision_and_repeats_nothing() {
    let change = |revision: u64| Change {
        revision,
        table: "tasks".into(),
        key: revision.to_string(),
        deleted: revision == 8,
    };
    let message = move |revisions: &[u64]| {
        let changes: Vec<Change> = revisions.iter().map(|&revision| change(revision)).collect();
        Ok(WatchResponse { revision: *revisions.last().unwrap(), changes })
    };
    let asked = Mutex::new(Vec::new());
    let director = Director::start(Script {
        watch: answer(move |request: WatchRequest| {
            let mut asked = asked.lock().unwrap();
            asked.push(request.after_revision.unwrap_or(0));
            match asked.as_slice() {
                [5] => Ok(parts(vec![message(&[6, 7]), Err(Status::unavailable("going down"))])),
                // The next one begins too early.
                [5, 7] => Ok(parts(vec![message(&[7, 8]), Err(Status::unavailable("going down"))])),
                [5, 7, 8] => Err(Status::out_of_range("compacted")),
                other => Err(Status::internal(format!("asked after {other:?}"))),
            }
        }),
        ..Script::default()
    })
    .await;
    check(
        &run(&["-e", &director.address(), "watch", "--after", "5"]).await,
        1,
        expect![[r#"
            6  changed  tasks  6
            7  changed  tasks  7
            8  deleted  tasks  8
        "#]],
        expect![[r#"
            Error: the changes after revision 8 are no longer kept: list what you need again, then watch from there
        "#]],
    );
}

#[tokio::test]
async fn a_token_stands_alone_on_standard_output() {
    let director = Director::start(Script {
        create_user_token: answer(|request: CreateUserTokenRequest| {
            assert_eq!(
                (request.ttl_seconds, request.scopes.as_slice()),
                (30 * 24 * 3600, &["bosh.read".to_owned()][..])
            );
            assert!(!request.request_id.is_empty());
            let details = UserToken {
                id: "id".into(),
                user: "ann".into(),
                expires_at_unix_ms: 1_795_337_711_000,
                ..UserToken::default()
            };
            Ok(CreateUserTokenResponse { token: "du1.id.secret".into(), details: Some(details) })
        }),
        ..Script::default()
    })
    .await;
    let address = director.address();
    let arguments = ["-e", &address, "user", "create-token", "--days", "30", "--scope", "bosh.read"];
    check(
        &run(&arguments).await,
        0,
        expect![[r#"
            du1.id.secret
        "#]],
        expect![[r#"
            Token `id` of `ann`, good until 2026-11-22T08:55:11Z, shown only now:
        "#]],
    );
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_now_and_goes_on_from_there() {
    let asked = Mutex::new(Vec::new());
    let director = Director::start(Script {
        watch: answer(move |request: WatchRequest| {
            let mut asked = asked.lock().unwrap();
            asked.push(request.after_revision);
            match asked.as_slice() {
                [None] => {
                    let bookmark = WatchResponse { revision: 41, changes: Vec::new() };
                    Ok(parts(vec![Ok(bookmark), Err(Status::unavailable("going down"))]))
                }
                [None, Some(41)] => Err(Status::out_of_range("compacted")),
                other => Err(Status::internal(format!("asked after {other:?}"))),
            }
        }),
        ..Script::default()
    })
    .await;
    check(
        &run(&["-e", &director.address(), "watch"]).await,
        1,
        expect![[""]],
        expect![[r#"
            Watching from revision 41 on
            Error: the changes after revision 41 are no longer kept: list what you need again, then watch from there
        "#]],
    );
}

#[tokio::test]
async fn a_watch_that_was_silent_for_longer_than_our_patience_may_break() {
    let asked = Mutex::new(0);
    let director = Director::start(Script {
        watch: answer(move |_: WatchRequest| {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            if *asked > 1 {
                return Err(Status::out_of_range("compacted"));
            }
            let silence = async {
                // The condition is the time itself: longer than --timeout.
                tokio::time::sleep(std::time::Duration::from_millis(1_300)).await;
                Err(Status::unavailable("going down"))
            };
            Ok(futures::stream::once(silence).boxed())
        }),
        ..Script::default()
    })
    .await;
    let output = run(&["-e", &director.address(), "--timeout", "1", "watch", "--after", "5"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("are no longer kept"), "the second stream was opened: {said}");
}

#[tokio::test]
async fn a_manifest_of_another_deployment_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("m.yml");
    std::fs::write(&manifest, "name: db\n").unwrap();
    let director = Director::start(Script::default()).await;
    let output = run(&["-e", &director.address(), "-d", "web", "deploy", manifest.to_str().unwrap()]).await;
    check(
        &output,
        2,
        expect![[""]],
        expect![[r#"
            Error: the manifest is for `db`, not for `web`
        "#]],
    );
}

#[tokio::test]
async fn a_release_is_made_without_a_fleet() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    std::fs::write(folder.path().join("config/final.yml"), "name: hello\n").unwrap();
    let dir = folder.path().to_str().unwrap();
    let output = run(&["create-release", "--dir", dir, "--force", "--version", "1.2", "--json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["name"], &value["version"]), (&"hello".into(), &"1.2".into()));
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn a_stemcell_is_made_without_a_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.tgz").display().to_string();
    let output = run(&["build-stemcell", &file, "--json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["tarball"], output.status.code()), (&file.as_str().into(), Some(0)));
    let made = std::fs::read(&file).unwrap();
    assert_eq!(made[..2], [0x1f, 0x8b], "what was made is no archive");
    // Readable as any file is that somebody makes, and nothing is left beside it.
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let rights = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions();
    assert_eq!(rights(file.as_ref()), rights(&plain));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

    for option in [["--format", "openstack-raw"], ["--from", &file]] {
        let other = folder.path().join("other.tgz");
        let output = run(&["build-stemcell", other.to_str().unwrap(), option[0], option[1]]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--debian"), "{option:?} without a Debian: {said}");
        assert_eq!((output.status.code(), other.exists()), (Some(2), false), "{option:?}");
    }

    let nowhere = folder.path().join("missing/host.tgz").display().to_string();
    let output = run(&["build-stemcell", &nowhere]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&nowhere) && said.contains("No such file or directory"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn the_health_of_agents_and_deployments() {
    let director = Director::start(Script {
        agents: answer(|_| {
            let agent = |id: &str, health: &str, report| Agent {
                id: id.into(),
                deployment: "web".into(),
                instance: "i1".into(),
                health: health.into(),
                since_unix_ms: 1_795_337_711_000,
                watcher: 2,
                report,
            };
            let vitals_json =
                br#"{"cpu":{"user":"1.0","sys":"2.0","wait":"0.5"},"mem":{"percent":"25","kb":"2048"}}"#;
            let report = AgentReport {
                job_state: "running".into(),
                processes: 3,
                vitals_json: vitals_json.as_slice().into(),
                age_ms: 2400,
            };
            let agents = vec![agent("a1", "alive", Some(report)), agent("a2", "suspect", None)];
            Ok(ListAgentsResponse { agents, ..ListAgentsResponse::default() })
        }),
        deployments_health: answer(|_| {
            let meltdown = Meltdown { unhealthy: 6, total: 10, since_unix_ms: 1_795_337_711_000 };
            let web = DeploymentHealth {
                deployment: "web".into(),
                state: "meltdown".into(),
                instances: 10,
                dead: 4,
                suspect: 1,
                missing: 1,
                meltdown: Some(meltdown),
                ..DeploymentHealth::default()
            };
            let idle = DeploymentHealth {
                deployment: "idle".into(),
                state: "healthy".into(),
                in_work: true,
                ..DeploymentHealth::default()
            };
            let deployments = vec![idle, web];
            Ok(ListDeploymentHealthResponse { deployments, ..ListDeploymentHealthResponse::default() })
        }),
        ..Script::default()
    })
    .await;
    let ask = async |arguments: &[&str]| {
        let address = director.address();
        let arguments: Vec<&str> = ["-e", &address, "health"].iter().chain(arguments).copied().collect();
        run(&arguments).await
    };
    check(
        &ask(&["agents"]).await,
        0,
        expect![[r#"
         Agent  Deployment  Instance  Health   Since                 Watched by  Jobs     CPU user, sys, wait  Memory       Heard
         a1     web         i1        alive    2026-11-22T08:55:11Z  2           running  1.0%, 2.0%, 0.5%     25% (2 MiB)  2 s ago
         a2     web         i1        suspect  2026-11-22T08:55:11Z  2           -        -                    -            -

        2 agents
    "#]],
        expect![[""]],
    );
    check(
        &ask(&["deployments"]).await,
        0,
        expect![[r#"
         Deployment  Health    Instances  Dead  Suspect  Without VM  In work  Meltdown
         idle        healthy   0          0     0        0           yes      -
         web         meltdown  10         4     1        1           no       nothing is resurrected: 6 of 10 have failed, since 2026-11-22T08:55:11Z

        2 deployments
    "#]],
        expect![[""]],
    );
    let output = ask(&["agents", "--json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = &value["rows"][0];
    assert_eq!((&first["heard_ms_ago"], &first["vitals"]["mem"]["kb"]), (&2400.into(), &"2048".into()));
}
