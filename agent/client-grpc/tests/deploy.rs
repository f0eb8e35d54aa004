//! A small job, from its blobs to its end, by a plain process over a real stream.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::io::Write as _;
use std::path::Path;

use agent_api::{BlobRef, JobState, Method};
use flate2::Compression;
use flate2::write::GzEncoder;
use model::step::{DrainKind, Script};
use serde_json::{Value, json};
use support::{Fleet, TestAgent, until};

/// Packs files into a tgz; those under a `bin` can be run.
fn tgz(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if path.contains("bin/") { 0o755 } else { 0o644 });
        header.set_cksum();
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let mut gz = tar.into_inner().unwrap();
    gz.flush().unwrap();
    gz.finish().unwrap()
}

const CTL: &str = r#"#!/bin/bash
pid=/var/vcap/sys/run/web/web.pid
case $1 in
  start)
    setsid /var/vcap/packages/sleeper/bin/sleeper </dev/null >/dev/null 2>&1 &
    echo $! > $pid.new; mv $pid.new $pid ;;
  stop) kill $(cat $pid) ;;
esac
"#;

const MONIT: &str = r#"check process web
  with pidfile /var/vcap/sys/run/web/web.pid
  start program "/var/vcap/jobs/web/bin/ctl start"
  stop program "/var/vcap/jobs/web/bin/ctl stop"
  group vcap
"#;

const PRE_START: &str = "#!/bin/bash\necho \"pre-start of $BOSH_WHO\"; echo secret=$(cat /var/vcap/jobs/web/config/secret) > /var/vcap/data/web/seen\n";
const DRAIN: &str = "#!/bin/bash\necho \"$@\" >> /var/vcap/data/web/drained\nif [ $1 = job_check_status ]; then echo 0; else echo -0; fi\nexit 3\n";

struct Deployment {
    fleet: Fleet,
    agent: TestAgent,
    spec: Value,
    rendered: Vec<u8>,
}

impl Deployment {
    async fn new() -> Self {
        let fleet = Fleet::start(2);
        fleet.rehome(0).await;
        let agent = TestAgent::start(&fleet, "a-1");
        fleet.until_at(&agent.id, 0).await;
        let package = tgz(&[("bin/sleeper", "#!/bin/bash\nexec sleep 1000\n")]);
        let package = fleet.shared.blobs.add(package);
        let rendered = tgz(&[
            ("./web/monit", MONIT),
            ("./web/bin/ctl", CTL),
            ("./web/bin/pre-start", PRE_START),
            ("./web/bin/drain", DRAIN),
            ("./web/config/secret", "hush"),
        ]);
        let spec = json!({
            "deployment": "d", "name": "web", "id": "uuid-1", "az": "z1", "index": 0,
            "job": { "name": "web", "template": "web", "version": "1",
                "templates": [{ "name": "web", "version": "1.0", "sha1": "x", "blobstore_id": "x" }] },
            "packages": { "sleeper": { "name": "sleeper", "version": "2.1", "sha1": format!("sha256:{package}"),
                "blobstore_id": package } },
            "networks": { "n": { "type": "manual", "ip": "127.0.0.9" } },
            "configuration_hash": "c1", "persistent_disk": 0,
            "rendered_templates_archive": { "sha1": digest(&rendered), "blobstore_id": "rendered-1" },
        });
        Self { fleet, agent, spec, rendered }
    }

    async fn ask(&self, id: &str, method: Method) -> Value {
        self.fleet.call(1, &self.agent.id, id, method).await.unwrap_or_else(|error| panic!("{id}: {error}")).0
    }

    async fn upload(&self, id: &str) {
        let (digest, content) = (digest(&self.rendered), self.rendered.clone());
        let upload = Method::UploadBlob { id: "rendered-1".into(), digest, content };
        assert_eq!(self.ask(id, upload).await, json!("rendered-1"));
    }

    async fn state(&self, id: &str) -> Value {
        self.ask(id, Method::GetState { full: true }).await
    }

    async fn until_heard(&self, state: JobState) {
        let heard =
            || self.fleet.shared.heard.last(&self.agent.id).is_some_and(|last| last.job_state == state);
        until(&format!("a heartbeat that says {state:?}"), heard).await;
    }

