//! A replica's side of a real NATS server: who is let in, with what, who is heard, and what is written down.

use std::process::{Child, Command as Process, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use agent_api::fake::FakeAgents;
use agent_api::{Alert, Heartbeat, HeartbeatSink, Method, Mode, Reply, Request};
use agent_client_nats::users::authorization;
use agent_client_nats::{Deed, DeedError, Deeds as _, Ending, Stage};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions};
use futures::StreamExt as _;
use model::plan::Plan;
use model::stemcell::AgentKind;
use model::step::StepOutcome;
use model::{Epoch, TaskId};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use state::command::{Command, Outcome};
use state::records::AskedStage;
use tempfile::TempDir;

use super::*;
use crate::test_support::replica::Replica;
use crate::test_support::state::{
    EPOCH, commit, create_vm, delete_vm, deploy, finished, plan_of, queue, started, vm_created,
};

/// Longest that anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long certificates are good.
pub(crate) const LASTS: Duration = Duration::from_secs(3600);

impl Nats {
    pub(crate) fn run_in(
        self: Arc<Self>,
        tasks: &OwnedTasks,
        replica: &Replica,
        sink: Arc<dyn HeartbeatSink>,
    ) {
        let (homes, hub) = (replica.agents.homes(), replica.door.membership.hub.clone());
        let ears = Arc::new(OwnEars { nats: self.clone(), homes, sink, hub });
        let owner = tasks.clone();
        tasks.spawn("NATS", OnExit::Ignore, move |stop| self.run(ears, owner, stop));
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.agents.get().is_some()
    }
}

/// Has a task begin to make the VM of agent `a1` from a stemcell of that name.
async fn begin_vm(replica: &Replica, stemcell: &str) -> TaskId {
    begin_vm_with(replica, stemcell, None).await
}

/// As [`begin_vm`], from a stemcell that says whose agent is inside.
async fn begin_vm_with(replica: &Replica, stemcell: &str, agent: Option<AgentKind>) -> TaskId {
    let outcome = replica.must(queue(deploy(), vec!["lock:deployment:web".into()])).await;
    let Outcome::TaskQueued(task) = outcome else { panic!("{outcome:?}") };
    replica.must(Command::TaskTake { task, epoch: EPOCH }).await;
    let generation = State::new(&*replica.log.view()).deployment(&"web".into()).unwrap().generation;
    let mut plan = Plan { generation, ..plan_of(vec![create_vm(), delete_vm()]) };
    plan.targets[0].spec.stemcell.name = stemcell.into();
    plan.targets[0].spec.stemcell.agent = agent;
    replica.must(commit(task, plan)).await;
    replica.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] }).await;
    task
}

pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<AgentId>>);

impl HeartbeatSink for Heard {
    fn heartbeat(&self, heartbeat: Heartbeat) {
        self.0.lock().unwrap().push(heartbeat.agent);
    }

    fn alert(&self, _agent: &AgentId, _alert: Alert) {}

    fn connected(&self, _agent: &AgentId) {}

    fn disconnected(&self, _agent: &AgentId) {}
}

/// A server as an operator sets it up beside a replica.
pub(crate) struct Server {
    dir: TempDir,
    child: Child,
    port: u16,
    monitoring: u16,
}

