//! BOSH's agent on the bus of a test, and what it acts on: a machine that does what the test wants of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_client_nats::users;
use agent_stand_in::{Actions, StandIn};
use async_nats::{Client, ConnectError, ConnectOptions};
use async_trait::async_trait;
use model::AgentId;
use owned_tasks::{OnExit, OwnedTasks};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{NatsServer, PATIENCE};

/// What outlives a restart of the agent: the machine, and what the test wants of it.
#[derive(Default)]
pub struct Machine {
    begun: Mutex<BTreeMap<String, usize>>,
    users: Mutex<BTreeSet<String>>,
    released: watch::Sender<bool>,
    /// Methods whose next answer gets lost on the way.
    lose: Mutex<Vec<&'static str>>,
    start_takes: Mutex<Duration>,
    pub asked: Mutex<Vec<String>>,
}

/// The agent.
pub struct GoAgent {
    pub id: AgentId,
    pub machine: Arc<Machine>,
    server: Arc<NatsServer>,
    running: Mutex<Option<OwnedTasks>>,
}

impl Machine {
    pub fn begun(&self, what: &str) -> usize {
        self.begun.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Has the next answer to a method lost.
    pub fn lose_answer(&self, method: &'static str) {
        self.lose.lock().unwrap().push(method);
    }

    /// Has every `start` take so long, in the callback.
    pub fn start_takes(&self, time: Duration) {
        *self.start_takes.lock().unwrap() = time;
    }

    fn begin(&self, what: &str) {
        *self.begun.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    fn ssh(&self, command: &str, of: &Value) -> Result<Value, String> {
        let mut users = self.users.lock().unwrap();
        if command == "cleanup" {
            let name = of["user_regex"].as_str().unwrap().trim_start_matches('^').trim_end_matches('$');
            users.retain(|user| user != name);
        } else {
            self.begin("setup");
            let user = of["user"].as_str().unwrap();
            if !users.insert(user.to_owned()) {
                return Err(format!("Creating user: user '{user}' already exists"));
            }
        }
        Ok(json!({ "command": command, "status": "success" }))
    }
}

impl GoAgent {
    pub async fn start(server: &Arc<NatsServer>, id: &str) -> Self {
        let agent = Self {
            id: id.into(),
            machine: Arc::default(),
            server: server.clone(),
            running: Mutex::new(None),
        };
        agent.run().await;
        agent
    }

    pub async fn restart(&self) {
        self.stop().await;
        self.run().await;
    }

    pub async fn stop(&self) {
        let tasks = self.running.lock().unwrap().take();
        if let Some(tasks) = tasks {
            assert!(tasks.stop(PATIENCE).await, "the agent ends");
        }
    }

    async fn run(&self) {
        let tasks = OwnedTasks::new();
        let client = connect(&self.server, &users::common_name(&self.id)).await;
        let (id, machine) = (self.id.clone(), self.machine.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        tasks.spawn("agent", OnExit::Ignore, |stop| async move {
            let agent = StandIn::listen(client, id, &*machine).await.unwrap();
            tell.send(()).unwrap();
            tokio::select! { () = agent.serve() => {}, () = stop.cancelled() => {} }
        });
        told.await.unwrap();
        *self.running.lock().unwrap() = Some(tasks);
    }
}

impl Drop for GoAgent {
    fn drop(&mut self) {
        if let Some(tasks) = self.running.lock().unwrap().take() {
            tasks.stop_token().cancel();
        }
    }
}

/// Connects with a certificate of that name.
pub async fn connect(server: &NatsServer, common_name: &str) -> Client {
    try_connect(server, common_name).await.unwrap()
}

/// Tries to connect with a certificate of that name.
pub async fn try_connect(server: &NatsServer, common_name: &str) -> Result<Client, ConnectError> {
    let identity = server.authority.identity(common_name);
    ConnectOptions::new()
        .require_tls(true)
        .add_root_certificates(server.authority.pem_file())
        .add_client_certificate(identity.certificate, identity.key)
        .reconnect_delay_callback(|_| Duration::from_millis(50))
        .connect(server.url())
        .await
}

#[async_trait]
impl Actions for Machine {
    fn knows(&self, method: &str) -> bool {
        let known = [
            "ping",
            "get_state",
            "start",
            "ssh",
            "list_disk",
            "run_errand",
            "upload_blob",
            "prepare",
            "migrate_disk",
            "fetch_logs_with_signed_url",
        ];
        known.contains(&method)
    }

    fn heard(&self, method: &str) {
        self.asked.lock().unwrap().push(method.to_owned());
    }

    fn loses_answer(&self, method: &str) -> bool {
        let mut lose = self.lose.lock().unwrap();
        let place = lose.iter().position(|lost| *lost == method);
        place.map(|place| lose.remove(place)).is_some()
    }

    async fn heartbeat(&self) -> Value {
        json!({ "deployment": "", "job": null, "index": null, "job_state": "running",
            "vitals": { "mem": { "kb": "1", "percent": "1" } }, "node_id": "", "number_of_processes": 3 })
    }

    async fn perform(
        &self,
        method: &str,
        arguments: &[Value],
        cancel: &CancellationToken,
    ) -> Result<Value, String> {
        let first = arguments.first().cloned().unwrap_or_default();
        match method {
            "ping" => Ok(json!("pong")),
            "get_state" => Ok(json!({ "job_state": "running", "agent_id": "?" })),
            "start" => {
                let takes = *self.start_takes.lock().unwrap();
                tokio::time::sleep(takes).await;
                self.begin("start");
                Ok(json!("started"))
            }
            "ssh" => self.ssh(first.as_str().unwrap(), &arguments[1]),
            "run_errand" => errand(self, first.as_str().unwrap(), cancel).await,
            "upload_blob" => {
                self.begin("upload_blob");
                Ok(json!([first["blob_id"], first["payload"]]))
            }
            "list_disk" => Ok(json!(["disk-1"])),
            "fetch_logs_with_signed_url" => {
                self.begin(method);
                let mut released = self.released.subscribe();
                let _ = released.wait_for(|released| *released).await;
                match first["signed_url"].as_str().unwrap() {
                    gone if gone.starts_with("https://first/") => {
                        Err(format!("Put {gone:?}: connection refused"))
                    }
                    _ => Ok(json!({ "sha1": "d" })),
                }
            }
            other => {
                self.begin(other);
                Ok(json!({}))
            }
        }
    }
}

async fn errand(machine: &Machine, name: &str, token: &CancellationToken) -> Result<Value, String> {
    let exited = |code: i32, stdout: &str| Ok(json!({ "exit_code": code, "stdout": stdout, "stderr": "" }));
    let mut released = machine.released.subscribe();
    match name {
        "quick" => {
            machine.begin(name);
            exited(0, "done\n")
        }
        "slow" => {
            machine.begin(name);
            tokio::select! {
                _ = released.wait_for(|released| *released) => exited(0, "done\n"),
                () = token.cancelled() => exited(143, ""),
            }
        }
        _ => Err(format!("Running errand: no job {name}")),
    }
}
