//! People who deploy: they ask for a deployment of another shape, wait for the end of the task, and ask again.

use std::time::Duration;

use model::task::{DeployOptions, Task, TaskKind, TaskState};
use model::{DeploymentName, LockName, RequestId, TaskId};
use state::State;
use state::command::{Command, Outcome};
use tokio::time::Instant;

use super::documents::{Wish, manifest};
use super::{Answer, Client};

/// What is deployed.
pub const DEPLOYMENTS: [&str; 2] = ["blue", "green"];

/// What is deployed before anything breaks, and by nobody afterwards.
pub const AT_REST: &str = "red";

/// How many instances each has in the end.
pub const INSTANCES: u64 = 2;

/// How long a request may be without an answer, and a task without an end, before the deployer asks for something else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who deploys one deployment.
pub struct Deployer {
    /// How it asks.
    pub client: Client,
    /// What it deploys.
    pub deployment: &'static str,
}

impl Deployer {
    /// Deploys until there is no more time.
    pub async fn run(self) {
        let mut number = 0;
        while !self.client.enough.is_cancelled() {
            number += 1;
            let wish = Wish {
                instances: self.client.between(0, 3),
                port: self.client.between(1, 2),
                disk_mib: self.client.between(0, 1) * 1024,
            };
            let kind = match self.client.between(0, 9) {
                0 => TaskKind::DeleteDeployment { force: false },
                1 => deploy(self.deployment, wish, true),
                _ => deploy(self.deployment, wish, false),
            };
            let id = RequestId::new(format!("{}-{number}", self.client.name));
            if let Some(task) = queue(&self.client, &id, self.deployment, kind, PATIENCE).await {
                self.follow(task).await;
            }
            self.client.pause(0, 1500).await;
        }
    }

    async fn follow(&self, task: TaskId) {
        let give_up_ms = self.client.between(500, 40_000);
        let limit = Duration::from_millis(give_up_ms).min(PATIENCE);
        if ended(&self.client, task, limit).await.is_none() && self.client.between(0, 1) == 0 {
            let id = RequestId::new(format!("{}-cancel-{task}", self.client.name));
            let _either_way = self.client.ask(&id, &Command::TaskCancel { task }, PATIENCE).await;
        }
    }

    /// Brings the deployment to where it should be, once nothing breaks any more; says why that did not work.
    pub async fn converge(self) -> Result<(), String> {
        const LIMIT: Duration = Duration::from_secs(120);
        let wish = Wish { instances: INSTANCES, port: 3, disk_mib: 1024 };
        // A first one may still meet what the faults have left, as one that failed halfway does. What appears late in the cloud
        // may have an address of ours, until somebody finds it.
        let (mut last, mut failed, mut attempt) = (String::new(), 0, 0);
        let enough = Instant::now() + LIMIT;
        while failed < 2 {
            attempt += 1;
            let id = RequestId::new(format!("{}-final-{attempt}", self.client.name));
            let kind = deploy(self.deployment, wish, failed == 1);
            let Some(task) = queue(&self.client, &id, self.deployment, kind, LIMIT).await else {
                return Err(format!("{}: the last deploy was not taken", self.deployment));
            };
            match ended(&self.client, task, LIMIT).await {
                Some(task) if task.state == TaskState::Done => return Ok(()),
                Some(task) => {
                    last = format!("{}: {:?}: {:?}", self.deployment, task.state, task.error);
                    let is_address =
                        task.error.is_some_and(|error| error.message.contains("is in use by VM"));
                    match is_address && Instant::now() < enough {
                        true => self.client.pause(2000, 4000).await,
                        false => failed += 1,
                    }
                }
                None => return Err(format!("{}: task {task} has no end", self.deployment)),
            }
        }
        Err(last)
    }
}

fn deploy(deployment: &str, wish: Wish, fix: bool) -> TaskKind {
    let options = DeployOptions { fix, ..DeployOptions::default() };
    TaskKind::Deploy { manifest_text: manifest(deployment, wish), options }
}

async fn queue(
    client: &Client,
    id: &RequestId,
    deployment: &str,
    kind: TaskKind,
    limit: Duration,
) -> Option<TaskId> {
    let locks = vec![LockName::new(format!("lock:deployment:{deployment}"))];
    let deployment = Some(DeploymentName::new(deployment));
    let command = Command::TaskQueue { kind, deployment, context_id: String::new(), locks };
    match client.ask(id, &command, limit).await {
        Answer::Known(Ok(Outcome::TaskQueued(task))) => Some(task),
        _ => None,
    }
}

/// Waits until a task has ended.
async fn ended(client: &Client, task: TaskId, limit: Duration) -> Option<Task> {
    let looking = async {
        loop {
            if let Some(view) = client.look(Duration::from_secs(5)).await
                && let Some(task) = State::new(&*view).task(task).filter(|task| task.state.is_final())
            {
                return task;
            }
            client.pause(50, 150).await;
        }
    };
    tokio::time::timeout(limit, looking).await.ok()
}
