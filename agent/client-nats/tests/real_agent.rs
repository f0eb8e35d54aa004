//! BOSH's own agent as the judge of what we take it for. It is not part of this project: where there is one, its path is given
//! in `BOSH_AGENT`, and it is run on its dummy platform.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use agent_api::{
    AgentError, Agents as _, Alert, Heartbeat, HeartbeatSink, JobState, Method, Mode, Reply, Request,
};
use agent_client_nats::{Reports, users};
use model::step::{DrainKind, Script};
use model::{AgentId, Epoch};
use owned_tasks::OwnedTasks;
use serde_json::{Value, json};
use support::{Book, NatsServer, PATIENCE, Replica, missing, options, until};
use tempfile::TempDir;

const ID: &str = "agent-007";

struct RealAgent {
    program: PathBuf,
    base: TempDir,
    child: Child,
}

impl RealAgent {
    fn start(program: PathBuf, server: &NatsServer) -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        for folder in ["root_dir/etc/logrotate.d", "bosh", "store/blobs"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        let identity = server.authority.identity(&users::common_name(&ID.into()));
        let pem = |file: PathBuf| std::fs::read_to_string(file).unwrap();
        let settings = json!({
            "agent_id": ID, "vm": { "name": "vm-1" }, "ntp": [], "disks": { "persistent": {} }, "mbus": server.url(),
            "blobstore": { "provider": "local", "options": { "blobstore_path": at("store/blobs") } },
            "networks": { "default": { "type": "manual", "ip": "10.244.0.11", "netmask": "255.255.255.0",
                "gateway": "10.244.0.1", "dns": [], "default": ["dns", "gateway"], "cloud_properties": {} } },
            "env": { "bosh": { "mbus": { "cert": { "ca": pem(server.authority.pem_file()),
                "certificate": pem(identity.certificate), "private_key": pem(identity.key) } } } },
        });
        std::fs::write(at("bosh/dummy-cpi-agent-env.json"), settings.to_string()).unwrap();
        let source = json!({ "Type": "File", "SettingsPath": at("bosh/dummy-cpi-agent-env.json") });
        let config = json!({ "Infrastructure": { "Settings": { "Sources": [source] } } });
        std::fs::write(at("bosh/agent.json"), config.to_string()).unwrap();
        let child = launch(&program, &base);
        Self { program, base, child }
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = launch(&self.program, &self.base);
    }
}

fn launch(program: &PathBuf, base: &TempDir) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(base.path().join("log")).unwrap();
    Command::new(program)
        .args(["-P", "dummy", "-M", "dummy-nats", "-b"])
        .arg(base.path())
        .arg("-C")
        .arg(base.path().join("bosh/agent.json"))
        .current_dir(base.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.base.path().join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

#[derive(Default)]
struct Heard {
    heartbeats: Mutex<Vec<Heartbeat>>,
    stops: Mutex<usize>,
}

impl HeartbeatSink for Heard {
    fn heartbeat(&self, heartbeat: Heartbeat) {
        self.heartbeats.lock().unwrap().push(heartbeat);
    }

    fn alert(&self, _agent: &AgentId, _alert: Alert) {}

    fn connected(&self, _agent: &AgentId) {}

    fn disconnected(&self, _agent: &AgentId) {
        *self.stops.lock().unwrap() += 1;
    }
}

struct World {
    replica: Replica,
    next: Mutex<u32>,
}

impl World {
    async fn try_call(&self, method: Method) -> Result<Reply, AgentError> {
        let number = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next
        };
        let id = format!("r-{number}").into();
        let request = Request { id, epoch: Epoch(7), mode: Mode::Submit, timeout: PATIENCE, method };
        self.replica.agents.call(&ID.into(), request).await
    }

    async fn call(&self, method: Method) -> Value {
        let name = method.name();
        self.try_call(method).await.unwrap_or_else(|error| panic!("{name}: {error}")).0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bosh_s_own_agent_does_what_we_ask() {
    let program = match (missing(), std::env::var_os("BOSH_AGENT")) {
        (Some(why), _) => return println!("skipped: {why}"),
        (None, None) => return println!("skipped: BOSH_AGENT names no agent of BOSH's"),
        (None, Some(program)) => PathBuf::from(program),
    };
    let server = NatsServer::start(&[ID]).await;
    let (heard, tasks) = (Arc::new(Heard::default()), OwnedTasks::new());
    Reports::listen(&options(&server, users::HEALTH), heard.clone(), &tasks).await.unwrap();
    let world =
        World { replica: Replica::start(&server, &Arc::new(Book::default())).await, next: Mutex::new(0) };
    let mut agent = RealAgent::start(program, &server);

    assert_eq!(world.call(Method::Ping).await, json!("pong"));
    until("a heartbeat", || !heard.heartbeats.lock().unwrap().is_empty()).await;
    assert_eq!(heard.heartbeats.lock().unwrap()[0].job_state, JobState::Running);
    let state = world.call(Method::GetState { full: true }).await;
    assert_eq!((&state["agent_id"], &state["job_state"]), (&json!(ID), &json!("running")));
    assert!(state["vitals"]["mem"]["kb"].is_string(), "{state}");

    let spec = json!({ "deployment": "d", "name": "ig", "id": "i-1", "index": 0, "job": { "name": "ig", "templates": [] },
        "packages": {}, "networks": {}, "configuration_hash": "00" });
    assert_eq!(world.call(Method::Prepare { spec: spec.clone() }).await, json!("prepared"));
    assert_eq!(world.call(Method::Apply { spec }).await, json!("applied"));
    assert_eq!(world.call(Method::GetState { full: false }).await["deployment"], json!("d"));
    let script = Method::RunScript { script: Script::PreStart, env: Default::default() };
    assert_eq!(world.call(script).await, json!({}));
    assert_eq!(world.call(Method::Start).await, json!("started"));
    assert_eq!(world.call(Method::ListDisk).await, json!([]));
    let settings = json!({ "trusted_certs": "", "disk_associations": [] });
    assert_eq!(world.call(Method::UpdateSettings { settings }).await, json!("ok"));
    let digest = "sha1:0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33".to_owned();
    let content = b"foo".to_vec();
    let upload = Method::UploadBlob { id: "b-1".into(), digest, content };
    assert_eq!(world.call(upload).await, json!("b-1"));
    let logs = world.call(Method::FetchLogs { kind: "job".into(), filters: None }).await;
    assert!(logs["blobstore_id"].is_string(), "{logs}");

    let errand = world.try_call(Method::RunErrand { errand: "nothing".into() }).await;
    assert!(
        matches!(&errand, Err(AgentError::Failed { message, .. }) if !message.contains("get_task")),
        "{errand:?}"
    );
    let disk = world.try_call(Method::MountDisk { disk: "no-disk".into() }).await;
    assert!(
        matches!(&disk, Err(AgentError::Failed { message, .. }) if message.contains("no-disk")),
        "{disk:?}"
    );

    assert_eq!(world.call(Method::Drain { kind: DrainKind::Shutdown, spec: None }).await, json!(0));
    until("word of the shutdown", || *heard.stops.lock().unwrap() > 0).await;
    assert_eq!(world.call(Method::Stop).await, json!("stopped"));
    agent.restart();
    assert_eq!(world.call(Method::Ping).await, json!("pong"));
    tasks.stop_token().cancel();
}
