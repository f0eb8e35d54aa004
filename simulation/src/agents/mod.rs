//! Agents and their replicas: heartbeats up, homes down. What stands on the replica's side is real ([`side`]); an agent is
//! simulated ([`life`]), but chooses whom to dial as the real one does.

pub mod life;
pub mod side;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::AgentId;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::life::Life;

/// An agent in its VM.
struct InVm {
    runs: watch::Sender<bool>,
    over: CancellationToken,
    /// Whether its VM will never run again.
    is_dead: bool,
}

/// How a VM stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It will never run again.
    ForGood,
    /// It knows nothing of it afterwards.
    ForAWhile,
}

/// All agents that live, or have lived in a VM that is still there; clones are the same.
#[derive(Clone, Default)]
pub struct Lives(Arc<Mutex<BTreeMap<AgentId, InVm>>>);

impl Lives {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, InVm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent begins to live.
    pub fn begin(
        &self,
        tasks: &OwnedTasks,
        agent: &AgentId,
        live: impl FnOnce(watch::Receiver<bool>) -> Life,
    ) {
        let (runs, running) = watch::channel(true);
        let (life, over) = (live(running), CancellationToken::new());
        let end = over.clone();
        tasks.spawn("agent", OnExit::Ignore, move |_| async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = life.run() => {}
            }
        });
        let before = self.lock().insert(agent.clone(), InVm { runs, over, is_dead: false });
        before.inspect(|before| before.over.cancel());
    }

    /// An agent's VM is gone.
    pub fn end(&self, agent: &AgentId) {
        self.lock().remove(agent).inspect(|agent| agent.over.cancel());
    }

    /// Returns the agents whose VMs run.
    pub fn running(&self) -> Vec<AgentId> {
        let lives = self.lock();
        lives.iter().filter(|(_, agent)| *agent.runs.borrow()).map(|(id, _)| id.clone()).collect()
    }

    /// Stops an agent's VM, for good or until it is [let go on](Self::go_on).
    pub fn stop(&self, agent: &AgentId, how: Stopped) {
        if let Some(agent) = self.lock().get_mut(agent) {
            agent.runs.send_replace(false);
            agent.is_dead |= how == Stopped::ForGood;
        }
    }

    /// Lets an agent's VM go on, unless it is dead. Returns whether it does.
    pub fn go_on(&self, agent: &AgentId) -> bool {
        let lives = self.lock();
        let agent = lives.get(agent).filter(|agent| !agent.is_dead);
        agent.is_some_and(|agent| {
            agent.runs.send_replace(true);
            true
        })
    }

    /// Returns the agents whose VMs do not run.
    pub fn stopped(&self) -> Vec<AgentId> {
        let lives = self.lock();
        lives.iter().filter(|(_, agent)| !*agent.runs.borrow()).map(|(id, _)| id.clone()).collect()
    }
}
