//! The agent's tasks: in memory, and gone with it, but for those that are noted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::methods::{PERSISTENT, can_be_cancelled};
use crate::{Actions, Request};

/// What has been begun since the agent's start.
pub(crate) struct Memory {
    tasks: Mutex<HashMap<String, Task>>,
    queue: mpsc::Sender<(String, Request)>,
}

struct Task {
    method: String,
    cancel: CancellationToken,
    /// None, while it runs or waits.
    ending: Option<Result<Value, String>>,
}

impl Memory {
    /// Makes that of an agent that has noted these tasks before it was restarted.
    pub fn new(queue: mpsc::Sender<(String, Request)>, noted: Vec<String>) -> Self {
        let resumed = |id| {
            let (method, ending) = (PERSISTENT.to_owned(), Some(Ok(json!("ok"))));
            (id, Task { method, cancel: CancellationToken::new(), ending })
        };
        Self { tasks: Mutex::new(noted.into_iter().map(resumed).collect()), queue }
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<String, Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request into the queue; waits while that is full.
    pub async fn start(&self, request: Request) -> Result<Value, String> {
        let id = Uuid::new_v4().to_string();
        let task = Task { method: request.method.clone(), cancel: CancellationToken::new(), ending: None };
        self.tasks().insert(id.clone(), task);
        self.queue.send((id.clone(), request)).await.map_err(|_| "the worker has ended".to_owned())?;
        Ok(running(&id))
    }

    /// Says how a task fares.
    pub fn task(&self, id: &str) -> Result<Value, String> {
        match self.tasks().get(id).map(|task| &task.ending) {
            None => Err(format!("Action Failed get_task: {}", no_such(id))),
            Some(None) => Ok(running(id)),
            Some(Some(ending)) => {
                ending.clone().map_err(|error| format!("Action Failed get_task: Task {id} result: {error}"))
            }
        }
    }

    /// Has a task given up. One that has ended is not changed by it.
    pub fn cancel(&self, id: &str) -> Result<Value, String> {
        match self.tasks().get(id) {
            None => Err(format!("Action Failed cancel_task: {}", no_such(id))),
            Some(Task { method, ending: None, .. }) if !can_be_cancelled(method) => {
                Err("Action Failed cancel_task: not supported".to_owned())
            }
            Some(task) => {
                task.cancel.cancel();
                Ok(json!("canceled"))
            }
        }
    }

    /// Does what is in the queue, one after the other.
    pub async fn work(&self, actions: &dyn Actions, mut waiting: mpsc::Receiver<(String, Request)>) {
        while let Some((id, request)) = waiting.recv().await {
            let Some(cancel) = self.tasks().get(&id).map(|task| task.cancel.clone()) else { continue };
            if request.method == PERSISTENT {
                actions.note_task(&id);
            }
            let ending = actions.perform(&request.method, &request.arguments, &cancel).await;
            if let Some(task) = self.tasks().get_mut(&id) {
                task.ending = Some(ending);
            }
        }
    }
}

fn running(id: &str) -> Value {
    json!({ "agent_task_id": id, "state": "running" })
}

fn no_such(id: &str) -> String {
    format!("Task with id {id} could not be found")
}
