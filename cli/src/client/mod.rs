//! The fleet as one server: several endpoints, tried in turn until one answers.
//!
//! Invariant: a call is made again only when sending it twice equals sending it once. Reads always are such; every
//! mutation of the API carries a `request_id` that the caller draws *once*, before the first attempt, so that a retry through
//! a failover starts one task only. Not here: what the calls mean ([`crate::commands`]), and where the endpoints and
//! the login come from ([`crate::settings`]).

mod backup;
mod connect;
mod failure;
mod transfer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use retry::Policy;
pub use tonic::Request;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};

pub use connect::{Login, Trust};
pub use failure::{Kind, kind as failure_kind, refused};
pub use transfer::{Uploaded, hash_file};

use crate::error::{Error, Tried};
use connect::Endpoint;

/// A connection to one endpoint that adds the login to every call.
pub type Link = InterceptedService<Channel, Login>;

/// Largest answer that we take. An answer is one page, so only manifests and plans come near.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How patient the client is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest time for one attempt of a unary call: longer than an election, shorter than anybody's patience.
    pub attempt: Duration,
    /// Waits between rounds over the endpoints, and when to give up.
    pub rounds: Policy,
}

impl Patience {
    /// Returns the usual patience, which gives up after `total`.
    pub fn within(total: Duration) -> Self {
        let rounds =
            Policy { initial: Duration::from_millis(100), max: Duration::from_secs(2), total: Some(total) };
        Self { attempt: Duration::from_secs(15), rounds }
    }

    /// Returns how long we try in all.
    pub fn total(&self) -> Duration {
        self.rounds.total.unwrap_or(Duration::MAX)
    }

    /// Returns the deadline that is sent with a call. Whoever waits for something over there answers a moment before it,
    /// so that we are told what for.
    pub fn deadline(&self) -> Duration {
        self.attempt
    }

    /// Returns the patience with a stream that is opened again whenever it breaks.
    pub fn reopening(&self) -> Reopening {
        let lasting = self.rounds.max.min(self.total());
        Reopening { waits: self.rounds.waits(), opened: Instant::now(), lasting }
    }
}

/// Patience with one stream that is opened again whenever it breaks. A stream may be silent for hours and then break
/// for the first time: that is not the end of anybody's patience. Only one that breaks at once, again and again, is.
pub struct Reopening {
    waits: retry::Waits,
    opened: Instant,
    /// A stream that was open for longer than the longest wait was no failed attempt.
    lasting: Duration,
}

impl Reopening {
    /// Notes that the stream is open.
    pub fn opened(&mut self) {
        self.opened = Instant::now();
    }

    /// Notes that the stream has brought something new.
    pub fn news(&mut self) {
        self.waits.reset();
    }

    /// The stream is broken: returns how long to wait before it is opened again, or none to give up.
    pub fn broken(&mut self) -> Option<Duration> {
        if self.opened.elapsed() > self.lasting {
            self.waits.reset();
        }
        self.waits.next()
    }
}

/// The replicas that we may ask.
pub struct Fleet {
    endpoints: Vec<Endpoint>,
    /// Where the last call went well: the next one begins there.
    preferred: AtomicUsize,
    patience: Patience,
}

impl Fleet {
    /// Prepares connections; nothing is sent yet. Fails on addresses and certificates that make no sense.
    pub fn new(
        addresses: &[String],
        trust: &Trust,
        login: &Login,
        patience: Patience,
    ) -> Result<Self, Error> {
        if addresses.is_empty() {
            return Err(Error::Usage(
                "no director is known: give --endpoint HOST:PORT, DCTL_ENDPOINTS, or a profile (--profile FILE)".into(),
            ));
        }
        let endpoints = addresses
            .iter()
            .map(|address| Endpoint::prepare(address, trust, login))
            .collect::<Result<_, _>>()?;
        Ok(Self { endpoints, preferred: AtomicUsize::new(0), patience })
    }