    fn read(&self, path: &str) -> String {
        let path = self.agent.base().join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn pid(&self) -> i32 {
        self.read("sys/run/web/web.pid").trim().parse().unwrap()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if let Ok(text) = std::fs::read_to_string(self.agent.base().join("sys/run/web/web.pid"))
            && let Ok(pid) = text.trim().parse()
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    }
}

fn digest(content: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(content)))
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_installed_started_watched_drained_and_stopped() {
    let deployment = Deployment::new().await;
    let (spec, base) = (deployment.spec.clone(), deployment.agent.base());
    deployment.upload("upload").await;
    assert_eq!(deployment.ask("prepare", Method::Prepare { spec: spec.clone() }).await, json!("prepared"));
    assert!(!base.join("jobs/web").exists(), "prepare links nothing");
    deployment.upload("upload again").await;
    assert_eq!(deployment.ask("apply", Method::Apply { spec: spec.clone() }).await, json!("applied"));
    check_layout(&base);

    let env = [("BOSH_WHO".to_owned(), "web".to_owned())].into();
    let pre_start = Method::RunScript { script: Script::PreStart, env };
    assert_eq!(deployment.ask("pre-start", pre_start).await, json!({}));
    assert_eq!(deployment.read("data/web/seen"), "secret=hush\n");
    assert_eq!(deployment.read("sys/log/web/pre-start.stdout.log"), "pre-start of web\n");

    assert_eq!(deployment.ask("start", Method::Start).await, json!("started"));
    deployment.until_heard(JobState::Running).await;
    until("the process", || base.join("sys/run/web/web.pid").exists() && is_alive(deployment.pid())).await;
    let state = deployment.state("state").await;
    assert_eq!((&state["configuration_hash"], &state["agent_id"]), (&json!("c1"), &json!("a-1")));
    assert!(state["vitals"]["load"].is_array());

    let first = deployment.pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::SIGKILL).unwrap();
    until("the process is back", || deployment.pid() != first && is_alive(deployment.pid())).await;
    let alert = || {
        deployment
            .fleet
            .shared
            .heard
            .alerts()
            .iter()
            .any(|alert| alert.title.contains("web () - does not exist"))
    };
    until("an alert", alert).await;

    let drain = Method::Drain { kind: DrainKind::Update, spec: Some(spec) };
    assert_eq!(deployment.ask("drain", drain).await, json!(0), "the script's exit code does not count");
    assert_eq!(deployment.read("data/web/drained"), "job_changed hash_unchanged\n");
    let last = deployment.pid();
    assert_eq!(deployment.ask("stop", Method::Stop).await, json!("stopped"));
    assert!(!is_alive(last));
    deployment.until_heard(JobState::Stopped).await;
    assert_eq!(deployment.read("instance/health.json"), r#"{"state":"stopped"}"#);

    // Told that it has no jobs any more, it keeps none.
    let empty = json!({ "deployment": "d", "configuration_hash": "c2", "networks": {} });
    deployment.ask("apply nothing", Method::Apply { spec: empty }).await;
    for gone in [
        "jobs/web",
        "packages/sleeper",
        "data/jobs/web",
        "data/packages/sleeper",
        "monit/job/0000_web.monitrc",
    ] {
        assert!(!base.join(gone).exists(), "{gone}");
    }
}

