//! A NATS server of the test's own, configured as BOSH's job configures it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use agent_client_nats::users;
use model::AgentId;
use tempfile::TempDir;

use super::{Authority, until};

const PROGRAM: &str = "nats-server";

/// Returns why there can be no server here.
pub fn missing() -> Option<String> {
    let run = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match run {
        Ok(status) if status.success() => None,
        _ => Some(format!("there is no {PROGRAM} here")),
    }
}

/// A server that ends with the test.
pub struct NatsServer {
    pub authority: Authority,
    dir: TempDir,
    port: u16,
    running: Mutex<Option<Child>>,
}

impl NatsServer {
    /// Starts one that knows these agents.
    pub async fn start(agents: &[&str]) -> Self {
        let authority = Authority::new();
        authority.identity("default.nats.bosh-internal");
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self { authority, dir, port: 0, running: Mutex::new(None) };
        server.authorise(agents);
        // The server picks a port that is free, and writes down which.
        server.configure("-1");
        let child = server.launch();
        let ports = server.dir.path().join(format!("{PROGRAM}_{}.ports", child.id()));
        *server.running.lock().unwrap() = Some(child);
        until("the server's port", || read_port(&ports).is_some()).await;
        server.port = read_port(&ports).unwrap();
        server.configure(&server.port.to_string());
        server
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Writes down who may speak; a running server is told.
    pub fn authorise(&self, agents: &[&str]) {
        let agents: Vec<AgentId> = agents.iter().copied().map(AgentId::from).collect();
        std::fs::write(self.path("auth.conf"), users::authorization(&agents)).unwrap();
        if let Some(child) = &*self.running.lock().unwrap() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
        }
    }

    /// Kills the server.
    pub fn kill(&self) {
        if let Some(mut child) = self.running.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again, where it was.
    pub fn revive(&self) {
        *self.running.lock().unwrap() = Some(self.launch());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, port: &str) {
        let authority = self.authority.pem_file();
        let folder = authority.parent().unwrap().display();
        let text = format!(
            "host: 127.0.0.1\nport: {port}\nports_file_dir: {:?}\ninclude auth.conf\n\
             tls {{ cert_file: \"{folder}/default.nats.bosh-internal.pem\", key_file: \
             \"{folder}/default.nats.bosh-internal.key\", ca_file: {authority:?}, verify_and_map: true, timeout: 5 }}\n\
             ping_interval: \"5s\"\nping_max: 2\nmax_payload: 1048576\n",
            self.dir.path()
        );
        std::fs::write(self.path("nats.conf"), text).unwrap();
    }

    fn launch(&self) -> Child {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let config = self.path("nats.conf");
        let mut command = Command::new(PROGRAM);
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

fn read_port(file: &Path) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}
