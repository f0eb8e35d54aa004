//! What a fleet is asked to do while things happen to it, and all that it answered: one kind of client per file.
//!
//! Every client records what it saw, not what it thinks of it; judging is for [`crate::checks`]. They share a thread of
//! their own, which begins in the caller's network: whoever injects faults runs programs meanwhile, and waits for them.
//!
//! Invariants: a value or a file is written once and by one client only; every loop looks at the same stop, and ends once
//! it has the answer that it waits for; patience has a bound.

mod configs;
mod deploys;
mod registers;
mod sightings;
mod uploads;
pub(crate) mod watchers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use checkers::history::{History, Recorder};
use checkers::linearizable::register;
use checkers::output::Followed;
use checkers::watch::Watcher;
use dctl::client::Patience;
use futures::future::LocalBoxFuture;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use retry::Policy;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Credentials};
use crate::cluster::Cluster;
use crate::wait;

pub use configs::{Write, note};
pub use deploys::deployment;
pub use registers::KIND as REGISTER_KIND;
pub use sightings::Sightings;
pub use uploads::Blob;

/// How long those who are under way may take to end: as patient as a client is, and a little more.
const END_WITHIN: Duration = Duration::from_secs(60);

/// How much of what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Clients that read, write, compare and set registers.
    pub register_clients: usize,
    /// How many registers they share.
    pub registers: usize,
    /// Clients that write configs, each its own, as patiently as an operator.
    pub writers: usize,
    /// Clients that watch every change, now on this replica, now on that.
    pub watchers: usize,
    /// Deployments that grow and shrink.
    pub deployments: usize,
    /// How many instances each has at most.
    pub instances_max: usize,
    /// Clients that upload files and read them back.
    pub uploaders: usize,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            register_clients: 5,
            registers: 3,
            writers: 2,
            watchers: 2,
            deployments: 1,
            instances_max: 3,
            uploaders: 1,
        }
    }
}

/// What was seen from outside.
#[derive(Debug)]
pub struct Observed {
    /// What was asked of registers, and answered.
    pub registers: History<register::Call>,
    /// All acknowledged writes of configs.
    pub writes: Vec<Write>,
    /// What watchers received.
    pub watchers: Vec<Watcher>,
    /// Tasks that were acknowledged.
    pub tasks: Vec<u64>,
    /// Their outputs as they were followed; what is stored is not filled in.
    pub followed: Vec<(u64, proto::v1::follow_task_request::Kind, Followed)>,
    /// Uploads that were acknowledged.
    pub blobs: Vec<Blob>,
    /// Files that were read back and were not what had been uploaded.
    pub damaged: Vec<String>,
    /// Who held locks and whose agents were heard, by somebody who looked now and then.
    pub sightings: Sightings,
    /// Calls of patient clients that had no answer.
    pub unanswered: Vec<String>,
}

/// How much was answered until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Events in the registers' history.
    pub register_events: usize,
    /// Acknowledged writes of configs.
    pub writes: usize,
    /// Acknowledged tasks.
    pub tasks: usize,
    /// Outputs of tasks that were followed to their end.
    pub outputs: usize,
    /// Acknowledged uploads.
    pub blobs: usize,
}

/// What clients note while they run.
#[derive(Debug, Default)]
struct Notes {
    writes: Vec<Write>,
    watchers: Vec<Watcher>,
    tasks: Vec<u64>,
    followed: Vec<(u64, proto::v1::follow_task_request::Kind, Followed)>,
    blobs: Vec<Blob>,
    damaged: Vec<String>,
    sightings: Sightings,
    unanswered: Vec<String>,
}

/// What every client is given.
#[derive(Clone)]
struct Ground {
    addresses: Vec<String>,
    credentials: Credentials,
    seed: u64,
    begun: Instant,
    stop: CancellationToken,
    notes: Arc<Mutex<Notes>>,
    registers: Arc<Recorder<register::Call>>,
}

