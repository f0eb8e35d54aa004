//! BOSH's own agent as the judge of how it comes to blobs, over a real NATS and real TLS. It is not part of this project: where there
//! is one, its path is given in `BOSH_AGENT`, and it is run on its dummy platform; so is that of its WebDAV client, in `BOSH_DAV`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agent_api::{BlobRef, HeartbeatSink, Method, Mode, PackageBlob, Request};
use cpi_api::AgentBootstrap;
use model::{AgentId, BlobDigest, NodeId};
use owned_tasks::{OnExit, OwnedTasks};
use rcgen::KeyPair;
use release::Blobstore as _;
use release::digest::{Algorithm, Hashed};
use serde_json::{Value, json};
use state::State;
use state::log::CommandLog as _;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::BlobDesk;
use super::tests::begin_vm;
use crate::config::{BlobPort, Port};
use crate::identity::Names;
use crate::nats::tests::{Heard, Server, until};
use crate::nats::{BothAgents, Nats};
use crate::test_support::replica::Replica;
use crate::test_support::state::EPOCH;
use crate::tls::{PortKind, TlsIdentity};
use crate::wire::open_authority;

/// Longest that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct RealAgent {
    program: PathBuf,
    base: TempDir,
    child: Child,
}

impl RealAgent {
    /// Starts it; without a WebDAV client, with one that fails: who is given URLs does not call it.
    pub(crate) fn start(program: &Path, env: &Value, dav_client: Option<&Path>) -> Self {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        for folder in ["root_dir/etc/logrotate.d", "bosh", "programs", "data/sys/log/j"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        let client = dav_client.unwrap_or(Path::new("/bin/false"));
        std::os::unix::fs::symlink(client, at("programs/bosh-blobstore-dav")).unwrap();
        let settings = json!({
            "agent_id": "a1", "vm": { "name": "vm-1" }, "ntp": [], "disks": { "persistent": {} }, "mbus": "",
            "networks": { "default": { "type": "manual", "ip": "10.244.0.11", "netmask": "255.255.255.0",
                "gateway": "10.244.0.1", "dns": [], "default": ["dns", "gateway"], "cloud_properties": {} } },
            "env": env,
        });
        std::fs::write(at("bosh/dummy-cpi-agent-env.json"), settings.to_string()).unwrap();
        let source = json!({ "Type": "File", "SettingsPath": at("bosh/dummy-cpi-agent-env.json") });
        let config = json!({ "Infrastructure": { "Settings": { "Sources": [source] } } });
        std::fs::write(at("bosh/agent.json"), config.to_string()).unwrap();
        let child = Self::launch(program, &base);
        Self { program: program.to_owned(), base, child }
    }

    fn launch(program: &Path, base: &TempDir) -> Child {
        let at = |path: &str| base.path().join(path);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(at("log")).unwrap();
        let path = format!("{}:{}", at("programs").display(), std::env::var("PATH").unwrap());
        Process::new(program)
            .args(["-P", "dummy", "-M", "dummy-nats", "-b"])
            .arg(base.path())
            .arg("-C")
            .arg(at("bosh/agent.json"))
            .current_dir(base.path())
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Waits until it has ended by itself, and starts it again, as its supervisor does.
    pub(crate) async fn supervise_once(&mut self) {
        until("its end", || self.child.try_wait().unwrap().is_some()).await;
        self.child = Self::launch(&self.program, &self.base);
    }

    pub(crate) fn read(&self, path: &str) -> String {
        let path = self.base.path().join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.base.path().join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(80).collect();
            eprintln!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// A replica with all that an agent needs of it.
pub(crate) struct World {
    pub(crate) replica: Replica,
    pub(crate) nats: Arc<Nats>,
    pub(crate) tasks: OwnedTasks,
    pub(crate) server: Server,
}

impl World {
    pub(crate) async fn start(api_version: u32) -> Option<Self> {
        let replica = Replica::start().await;
        let Some(server) = Server::start(&replica).await else {
            replica.stop().await;
            return None;
        };
        let tasks = OwnedTasks::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let port = Port { listen, advertise: listen.to_string() };
        let (blobs, kek) = (replica.door.blobs.clone(), &replica.kek);
        let desk = BlobDesk::new(Some(BlobPort { port, dav_advertise: None }), 1 << 30, blobs, kek);
        let cluster = State::new(&*replica.log.view()).cluster().unwrap();
        let (authority, key) = (open_authority(&cluster, kek).unwrap(), KeyPair::generate().unwrap());
        let issued = authority.issue_replica(NodeId(1), &Names::of_addresses([]), &key).unwrap();
        let authorities = authority.certificate_pem();
        let tls = Arc::new(TlsIdentity::new(&issued.chain_pem, &key.serialize_pem(), authorities).unwrap());
        let (routes, connections) = (desk.routes(), tasks.clone());
        tasks.spawn("blob port", OnExit::Ignore, move |stop| {
            crate::listen::serve(listener, tls, PortKind::Api, routes, connections, stop)
        });
        let nats = server.nats_with(&replica, desk);
        begin_vm(&replica, api_version).await;
        let sink: Arc<dyn HeartbeatSink> = Arc::new(Heard::default());
        nats.clone().run_in(&tasks, &replica, sink);
        Some(Self { replica, nats, tasks, server })
    }

    pub(crate) fn env(&self) -> Value {
        let cluster = State::new(&*self.replica.log.view()).cluster().unwrap();
        let (agent, authority) = (AgentId::new("a1"), cluster.secrets.authority_pem);
        let (mbus, blobstore) = (self.nats.mbus(&agent), self.nats.blobs.blobstore(&agent, authority));
        AgentBootstrap { mbus, blobstore, ..AgentBootstrap::default() }.into_env(&json!({ "bosh": {} }))
    }

    pub(crate) async fn call(&self, id: &str, method: Method) -> Value {
        let agents = BothAgents::of(Arc::new(agent_api::fake::FakeAgents::new()), Some(self.nats.clone()));
        let name = method.name();
        let request = Request { id: id.into(), epoch: EPOCH, mode: Mode::Submit, timeout: PATIENCE, method };
        let answer = agents.call(&"a1".into(), request).await;
        answer.unwrap_or_else(|error| panic!("{name}: {error}")).0
    }

    async fn store(&self, content: &[u8]) -> BlobDigest {
        self.replica.door.blobs.put(&mut &content[..]).await.unwrap().digest
    }

    async fn unpacked(&self, blob: &Value) -> TempDir {
        let (dir, mut content) = (tempfile::tempdir().unwrap(), Vec::new());
        let blob = BlobDigest::new(blob.as_str().unwrap());
        self.replica.door.blobs.get(&blob).await.unwrap().read_to_end(&mut content).await.unwrap();
        let archive = dir.path().join("archive.tgz");
        std::fs::write(&archive, content).unwrap();
        tar(dir.path(), &["-xzf", archive.to_str().unwrap()]);
        dir
    }
}

#[track_caller]
fn tar(folder: &Path, arguments: &[&str]) {
    let run = Process::new("tar").arg("-C").arg(folder).args(arguments).status().unwrap();
    assert!(run.success(), "{arguments:?}");
}

/// Packs files, by their paths.
fn packed(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join("in").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let archive = dir.path().join("archive.tgz");
    tar(&dir.path().join("in"), &["-czf", archive.to_str().unwrap(), "."]);
    std::fs::read(archive).unwrap()
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", Hashed::of(content).hex(Algorithm::Sha256))
}

/// Has a package compiled; returns its name, and what it has become.
async fn compile(world: &World, name: &str, script: &str, of: Vec<PackageBlob>) -> PackageBlob {
    let source = packed(&[("packaging", script)]);
    let source = BlobRef { blob: world.store(&source).await, digest: digest(&source) };
    let version = "f1.1".to_owned();
    let method =
        Method::CompilePackage { source, name: name.into(), version: version.clone(), dependencies: of };
    let result = world.call(&format!("t1-1-1-{name}"), method).await["result"].clone();
    let text = |key: &str| result[key].as_str().unwrap_or_else(|| panic!("{key} of {result}")).to_owned();
    let content = BlobRef { blob: BlobDigest::new(text("blobstore_id")), digest: text("sha1") };
    PackageBlob { name: name.into(), version, content }
}

fn spec(package: &PackageBlob, templates: &[u8]) -> Value {
    json!({ "deployment": "d", "name": "ig", "id": "i-1", "index": 0, "az": "z1", "networks": {},
        "job": { "name": "ig", "template": "j", "version": "v", "templates": [{ "name": "j", "version": "v" }] },
        "packages": { "p": { "name": "p", "version": package.version, "sha1": package.content.digest,
            "blobstore_id": package.content.blob } },
        "configuration_hash": "c1",
        "rendered_templates_archive": { "blobstore_id": "rendered-1", "sha1": digest(templates) } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bosh_s_own_agent_compiles_installs_and_sends_logs_by_signed_urls() {
    let Some(program) = std::env::var_os("BOSH_AGENT").map(PathBuf::from) else {
        return println!("skipped: BOSH_AGENT names no agent of BOSH's");
    };
    let Some(world) = World::start(3).await else { return println!("skipped: there is no nats-server here") };
    let agent = RealAgent::start(&program, &world.env(), None);
    until("its connection", || world.nats.is_connected()).await;
    assert_eq!(world.call("ping", Method::Ping).await, json!("pong"));

    let q = compile(&world, "q", "echo of q > $BOSH_INSTALL_TARGET/q", Vec::new()).await;
    let script = "cat $(dirname $BOSH_INSTALL_TARGET)/q/q > $BOSH_INSTALL_TARGET/p";
    let p = compile(&world, "p", script, vec![q]).await;
    assert!(p.content.digest.contains(";sha512:"), "{p:?}");
    let unpacked = world.unpacked(&json!(p.content.blob)).await;
    assert_eq!(std::fs::read_to_string(unpacked.path().join("p")).unwrap(), "of q\n");

    let templates = packed(&[("j/bin/run", "#!/bin/sh\n"), ("j/config/c", "of j"), ("j/monit", "")]);
    let upload = Method::UploadBlob {
        id: "rendered-1".into(),
        digest: digest(&templates),
        content: templates.clone(),
    };
    world.call("upload", upload).await;
    let spec = spec(&p, &templates);
    assert_eq!(world.call("prepare", Method::Prepare { spec: spec.clone() }).await, json!("prepared"));
    assert_eq!(world.call("apply", Method::Apply { spec }).await, json!("applied"));
    assert_eq!(agent.read("packages/p/p"), "of q\n");
    assert_eq!(agent.read("jobs/j/config/c"), "of j");
    let state = world.call("state", Method::GetState { full: false }).await;
    assert_eq!(state["packages"]["p"]["name"], "p", "{state}");
    assert!(!state.to_string().contains("signature="), "{state}");

    std::fs::write(agent.base.path().join("data/sys/log/j/out.log"), "a line\n").unwrap();
    let logs = world.call("logs", Method::FetchLogs { kind: "job".into(), filters: None }).await;
    let unpacked = world.unpacked(&logs["blobstore_id"]).await;
    assert_eq!(std::fs::read_to_string(unpacked.path().join("j/out.log")).unwrap(), "a line\n");

    let records = br#"{"version":7,"records":[]}"#;
    let (blob, sha256) = (world.store(records).await, digest(records));
    let sync = Method::SyncDns { blob, digest: sha256, version: 7 };
    assert_eq!(world.call("dns", sync).await, json!("synced"));
    assert!(world.tasks.stop(PATIENCE).await);
    world.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bosh_s_own_agent_of_an_older_stemcell_compiles_and_sends_logs_by_password() {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(program), Some(client)) = (given("BOSH_AGENT"), given("BOSH_DAV")) else {
        return println!("skipped: BOSH_AGENT and BOSH_DAV name no programs of BOSH's");
    };
    let Some(world) = World::start(2).await else { return println!("skipped: there is no nats-server here") };
    let agent = RealAgent::start(&program, &world.env(), Some(&client));
    until("its connection", || world.nats.is_connected()).await;
    let q = compile(&world, "q", "echo of q > $BOSH_INSTALL_TARGET/q", Vec::new()).await;
    let script = "cat $(dirname $BOSH_INSTALL_TARGET)/q/q > $BOSH_INSTALL_TARGET/p";
    let p = compile(&world, "p", script, vec![q]).await;
    assert_eq!(p.content.digest.len(), 40, "a SHA-1 alone: {p:?}");
    let unpacked = world.unpacked(&json!(p.content.blob)).await;
    assert_eq!(std::fs::read_to_string(unpacked.path().join("p")).unwrap(), "of q\n");
    std::fs::write(agent.base.path().join("data/sys/log/j/out.log"), "a line\n").unwrap();
    let logs = world.call("logs", Method::FetchLogs { kind: "job".into(), filters: None }).await;
    let unpacked = world.unpacked(&logs["blobstore_id"]).await;
    assert_eq!(std::fs::read_to_string(unpacked.path().join("j/out.log")).unwrap(), "a line\n");
    assert!(world.tasks.stop(PATIENCE).await);
    world.replica.stop().await;
}