impl Server {
    /// Starts one that trusts the fleet's authority; none where the program is not there.
    pub(crate) async fn start(replica: &Replica) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let fleet = State::new(&*replica.log.view()).cluster().unwrap().secrets.authority_pem;
        std::fs::write(file("fleet.pem"), fleet).unwrap();
        std::fs::write(file("users.conf"), authorization([])).unwrap();
        let (authority, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(file("ca.pem"), params.self_signed(&authority).unwrap().pem()).unwrap();
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "default.nats.bosh-internal");
        let certificate = leaf.signed_by(&key, &Issuer::new(params, authority)).unwrap();
        std::fs::write(file("server.pem"), certificate.pem()).unwrap();
        std::fs::write(file("server.key"), key.serialize_pem()).unwrap();
        let config = format!(
            "host: 127.0.0.1\nport: -1\nhttp: \"127.0.0.1:-1\"\nports_file_dir: {:?}\npid_file: {:?}\ninclude users.conf\ntls {{ cert_file: {:?}, \
             key_file: {:?}, ca_file: {:?}, verify_and_map: true, timeout: 5 }}\n",
            dir.path(),
            file("pid"),
            file("server.pem"),
            file("server.key"),
            file("fleet.pem"),
        );
        std::fs::write(file("nats.conf"), config).unwrap();
        let log = std::fs::File::create(file("log")).unwrap();
        let mut process = Process::new("nats-server");
        let config = file("nats.conf");
        process.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = process.spawn().ok()?;
        let ports = file(&format!("nats-server_{}.ports", child.id()));
        let mut server = Self { dir, child, port: 0, monitoring: 0 };
        let read = |of: &str| {
            let ports: Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
            ports[of][0].as_str()?.rsplit_once(':')?.1.parse().ok()
        };
        until("the server's ports", || read("nats").is_some() && read("monitoring").is_some()).await;
        (server.port, server.monitoring) = (read("nats").unwrap(), read("monitoring").unwrap());
        Some(server)
    }

    /// Returns the digests of the certificates with which agent `a1` is connected.
    pub(crate) fn certificates_of_a1(&self) -> Vec<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.monitoring)).unwrap();
        let ask = "GET /connz?auth=1 HTTP/1.0\r\n\r\n";
        stream.write_all(ask.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let told: Value = serde_json::from_str(body).unwrap();
        let connections = told["connections"].as_array().unwrap().iter();
        let of_a1 =
            connections.flat_map(|connection| connection["tls_peer_certs"].as_array().into_iter().flatten());
        let of_a1 = of_a1.filter(|peer| peer["subject"].as_str().unwrap().contains("CN=a1.agent"));
        of_a1.map(|peer| peer["cert_sha256"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn nats(&self, replica: &Replica) -> Arc<Nats> {
        self.nats_with(replica, BlobDesk::new(None, 0, replica.door.blobs.clone(), &replica.kek))
    }

    pub(crate) fn nats_with(&self, replica: &Replica, blobs: Arc<BlobDesk>) -> Arc<Nats> {
        let file = |name: &str| self.dir.path().join(name);
        let config = NatsConfig {
            urls: vec![format!("nats://127.0.0.1:{}", self.port)],
            ca_file: file("ca.pem"),
            users_file: Some(file("users.conf")),
            server_pid_file: Some(file("pid")),
            agent_certificate: LASTS,
        };
        Nats::new(config, self.dir.path(), replica.log.clone(), replica.kek.clone(), blobs)
    }

    /// Connects with what a VM was given.
    async fn connect(&self, mbus: &Mbus) -> Result<async_nats::Client, ConnectError> {
        let file = |name: &str| self.dir.path().join(name);
        std::fs::write(file("agent.pem"), &mbus.certificate_pem).unwrap();
        std::fs::write(file("agent.key"), &mbus.private_key_pem).unwrap();
        std::fs::write(file("agent-ca.pem"), &mbus.authorities_pem).unwrap();
        ConnectOptions::new()
            .require_tls(true)
            .add_root_certificates(file("agent-ca.pem"))
            .add_client_certificate(file("agent.pem"), file("agent.key"))
            .connect(&mbus.urls)
            .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
    }
}

fn request(method: Method) -> Request {
    Request { id: "t1-1-1-x".into(), epoch: EPOCH, mode: Mode::Submit, timeout: PATIENCE, method }
}

/// Answers as an agent: a ping, and an errand at once. Its heartbeats come again and again: the bus keeps none for who is late.
async fn serve(client: async_nats::Client) {
    let mut asked = client.subscribe("agent.a1").await.unwrap();
    client.flush().await.unwrap();
    let heartbeat = r#"{"job_state":"running","vitals":null,"number_of_processes":1}"#;
    let mut beats = tokio::time::interval(Duration::from_millis(50));
    loop {
        let message = tokio::select! {
            _ = beats.tick() => {
                // Refused once its VM is gone.
                let _ = client.publish("hm.agent.heartbeat.a1", heartbeat.into()).await;
                continue;
            }
            message = asked.next() => message,
        };
        let Some(message) = message else { return };
        let request: Value = serde_json::from_slice(&message.payload).unwrap();
        let answer = if request["method"] == "ping" { json!("pong") } else { json!({ "exit_code": 0 }) };
        let reply_to = request["reply_to"].as_str().unwrap().to_owned();
        client.publish(reply_to, json!({ "value": answer }).to_string().into()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_bosh_s_is_let_in_from_before_its_vm_is_made_until_it_is_deleted() {
    let replica = Replica::start().await;
    let Some(server) = Server::start(&replica).await else {
        replica.stop().await;
        return println!("skipped: there is no nats-server here");
    };
    let (nats, heard, tasks) = (server.nats(&replica), Arc::new(Heard::default()), OwnedTasks::new());
    let hub = replica.door.membership.hub.clone();
    nats.clone().run_in(&tasks, &replica, heard.clone());
    let a1 = AgentId::new("a1");
    assert!(nats.mbus(&a1).is_none(), "nobody has a VM yet");

    let task = begin_vm(&replica, "bosh-aws-xen-hvm-ubuntu-jammy-go_agent").await;
    let mbus = nats.mbus(&a1).unwrap();
    assert!(!format!("{mbus:?}").contains("PRIVATE"), "{mbus:?}");
    let users = || std::fs::read_to_string(server.dir.path().join("users.conf")).unwrap_or_default();
    until("its users", || users().contains("CN=a1.agent.bosh-internal")).await;
    // The server has been told, and reads it in its own time: agents try again.
    let connected = async {
        loop {
            match server.connect(&mbus).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let client = tokio::time::timeout(PATIENCE, connected).await.unwrap();
    let (as_agent, stopping) = (client.clone(), tasks.stop_token());
    tasks.spawn("agent", OnExit::Ignore, |_| async move {
        tokio::select! { () = serve(as_agent) => {}, () = stopping.cancelled() => {} }
    });

    let agents = BothAgents::of(Arc::new(FakeAgents::new()), Some(nats.clone()));
    until("the connection", || nats.agents.get().is_some()).await;
    assert_eq!(agents.call(&a1, request(Method::Ping)).await, Ok(Reply(json!("pong"))));
    let done = agents.call(&a1, request(Method::RunErrand { errand: "smoke".into() })).await;
    assert_eq!(done, Ok(Reply(json!({ "exit_code": 0 }))));
    let written = State::new(&*replica.log.view()).asked_of_agent(&a1, &"t1-1-1-x".into()).unwrap();
    assert_eq!(written.stage, AskedStage::Done { json: r#"{"exit_code":0}"#.into() });
    until("its heartbeat", || heard.0.lock().unwrap().contains(&a1)).await;
    assert_eq!(hub.reports(std::slice::from_ref(&a1))[&a1].job_state, "running");

    let records =
        vec![finished(1, 0, 1, vm_created("vm-1")), started(1, 1, 1), finished(1, 1, 1, StepOutcome::Done)];
    replica.must(Command::StepRecords { task, epoch: EPOCH, records }).await;
    let is_out = || client.connection_state() != async_nats::connection::State::Connected;
    until("the end of its connection", is_out).await;
    let refused = server.connect(&mbus).await.unwrap_err();
    assert_eq!(refused.kind(), ConnectErrorKind::AuthorizationViolation);
    assert!(nats.mbus(&a1).is_none());
    assert!(tasks.stop(PATIENCE).await);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_ours_is_none_of_bosh_s_and_nobody_on_the_bus_speaks_for_it() {
    let replica = Replica::start().await;
    begin_vm(&replica, "bosh-directorate-debian-bookworm-go_agent").await;
    is_none_of_bosh_s(replica).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_stemcell_says_of_its_agent_counts_more_than_its_name() {
    let replica = Replica::start().await;
    begin_vm_with(&replica, "acme-jammy", Some(AgentKind::Bosh)).await;
    assert_eq!(users::authorised(&replica.log), ["a1".into()].into());
    replica.stop().await;
    let replica = Replica::start().await;
    begin_vm_with(&replica, "bosh-aws-xen-hvm-ubuntu-jammy-go_agent", Some(AgentKind::Directorate)).await;
    is_none_of_bosh_s(replica).await;
}

/// Holds that agent `a1` is not let in on the bus, and that what is said there in its name is not heard.
async fn is_none_of_bosh_s(replica: Replica) {
    let dir = tempfile::tempdir().unwrap();
    let config = NatsConfig {
        urls: vec!["nats://127.0.0.1:4222".into()],
        ca_file: dir.path().join("ca.pem"),
        users_file: None,
        server_pid_file: None,
        agent_certificate: LASTS,
    };
    let blobs = BlobDesk::new(None, 0, replica.door.blobs.clone(), &replica.kek);
    let nats = Nats::new(config, dir.path(), replica.log.clone(), replica.kek.clone(), blobs);
    let (a1, heard) = (AgentId::new("a1"), Arc::new(Heard::default()));
    assert!(nats.mbus(&a1).is_none());
    assert!(users::authorised(&replica.log).is_empty());
    let hub = replica.door.membership.hub.clone();
    let ears = OwnEars { nats, homes: replica.agents.homes(), sink: heard.clone(), hub: hub.clone() };
    let vitals = Value::Null;
    ears.heartbeat(Heartbeat {
        agent: a1.clone(),
        job_state: agent_api::JobState::Failing,
        vitals,
        processes: 0,
    });
    assert!(heard.0.lock().unwrap().is_empty());
    assert!(hub.reports(&[a1]).is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_is_written_in_the_state_by_one_leader() {
    let replica = Replica::start().await;
    begin_vm(&replica, "bosh-aws-xen-hvm-ubuntu-jammy-go_agent").await;
    let book = Book(replica.log.clone());
    let deed = Deed { agent: "a1".into(), request: "r".into() };
    assert_eq!(book.begin(&deed, EPOCH).await, Ok(None));
    assert_eq!(book.begin(&deed, EPOCH).await, Ok(Some(Stage::Asked)));
    let running = Stage::Running { agent_task: "t".into() };
    book.put(&deed, EPOCH, &Stage::Asked, Some(running.clone())).await.unwrap();
    book.put(&deed, EPOCH, &Stage::Asked, None).await.unwrap();
    assert_eq!(book.find(&deed, EPOCH).await, Ok(Some(running.clone())));
    // What is too long to be kept is asked of the agent again.
    let long = Stage::Ended(Ending::Done("x".repeat(book::ENDING_BYTES_MAX + 1)));
    book.put(&deed, EPOCH, &running, Some(long)).await.unwrap();
    assert_eq!(book.find(&deed, EPOCH).await, Ok(Some(running.clone())));
    book.put(&deed, EPOCH, &running, Some(Stage::Ended(Ending::Failed("no".into())))).await.unwrap();
    assert_eq!(book.find(&deed, EPOCH).await, Ok(Some(Stage::Ended(Ending::Failed("no".into())))));

    let stale = Err(DeedError::Stale { current: EPOCH });
    assert_eq!(book.begin(&deed, Epoch(0)).await, stale);
    assert_eq!(book.admit(Epoch(0)).await, Err(DeedError::Stale { current: EPOCH }));
    let early = book.begin(&deed, Epoch(EPOCH.0 + 1)).await;
    assert!(matches!(early, Err(DeedError::Unavailable { .. })), "{early:?}");
    let nobody = Deed { agent: "a9".into(), request: "r".into() };
    assert!(matches!(book.begin(&nobody, EPOCH).await, Err(DeedError::Unavailable { .. })));
    replica.stop().await;
}
