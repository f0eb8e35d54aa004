//! What people and pipelines ask of the fleet while it breaks.

mod deployers;
mod documents;
mod registers;
mod setup;
mod watchers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::RequestId;
use state::command::{Command, Outcome, Refusal};
use state::log::{CommandLog as _, Proposal, View};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::net::{Net, Place};
use crate::services::Services;

pub use self::deployers::{AT_REST, DEPLOYMENTS, Deployer, INSTANCES};
pub use self::registers::{RegisterClient, recorder};
pub use self::setup::{is_prepared, prepare};
pub use self::watchers::{Sight, WatcherClient, change};

/// The number of the process that clients are.
pub const CLIENTS: u64 = 2000;

/// How long a client waits for an answer before it asks another replica.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Somebody who asks.
#[derive(Clone)]
pub struct Client {
    /// Over this network.
    pub net: Net,
    /// How many replicas there are; their numbers begin with 1.
    pub replicas: u64,
    /// Chance of its own.
    pub chance: Arc<Mutex<Chance>>,
    /// What its requests are named after.
    pub name: String,
    /// No new work after this.
    pub enough: CancellationToken,
}

/// What a client knows in the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Done, or refused.
    Known(Result<Outcome, Refusal>),
    /// Nobody answered in time: it may be done, now or later.
    Unknown,
}

impl Client {
    /// Draws a number.
    pub fn between(&self, min: u64, max: u64) -> u64 {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).between(min, max)
    }

    /// Waits for so many milliseconds.
    pub async fn pause(&self, min: u64, max: u64) {
        tokio::time::sleep(Duration::from_millis(self.between(min, max))).await;
    }

    fn me(&self) -> Place {
        Place { process: CLIENTS, life: 1 }
    }

    /// Has a command done by whichever replica answers, under one id, within `limit`.
    pub async fn ask(&self, id: &RequestId, command: &Command, limit: Duration) -> Answer {
        let attempts = async {
            loop {
                let proposal = Proposal { request_id: Some(id.clone()), ..Proposal::own(command.clone()) };
                let asked = self.net.call(self.me(), self.between(1, self.replicas), move |services| {
                    let Services::Replica(replica) = services else { return None };
                    let proposal = proposal.clone();
                    Some(async move { replica.log.propose(proposal).await })
                });
                match tokio::time::timeout(ATTEMPT, asked).await {
                    Ok(Ok(Ok(committed))) => return committed.outcome.accepted(),
                    _ => self.pause(10, 100).await,
                }
            }
        };
        match tokio::time::timeout(limit, attempts).await {
            Ok(outcome) => Answer::Known(outcome),
            Err(_) => Answer::Unknown,
        }
    }

    /// Returns a look at the state that has everything in it that anybody was told before; none within `limit`.
    pub async fn look(&self, limit: Duration) -> Option<View> {
        let attempts = async {
            loop {
                let asked = self.net.call(self.me(), self.between(1, self.replicas), move |services| {
                    let Services::Replica(replica) = services else { return None };
                    Some(async move {
                        replica.log.read_barrier().await.ok()?;
                        Some(replica.log.view())
                    })
                });
                match tokio::time::timeout(ATTEMPT, asked).await {
                    Ok(Ok(Some(view))) => return view,
                    _ => self.pause(10, 100).await,
                }
            }
        };
        tokio::time::timeout(limit, attempts).await.ok()
    }
}