    /// Returns how patient this client is.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Makes a unary call until some endpoint answers it; see [`call!`](crate::call).
    pub async fn call<T>(
        &self,
        operation: &'static str,
        attempt: impl AsyncFn(Link) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let limit = self.patience.attempt;
        self.try_all(operation, async |link| match tokio::time::timeout(limit, attempt(link)).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(Failed::Status),
            Err(_) => Err(Failed::Late(limit)),
        })
        .await
    }

    /// Opens a stream on some endpoint. What breaks later is the caller's: only it knows where to go on from.
    pub async fn open<T>(
        &self,
        operation: &'static str,
        attempt: impl AsyncFn(Link) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.call(operation, attempt).await
    }

    /// Returns the error for streams that broke again and again, the last time by `status`.
    pub fn lost(&self, operation: &'static str, status: &Status) -> Error {
        let last = &self.endpoints[self.preferred.load(Ordering::Relaxed)];
        let tried = Tried { endpoint: last.address().to_owned(), why: failure::cause(status) };
        Error::Unreachable { operation, tried: vec![tried], within: self.patience.total() }
    }

    /// Makes the next call begin at another endpoint than the last one did.
    pub fn move_on(&self) {
        let next = (self.preferred.load(Ordering::Relaxed) + 1) % self.endpoints.len();
        self.preferred.store(next, Ordering::Relaxed);
    }

    /// Runs `attempt` on one endpoint after the other, with a pause after each round, until it works, fails for good,
    /// or the time is over.
    async fn try_all<T>(
        &self,
        operation: &'static str,
        attempt: impl AsyncFn(Link) -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let mut waits = self.patience.rounds.waits();
        let mut why: Vec<Option<String>> = vec![None; self.endpoints.len()];
        loop {
            let mut pause = Duration::ZERO;
            let first = self.preferred.load(Ordering::Relaxed);
            for at in (first..first + self.endpoints.len()).map(|at| at % self.endpoints.len()) {
                let failed = match attempt(self.endpoints[at].link()).await {
                    Ok(answer) => {
                        self.preferred.store(at, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(failed) => failed,
                };
                why[at] = Some(failed.explain(operation)?);
                pause = pause.max(failed.asked_pause());
                if begun.elapsed() >= self.patience.total() {
                    break;
                }
            }
            // The server's wish counts, but not beyond our own patience.
            let left = self.patience.total().saturating_sub(begun.elapsed());
            match waits.next() {
                Some(wait) if !left.is_zero() => tokio::time::sleep(wait.max(pause).min(left)).await,
                _ => return Err(self.unreachable(operation, why)),
            }
        }
    }

    fn unreachable(&self, operation: &'static str, why: Vec<Option<String>>) -> Error {
        let tried = self.endpoints.iter().zip(why).map(|(endpoint, why)| Tried {
            endpoint: endpoint.address().to_owned(),
            why: why.unwrap_or_else(|| "not reached in time".into()),
        });
        Error::Unreachable { operation, tried: tried.collect(), within: self.patience.total() }
    }
}

/// A failed attempt.
enum Failed {
    Status(Status),
    /// No answer within the time for one attempt.
    Late(Duration),
}

impl Failed {
    /// Returns why this endpoint did not help, or the error if no other one can.
    fn explain(&self, operation: &'static str) -> Result<String, Error> {
        match self {
            Self::Late(limit) => Ok(format!("no answer within {} s", limit.as_secs())),
            Self::Status(status) => match failure::kind(status) {
                Kind::Elsewhere => Ok(failure::cause(status)),
                Kind::Final => Err(refused(operation, status)),
            },
        }
    }

    fn asked_pause(&self) -> Duration {
        match self {
            Self::Late(_) => Duration::ZERO,
            Self::Status(status) => failure::asked_pause(status).unwrap_or_default(),
        }
    }
}

/// Calls a unary method on whichever endpoint answers: `call!(fleet, LocksClient.list(ListLocksRequest {}))`.
///
/// The request is built once and cloned for every attempt: a `request_id` in it stays the same.
#[macro_export]
macro_rules! call {
    ($fleet:expr, $client:ident.$method:ident($request:expr)) => {{
        let (request, limit) = ($request, $fleet.patience().deadline());
        $fleet.call(concat!(stringify!($client), ".", stringify!($method)), async move |link| {
            let client = $client::new(link).max_decoding_message_size($crate::client::ANSWER_BYTES_MAX);
            // The directors stop working for whoever has gone.
            let mut request = $crate::client::Request::new(request.clone());
            request.set_timeout(limit);
            { client }.$method(request).await
        })
    }};
}

/// Returns a new idempotency key for one mutation.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