impl Ground {
    /// Returns a client of all replicas that begins with the `first`th, and gives up after `total`.
    fn client(&self, first: usize, attempt: Duration, total: Duration) -> Result<Client> {
        let mut addresses = self.addresses.clone();
        let replicas = addresses.len();
        addresses.rotate_left(first % replicas);
        let rounds = Policy {
            initial: Duration::from_millis(50),
            max: Duration::from_millis(500),
            total: Some(total),
        };
        Client::with_patience(&addresses, &self.credentials, Patience { attempt, rounds })
    }

    /// Returns a client of all replicas that is as patient as an operator.
    fn patient(&self, first: usize) -> Result<Client> {
        self.client(first, Duration::from_secs(5), Duration::from_secs(30))
    }

    /// Returns a source of chance of one client.
    fn chance(&self, kind: u64, number: usize) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (kind << 32) ^ (number as u64 + 1))
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn is_over(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for so long, or until it is all over.
    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A push is whole or has not happened.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clients at work.
pub struct Workloads {
    clients: JoinHandle<Result<()>>,
    ground: Ground,
}

impl Workloads {
    /// Lets all clients begin. For deployments the fleet must have been given what `hello` needs.
    pub fn start(cluster: &Cluster, seed: u64, mix: Mix) -> Result<Self> {
        let ground = Ground {
            addresses: cluster.addresses(),
            credentials: cluster.credentials().clone(),
            seed,
            begun: Instant::now(),
            stop: CancellationToken::new(),
            notes: Arc::default(),
            registers: Recorder::new(),
        };
        ensure!(mix.register_clients == 0 || mix.registers > 0, "clients of registers need a register");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let given = ground.clone();
        let live = move || runtime.block_on(run(&given, mix));
        let clients = std::thread::Builder::new().name("workloads".into()).spawn(live)?;
        Ok(Self { clients, ground })
    }

    /// Returns the time from a moment until a write that was asked after it was acknowledged; none, if none was yet.
    pub fn first_write_after(&self, moment: Instant) -> Option<Duration> {
        let notes = self.ground.notes();
        let after = notes.writes.iter().filter(|write| write.asked >= moment);
        after.map(|write| write.done - moment).min()
    }

    /// Returns how far the clients are.
    pub fn progress(&self) -> Progress {
        let notes = self.ground.notes();
        Progress {
            register_events: self.ground.registers.len(),
            writes: notes.writes.len(),
            tasks: notes.tasks.len(),
            outputs: notes.followed.len(),
            blobs: notes.blobs.len(),
        }
    }

    /// Tells all clients to stop once they have their answers, and returns what they saw. Tasks go on.
    pub async fn stop(self) -> Result<Observed> {
        self.ground.stop.cancel();
        let is_over = async || Ok(self.clients.is_finished());
        wait::until_true("every client has its answer", END_WITHIN, is_over).await?;
        self.clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let notes = std::mem::take(&mut *self.ground.notes());
        Ok(Observed {
            registers: self.ground.registers.history()?,
            writes: notes.writes,
            watchers: notes.watchers,
            tasks: notes.tasks,
            followed: notes.followed,
            blobs: notes.blobs,
            damaged: notes.damaged,
            sightings: notes.sightings,
            unanswered: notes.unanswered,
        })
    }
}

async fn run(ground: &Ground, mix: Mix) -> Result<()> {
    let mut clients: Vec<LocalBoxFuture<'_, Result<()>>> = vec![Box::pin(sightings::look(ground))];
    let values = registers::Values::default();
    for number in 0..mix.register_clients {
        clients.push(Box::pin(registers::run(ground, number, mix.registers, values.clone())));
    }
    for number in 0..mix.writers {
        clients.push(Box::pin(configs::write(ground, number)));
    }
    for number in 0..mix.watchers {
        clients.push(Box::pin(watchers::watch(ground, number)));
    }
    for number in 0..mix.deployments {
        clients.push(Box::pin(deploys::deploy(ground, number, mix.instances_max)));
    }
    for number in 0..mix.uploaders {
        clients.push(Box::pin(uploads::upload(ground, number)));
    }
    futures::future::try_join_all(clients).await.map(drop)
}
