//! The network: what is sent arrives later, in another order, twice, or never.
//!
//! Requests by themselves may be lost or doubled. What belongs to a stream keeps its order, as over TCP: what is lost there
//! is sent again until it arrives or an end is gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tonic::Status;

use crate::chance::Chance;
use crate::process::Job;
use crate::services::Services;

/// A process by its number; a life of it by both numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which process.
    pub process: u64,
    /// Which of its lives.
    pub life: u64,
}

/// How the network is at the moment.
#[derive(Clone, Debug)]
pub struct Weather {
    /// How long a message takes, in microseconds.
    pub delay_us: (u64, u64),
    /// Of a thousand requests, so many are lost.
    pub lost: u32,
    /// Of a thousand requests, so many arrive seconds later.
    pub stuck: u32,
    /// Of a thousand requests, so many arrive twice.
    pub doubled: u32,
    /// Nothing passes from the first process to the second.
    pub blocked: BTreeSet<(u64, u64)>,
}

impl Weather {
    /// Returns a network without faults.
    pub fn fair() -> Self {
        Self { delay_us: (100, 900), lost: 0, stuck: 0, doubled: 0, blocked: BTreeSet::new() }
    }
}

/// What arrives.
enum Load {
    /// A request, for whoever lives there then.
    Request(Job),
    /// Something for a certain life of a process.
    Hand(Hand),
    /// The next of a stream.
    Next(Link),
}

/// One direction of a stream: what was sent and has not arrived.
#[derive(Clone, Default)]
pub struct Link(Arc<Mutex<VecDeque<Hand>>>);

/// What is done where something arrives.
pub type Hand = Box<dyn FnOnce() + Send>;

struct Message {
    from: Place,
    to: Place,
    load: Load,
}

struct Inner {
    now_us: u64,
    weather: Weather,
    chance: Chance,
    /// By the time of arrival; the number keeps apart what arrives at once.
    under_way: BTreeMap<(u64, u64), Message>,
    /// Lost; whoever waits for an answer finds out when the connection is given up.
    lost: BTreeMap<(u64, u64), Message>,
    sent: u64,
}

/// When a connection that says nothing is given up.
const GIVE_UP_US: u64 = 15_000_000;
/// How much later arrives what is stuck: what is sent again and again before it gets through.
const STUCK_US: (u64, u64) = (500_000, 8_000_000);
/// The process to which nothing is sent twice.
const CLOUD: u64 = crate::outside::CLOUD;
/// When what did not get through on a stream is sent again.
const SEND_AGAIN_US: u64 = 200_000;

/// The network; clones are the same one.
#[derive(Clone)]
pub struct Net(Arc<Mutex<Inner>>);

/// What the world is to do with a message that arrived.
pub enum Arrival {
    /// Give the request to the process of this number.
    Request(u64, Job),
    /// Call it, if this life is still the process's; 0 is any.
    Hand(Place, Hand),
}

impl Net {
    /// Returns a network in fair weather.
    pub fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now_us: 0,
            weather: Weather::fair(),
            chance,
            under_way: BTreeMap::new(),
            lost: BTreeMap::new(),
            sent: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the weather.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.lock().weather);
    }

    /// Sends a request and waits for its answer; an error if the connection breaks.
    pub async fn call<T, F>(
        &self,
        from: Place,
        to: u64,
        serve: impl Fn(Services) -> Option<F> + Send + Sync + 'static,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let (net, done) = (self.clone(), Arc::new(Mutex::new(Some(done))));
        let job: Job = Arc::new(move |services| {
            let (serving, net, done) = (serve(services), net.clone(), done.clone());
            Box::pin(async move {
                let Some(serving) = serving else { return };
                let answer = serving.await;
                let tell = move || {
                    let done = done.lock().unwrap_or_else(PoisonError::into_inner).take();
                    // The second answer to a request that came twice is nobody's; so is one that comes too late.
                    done.map(|done| done.send(answer).is_ok());
                };
                // Answers may get lost like requests.
                net.request_or_answer(Place { process: to, life: 0 }, from, Load::Hand(Box::new(tell)));
            })
        });
        self.request_or_answer(from, Place { process: to, life: 0 }, Load::Request(job));
        answer.await.map_err(|_| Status::unavailable("the connection broke"))
    }

    fn request_or_answer(&self, from: Place, to: Place, load: Load) {
        let mut inner = self.lock();
        let lost = inner.weather.lost;
        if inner.chance.in_thousand(lost) {
            return inner.lose(Message { from, to, load });
        }
        let stuck = inner.weather.stuck;
        if inner.chance.in_thousand(stuck) {
            return inner.hold_up(Message { from, to, load });
        }
        // The program that calls a cloud is on the same machine, and is called once; agents know a repeated request again.
        let doubled = if to.process == CLOUD { 0 } else { inner.weather.doubled };
        if let Load::Request(job) = &load
            && inner.chance.in_thousand(doubled)
        {
            let again = Load::Request(job.clone());
            inner.send(Message { from, to, load: again });
        }
        inner.send(Message { from, to, load });
    }

    /// Opens a stream.
    pub fn open(&self, from: Place, to: u64, job: Job) {
        self.lock().send(Message { from, to: Place { process: to, life: 0 }, load: Load::Request(job) });
    }

    /// Sends the next of a stream.
    pub fn stream(&self, from: Place, to: Place, link: &Link, hand: Hand) {
        link.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(hand);
        self.lock().send(Message { from, to, load: Load::Next(link.clone()) });
    }

    /// Returns what has arrived by `now_us`.
    pub fn arrivals(&self, now_us: u64) -> Vec<Arrival> {
        let mut inner = self.lock();
        inner.now_us = now_us;
        let mut arrived = Vec::new();
        while let Some(entry) = inner.under_way.first_entry().filter(|entry| entry.key().0 <= now_us) {
            let message = entry.remove();
            if let Some(arrival) = inner.arrive(message) {
                arrived.push(arrival);
            }
        }
        let mut given_up = Vec::new();
        while let Some(entry) = inner.lost.first_entry().filter(|entry| entry.key().0 <= now_us) {
            given_up.push(entry.remove());
        }
        // Their end may wake somebody, who may send.
        drop(inner);
        drop(given_up);
        arrived
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    fn send(&mut self, message: Message) {
        let (min, max) = self.weather.delay_us;
        let at = self.now_us + self.chance.between(min, max);
        let number = self.number();
        self.under_way.insert((at, number), message);
    }

    fn hold_up(&mut self, message: Message) {
        let at = self.now_us + self.chance.between(STUCK_US.0, STUCK_US.1);
        let number = self.number();
        self.under_way.insert((at, number), message);
    }

    fn lose(&mut self, message: Message) {
        let (at, number) = (self.now_us + GIVE_UP_US, self.number());
        self.lost.insert((at, number), message);
    }

    fn arrive(&mut self, message: Message) -> Option<Arrival> {
        let Message { from, to, load } = message;
        if self.weather.blocked.contains(&(from.process, to.process)) {
            if let Load::Next(_) = load {
                let (at, number) = (self.now_us + SEND_AGAIN_US, self.number());
                self.under_way.insert((at, number), Message { from, to, load });
            } else {
                self.lose(Message { from, to, load });
            }
            return None;
        }
        Some(match load {
            Load::Request(job) => Arrival::Request(to.process, job),
            Load::Hand(hand) => Arrival::Hand(to, hand),
            Load::Next(link) => {
                let next = link.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                Arrival::Hand(to, next?)
            }
        })
    }
}
