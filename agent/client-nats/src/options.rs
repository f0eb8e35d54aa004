//! How a replica connects to the bus.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use tracing::{info, warn};

/// How long one try to connect may take, TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A server that leaves two of these unanswered is given up: what was sent to it must not come to an agent much later.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Longest pause between two tries to connect.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(4);

/// Messages that wait to be taken out of one subscription. Taking one out is a look into a table; who comes later than this
/// many is lost, which is an answer that is late.
const WAITING_MAX: usize = 4096;

/// How to reach the NATS servers, and who we are there.
#[derive(Clone, Debug)]
pub struct Options {
    /// `nats://host:port`, of each server.
    pub urls: Vec<String>,
    /// Who issues the servers' certificates, PEM. Read again at every connect, as the other two are.
    pub authorities: PathBuf,
    /// Our certificate, PEM. NATS knows us by its subject.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Longest pause between two questions how a request fares; the first ones are shorter.
    pub poll_every: Duration,
    /// How long an agent may take to say anything. One that is heard again later, and has no answer, has lost the request.
    pub answer_within: Duration,
}

impl Options {
    /// Returns how BOSH's director waits.
    pub fn new(urls: Vec<String>, authorities: PathBuf, certificate: PathBuf, key: PathBuf) -> Self {
        let (poll_every, answer_within) = (Duration::from_secs(1), Duration::from_secs(45));
        Self { urls, authorities, certificate, key, poll_every, answer_within }
    }

    /// Returns a client that goes on trying to connect, for as long as it lives.
    pub(crate) async fn connect(&self, name: &'static str) -> Result<Client, ConnectError> {
        let at = || self.urls.join(", ");
        ConnectOptions::new()
            .name(name)
            .require_tls(true)
            .add_root_certificates(self.authorities.clone())
            .add_client_certificate(self.certificate.clone(), self.key.clone())
            .connection_timeout(CONNECT_WITHIN)
            .ping_interval(PING_EVERY)
            .subscription_capacity(WAITING_MAX)
            .retry_on_initial_connect()
            .reconnect_delay_callback(|tries| {
                let pause = Duration::from_millis(50) * 2_u32.saturating_pow(tries.min(16) as u32);
                pause.min(CONNECT_PAUSE_MAX)
            })
            .event_callback(move |event| async move { tell(name, &event) })
            .connect(&self.urls)
            .await
            .map_err(|source| ConnectError::Client { at: at(), source: io::Error::other(source) })
    }
}

fn tell(connection: &'static str, event: &Event) {
    match event {
        Event::Connected | Event::Draining | Event::Closed => info!(connection, event = %event, "the bus"),
        _ => warn!(connection, event = %event, "the bus"),
    }
}

/// Why there is no connection, and none is tried for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings can't be used.
    #[error("no client can be made for NATS at {at}")]
    Client {
        /// Where it was to connect to.
        at: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client takes no subscriptions.
    #[error("NATS subject {subject} can't be subscribed to")]
    Subscribe {
        /// Which one.
        subject: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