fn check_layout(base: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &str| std::fs::metadata(base.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("jobs/web/bin/ctl"), 0o750);
    assert_eq!(mode("jobs/web/config/secret"), 0o640);
    assert_eq!(mode("data/sys/run/web"), 0o770);
    let job = std::fs::read_link(base.join("jobs/web")).unwrap();
    assert!(job.starts_with(base.join("data/jobs/web")), "{}", job.display());
    assert!(base.join("jobs/web/packages/sleeper/bin/sleeper").exists());
    assert!(base.join("packages/sleeper/bin/sleeper").exists());
    let ctl = std::fs::read_to_string(base.join("jobs/web/bin/ctl")).unwrap();
    assert!(ctl.contains(&base.display().to_string()) && !ctl.contains("=/var/vcap"), "{ctl}");
    assert_eq!(std::fs::read_to_string(base.join("instance/name")).unwrap(), "web");
    let left = std::fs::read_dir(base.join("data/sensitive_blobs")).unwrap().count();
    assert_eq!(left, 0, "rendered templates are removed once they are installed");
    assert_eq!(std::fs::read_dir(base.join("data/tmp")).unwrap().count(), 0, "no work space is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_finds_its_running_job() {
    let deployment = Deployment::new().await;
    deployment.upload("upload").await;
    deployment.ask("apply", Method::Apply { spec: deployment.spec.clone() }).await;
    deployment.ask("start", Method::Start).await;
    let base = deployment.agent.base();
    until("the process", || base.join("sys/run/web/web.pid").exists()).await;
    let pid = deployment.pid();
    deployment.agent.restart().await;
    until("it is seen running", || is_alive(pid)).await;
    let mut number = 0;
    loop {
        number += 1;
        let state = deployment.state(&format!("state {number}")).await;
        if state["job_state"] == "running" && state["processes"][0]["state"] == "running" {
            break;
        }
    }
    assert_eq!(deployment.pid(), pid, "it was not started a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_match_its_digest_is_not_installed() {
    let deployment = Deployment::new().await;
    deployment.upload("upload").await;
    let mut spec = deployment.spec.clone();
    spec["packages"]["sleeper"]["sha1"] = json!(format!("sha256:{}", "0".repeat(64)));
    let applied = deployment.fleet.call(1, &deployment.agent.id, "apply", Method::Apply { spec }).await;
    let message = applied.unwrap_err().to_string();
    assert!(
        message.starts_with("Action Failed apply: blob ") && message.contains("does not have digest"),
        "{message}"
    );
    assert!(!deployment.agent.base().join("data/packages/sleeper").exists());

    // One that is another content's, and one that is none.
    for digest in [format!("sha256:{}", "0".repeat(64)), "sha256:00".to_owned()] {
        let request = format!("bad {digest}");
        let upload = Method::UploadBlob { id: "b".into(), digest, content: b"x".to_vec() };
        assert!(deployment.fleet.call(1, &deployment.agent.id, &request, upload).await.is_err());
        assert!(!deployment.agent.base().join("data/sensitive_blobs/b").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_is_compiled_against_its_dependencies() {
    let deployment = Deployment::new().await;
    let blobs = &deployment.fleet.shared.blobs;
    let dependency = blobs.add(tgz(&[("lib", "from the dependency")]));
    let packaging = "set -e\ncat /var/vcap/packages/dep/lib > $BOSH_INSTALL_TARGET/out\ncat part >> $BOSH_INSTALL_TARGET/out\necho $BOSH_PACKAGE_NAME $BOSH_PACKAGE_VERSION > $BOSH_INSTALL_TARGET/who\n";
    let source = blobs.add(tgz(&[("packaging", packaging), ("part", " and the source")]));
    let compile = |source: &model::BlobDigest| Method::CompilePackage {
        source: BlobRef { blob: source.clone(), digest: format!("sha256:{source}") },
        name: "app".into(),
        version: "3.1".into(),
        dependencies: vec![agent_api::PackageBlob {
            name: "dep".into(),
            version: "1.1".into(),
            content: BlobRef { blob: dependency.clone(), digest: format!("sha256:{dependency}") },
        }],
    };
    let result = deployment.ask("compile", compile(&source)).await["result"].clone();
    let compiled = blobs.get(result["blobstore_id"].as_str().unwrap()).expect("it was uploaded");
    assert_eq!(result["size"], compiled.len());
    assert_eq!(result["sha1"], digest(&compiled));
    assert_eq!(unpacked(&compiled, "./out"), "from the dependency and the source");
    assert_eq!(unpacked(&compiled, "./who"), "app 3.1\n");
    assert!(!deployment.agent.base().join("packages/app").exists(), "nothing of the build is left");

    let broken = blobs.add(tgz(&[("packaging", "echo to stdout; echo to stderr >&2; exit 4")]));
    let failed = deployment.fleet.call(1, &deployment.agent.id, "broken", compile(&broken)).await;
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("Command exited with 4; Stdout: to stdout"), "{message}");
    assert!(message.contains("to stderr"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiling_beside_jobs_leaves_them_what_they_have() {
    let deployment = Deployment::new().await;
    deployment.upload("upload").await;
    deployment.ask("apply", Method::Apply { spec: deployment.spec.clone() }).await;
    let blobs = &deployment.fleet.shared.blobs;
    let source = blobs.add(tgz(&[("packaging", "touch $BOSH_INSTALL_TARGET/out\n")]));
    let compile = Method::CompilePackage {
        source: BlobRef { blob: source.clone(), digest: format!("sha256:{source}") },
        name: "app".into(),
        version: "1".into(),
        dependencies: vec![],
    };
    deployment.ask("compile", compile).await;
    let base = deployment.agent.base();
    assert!(base.join("packages/sleeper/bin/sleeper").exists());
    assert!(base.join("jobs/web/packages/sleeper/bin/sleeper").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_of_no_configuration_installs_nothing() {
    let deployment = Deployment::new().await;
    let mut spec = deployment.spec.clone();
    spec["configuration_hash"] = json!("");
    assert_eq!(deployment.ask("bind", Method::Apply { spec }).await, json!("applied"));
    let base = deployment.agent.base();
    assert!(!base.join("jobs/web").exists() && !base.join("packages/sleeper").exists());
    assert_eq!(deployment.read("instance/name"), "web");
    let state = deployment.state("state").await;
    assert_eq!(state["job_state"], "running", "nothing is there that does not run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_wants_to_be_asked_again_is() {
    let deployment = Deployment::new().await;
    deployment.upload("upload").await;
    deployment.ask("apply", Method::Apply { spec: deployment.spec.clone() }).await;
    let base = deployment.agent.base();
    let asked = base.join("asked");
    let script = format!(
        "echo $* >> {asked}\nif [ $(wc -l < {asked}) = 1 ]; then echo -1; else echo 0; fi",
        asked = asked.display()
    );
    support::write_program(&base.join("jobs/web/bin/drain"), &script);
    let shutdown = |spec| Method::Drain { kind: DrainKind::Shutdown, spec };
    assert_eq!(deployment.ask("drain", shutdown(None)).await, json!(0));
    let told = deployment.read("asked");
    assert_eq!(told, "job_shutdown hash_unchanged\njob_check_status hash_unchanged\n");
    support::write_program(&base.join("jobs/web/bin/drain"), "echo soon");
    let failed = deployment.fleet.call(1, &deployment.agent.id, "garbled", shutdown(None)).await;
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("did not return a signed integer"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_fetched() {
    let deployment = Deployment::new().await;
    let log = deployment.agent.base().join("data/sys/log/web");
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(log.join("web.log"), "line\n").unwrap();
    std::fs::write(log.join("web.tmp"), "no\n").unwrap();
    let fetch = Method::FetchLogs { kind: "job".into(), filters: Some(vec!["**/*.log".into()]) };
    let result = deployment.ask("logs", fetch).await;
    let archive = deployment.fleet.shared.blobs.get(result["blobstore_id"].as_str().unwrap()).unwrap();
    assert_eq!(unpacked(&archive, "./web/web.log"), "line\n");
    assert_eq!(names(&archive).iter().filter(|name| name.ends_with("web.tmp")).count(), 0);
    let wrong = Method::FetchLogs { kind: "other".into(), filters: None };
    let error = deployment.fleet.call(1, &deployment.agent.id, "wrong", wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "Action Failed fetch_logs: Invalid log type");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_script_names_its_job() {
    let deployment = Deployment::new().await;
    deployment.upload("upload").await;
    deployment.ask("apply", Method::Apply { spec: deployment.spec.clone() }).await;
    support::write_program(&deployment.agent.base().join("jobs/web/bin/post-start"), "exit 1");
    let script = Method::RunScript { script: Script::PostStart, env: Default::default() };
    let error = deployment.fleet.call(1, &deployment.agent.id, "post-start", script).await.unwrap_err();
    let expected = "Action Failed run_script: 1 of 1 post-start scripts failed. Failed Jobs: web.";
    assert_eq!(error.to_string(), expected);
    let none = Method::RunScript { script: Script::PostStop, env: Default::default() };
    assert_eq!(deployment.ask("post-stop", none).await, json!({}), "a missing script is skipped");
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

fn unpacked(archive: &[u8], name: &str) -> String {
    let name = name.trim_start_matches("./");
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().display().to_string().trim_start_matches("./") == name {
            return std::io::read_to_string(&mut entry).unwrap();
        }
    }
    panic!("no {name} in {:?}", names(archive));
}
