//! What BOSH's agent does on the bus, as far as a director can tell: one callback that takes one message after the other, one
//! worker with a short queue, tasks that are forgotten on a restart, no idea of our request ids or epochs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_client_nats::users;
use async_nats::{Client, ConnectError, ConnectOptions};
use futures::StreamExt as _;
use model::AgentId;
use owned_tasks::{OnExit, OwnedTasks};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{NatsServer, PATIENCE};

/// How many actions wait behind the one that runs; one more blocks the callback.
const QUEUE: usize = 5;

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

#[derive(Clone)]
enum Task {
    Running,
    Ended(Result<Value, String>),
}

/// What is in the agent's memory.
struct Memory {
    tasks: Mutex<HashMap<String, (Task, CancellationToken)>>,
    queue: mpsc::Sender<(String, Request)>,
}

#[derive(Clone, Deserialize)]
struct Request {
    method: String,
    #[serde(default)]
    arguments: Vec<Value>,
    reply_to: String,
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

    fn loses(&self, method: &str) -> bool {
        let mut lose = self.lose.lock().unwrap();
        let place = lose.iter().position(|lost| *lost == method);
        place.map(|place| lose.remove(place)).is_some()
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
        let subject = format!("agent.{}", self.id);
        let mut messages = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let memory = Arc::new(Memory { tasks: Mutex::default(), queue });
        let (machine, inside) = (self.machine.clone(), memory.clone());
        tasks.spawn("worker", OnExit::Ignore, |stop| async move {
            let work = async {
                while let Some((id, request)) = waiting.recv().await {
                    inside.work(&machine, id, request).await;
                }
            };
            tokio::select! { () = work => {}, () = stop.cancelled() => {} }
        });
        let heartbeat = json!({ "deployment": "", "job": null, "index": null, "job_state": "running",
            "vitals": { "mem": { "kb": "1", "percent": "1" } }, "node_id": "", "number_of_processes": 3 });
        let to = format!("hm.agent.heartbeat.{}", self.id);
        client.publish(to, heartbeat.to_string().into()).await.unwrap();
        let machine = self.machine.clone();
        tasks.spawn("callback", OnExit::Ignore, |stop| async move {
            let take = async {
                while let Some(message) = messages.next().await {
                    let Ok(request) = serde_json::from_slice::<Request>(&message.payload) else { continue };
                    take(&client, &machine, &memory, request).await;
                }
            };
            tokio::select! { () = take => {}, () = stop.cancelled() => {} }
        });
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

async fn take(client: &Client, machine: &Machine, memory: &Memory, request: Request) {
    machine.asked.lock().unwrap().push(request.method.clone());
    if request.method == "start" {
        let takes = *machine.start_takes.lock().unwrap();
        tokio::time::sleep(takes).await;
    }
    let answer = match at_once(machine, memory, &request) {
        Some(answer) => answer,
        None => memory.start(request.clone()).await,
    };
    let body = match answer {
        Ok(value) => json!({ "value": value }),
        Err(message) => json!({ "exception": { "message": message } }),
    };
    if !machine.loses(&request.method) {
        client.publish(request.reply_to, body.to_string().into()).await.unwrap();
    }
}

/// The actions that are done in the callback.
fn at_once(machine: &Machine, memory: &Memory, request: &Request) -> Option<Result<Value, String>> {
    let text = |place: usize| request.arguments.get(place).and_then(Value::as_str).unwrap_or_default();
    Some(match request.method.as_str() {
        "ping" => Ok(json!("pong")),
        "get_state" => Ok(json!({ "job_state": "running", "agent_id": "?" })),
        "get_task" => memory.task(text(0)),
        "cancel_task" => memory.cancel(text(0)),
        "start" => {
            machine.begin("start");
            Ok(json!("started"))
        }
        "ssh" if text(0) == "setup" => {
            machine.begin("setup");
            let user = request.arguments[1]["user"].as_str().unwrap().to_owned();
            if machine.users.lock().unwrap().insert(user.clone()) {
                Ok(json!({ "command": "setup", "status": "success" }))
            } else {
                Err(format!("Action Failed ssh: Creating user: user '{user}' already exists"))
            }
        }
        "ssh" => {
            let regex = request.arguments[1]["user_regex"].as_str().unwrap();
            let name = regex.trim_start_matches('^').trim_end_matches('$');
            machine.users.lock().unwrap().retain(|user| user != name);
            Ok(json!({ "command": "cleanup", "status": "success" }))
        }
        "list_disk" | "run_errand" | "upload_blob" | "prepare" | "migrate_disk" => return None,
        other => Err(format!("unknown message {other}")),
    })
}

impl Memory {
    async fn start(&self, request: Request) -> Result<Value, String> {
        let id = uuid::Uuid::new_v4().to_string();
        self.tasks.lock().unwrap().insert(id.clone(), (Task::Running, CancellationToken::new()));
        self.queue.send((id.clone(), request)).await.unwrap();
        Ok(json!({ "agent_task_id": id, "state": "running" }))
    }

    fn task(&self, id: &str) -> Result<Value, String> {
        match self.tasks.lock().unwrap().get(id) {
            None => Err(format!("Action Failed get_task: Task with id {id} could not be found")),
            Some((Task::Running, _)) => Ok(json!({ "agent_task_id": id, "state": "running" })),
            Some((Task::Ended(ending), _)) => {
                ending.clone().map_err(|error| format!("Action Failed get_task: Task {id} result: {error}"))
            }
        }
    }

    fn cancel(&self, id: &str) -> Result<Value, String> {
        match self.tasks.lock().unwrap().get(id) {
            None => Err(format!("Action Failed cancel_task: Task with id {id} could not be found")),
            Some((_, token)) => {
                token.cancel();
                Ok(json!("canceled"))
            }
        }
    }

    /// Does one action, as the worker.
    async fn work(&self, machine: &Machine, id: String, request: Request) {
        let token = self.tasks.lock().unwrap()[&id].1.clone();
        let argument = request.arguments.first().cloned().unwrap_or_default();
        let ending = match request.method.as_str() {
            "run_errand" => errand(machine, argument.as_str().unwrap(), &token).await,
            "upload_blob" => {
                machine.begin("upload_blob");
                Ok(json!([argument["blob_id"], argument["payload"]]))
            }
            "list_disk" => Ok(json!(["disk-1"])),
            other => {
                machine.begin(other);
                Ok(json!({}))
            }
        };
        self.tasks.lock().unwrap().insert(id, (Task::Ended(ending), token));
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
