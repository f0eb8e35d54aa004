//! One attached stream, from hello to its end.

use std::sync::Arc;
use std::time::Duration;

use model::{AgentId, Epoch};
use proto::agent::v1::agent_gateway_client::AgentGatewayClient;
use proto::agent::v1::{
    AgentMessage, Alert, DirectorMessage, Heartbeat, Hello, Welcome, agent_message, director_message,
};
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use crate::dispatch::Dispatcher;
use crate::machine::{Machine, Notices};

/// Messages on their way up. A director that does not read them is soon found out by its missing acknowledgements.
const OUTBOUND_MAX: usize = 32;

/// How long a director may take to welcome the agent.
const WELCOMED_WITHIN: Duration = Duration::from_secs(10);

/// Largest message; the hub's own bound.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Least time that a director has to acknowledge a heartbeat, however short the interval.
const ACKNOWLEDGED_WITHIN_MIN: Duration = Duration::from_secs(2);

/// What a session needs of its agent.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) agent: AgentId,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) notices: Arc<Notices>,
}

/// What a director answered to a hello.
pub(crate) enum Opened {
    Welcome(Box<Session>),
    Redirect { home: String },
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The stream broke, or its director fell silent.
    Lost(String),
    /// The agent's home is elsewhere now.
    Redirected { home: String, endpoints: Vec<String> },
}

/// Something that the agent should do while the session goes on.
pub(crate) enum Event {
    Endpoints(Vec<String>),
    Ended(Ended),
}

/// An attached stream.
pub(crate) struct Session {
    parts: Parts,
    inbound: Streaming<DirectorMessage>,
    outbound: mpsc::Sender<AgentMessage>,
    interval: Duration,
    sequence: u64,
    next_heartbeat: Instant,
    /// When the oldest heartbeat that was not acknowledged left.
    unacknowledged_since: Option<Instant>,
    changes: tokio::sync::watch::Receiver<u64>,
}

/// Opens the stream and says hello. Returns also where directors can be reached now.
pub(crate) async fn open(
    parts: Parts,
    channel: Channel,
    unreachable_home: Option<&str>,
) -> Result<(Opened, Vec<String>), Status> {
    let hello = Hello {
        agent_id: parts.agent.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        epoch: parts.dispatcher.epoch().0,
        known_requests: parts.dispatcher.known_requests().iter().map(ToString::to_string).collect(),
        unreachable_home: unreachable_home.unwrap_or_default().into(),
    };
    let (outbound, receiver) = mpsc::channel(OUTBOUND_MAX);
    let first = AgentMessage { body: Some(agent_message::Body::Hello(hello)) };
    outbound.try_send(first).map_err(|_| Status::internal("a new queue is full"))?;
    let mut client = AgentGatewayClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let opening = async {
        let mut inbound = client.attach(ReceiverStream::new(receiver)).await?.into_inner();
        let first = inbound.message().await?;
        Ok::<_, Status>((inbound, first.and_then(|message| message.body)))
    };
    let (inbound, first) = tokio::time::timeout(WELCOMED_WITHIN, opening)
        .await
        .map_err(|_| Status::deadline_exceeded("no welcome came"))??;
    match first {
        Some(director_message::Body::Welcome(welcome)) => welcomed(parts, inbound, outbound, welcome).await,
        Some(director_message::Body::Redirect(redirect)) => {
            let endpoints = redirect.endpoints.map(|list| list.endpoints).unwrap_or_default();
            Ok((Opened::Redirect { home: redirect.endpoint }, endpoints))
        }
        _ => Err(Status::internal("the first message was no welcome")),
    }
}

async fn welcomed(
    parts: Parts,
    inbound: Streaming<DirectorMessage>,
    outbound: mpsc::Sender<AgentMessage>,
    welcome: Welcome,
) -> Result<(Opened, Vec<String>), Status> {
    // A director that we trust has seen this leader elected: fence the older ones from now on.
    let learned = parts.dispatcher.learn_epoch(Epoch(welcome.epoch)).await;
    // One that has not seen it is no danger: what it asks under an older epoch is refused one by one.
    let _ = learned.map_err(|error| Status::internal(format!("the epoch can't be written: {error}")))?;
    parts.dispatcher.answer_over(Some(outbound.clone()));
    let mut changes = parts.machine.changes();
    changes.mark_unchanged();
    let session = Session {
        inbound,
        outbound,
        interval: Duration::from_millis(welcome.heartbeat_interval_ms.max(50).into()),
        sequence: 0,
        next_heartbeat: Instant::now(),
        unacknowledged_since: None,
        changes,
        parts,
    };
    let endpoints = welcome.endpoints.map(|list| list.endpoints).unwrap_or_default();
    Ok((Opened::Welcome(Box::new(session)), endpoints))
}

/// Returns how long a director has to acknowledge a heartbeat. Short enough that an agent whose way to its director is cut
/// is with another one before it is called dead.
pub fn acknowledged_within(heartbeat_interval: Duration) -> Duration {
    heartbeat_interval.mul_f64(1.5).max(ACKNOWLEDGED_WITHIN_MIN)
}

/// Returns how long after its last heartbeat that arrived an agent dials another director at the latest, when the way to
/// its director is cut without a word.
pub fn leaves_within(heartbeat_interval: Duration) -> Duration {
    heartbeat_interval + acknowledged_within(heartbeat_interval) + crate::dial::LOST_SPREAD
}

impl Session {
    /// Goes on until something happens that the agent must decide about. Not safe to cancel in the middle of a
    /// request's admission: drop the session afterwards.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let silence = self.unacknowledged_since.map(|since| since + self.acknowledged_within());
            tokio::select! {
                message = self.inbound.message() => match message {
                    Ok(Some(message)) => if let Some(event) = self.take(message).await { return event },
                    Ok(None) => return lost("the director closed the stream"),
                    Err(status) => return lost(status.message()),
                },
                () = tokio::time::sleep_until(self.next_heartbeat) => self.heartbeat().await,
                changed = self.changes.changed() => match changed {
                    Ok(()) => self.heartbeat().await,
                    Err(_) => return lost("the machine has ended"),
                },
                notice = self.parts.notices.next() => {
                    let alert = Alert {
                        id: notice.id,
                        severity: notice.severity,
                        title: notice.title,
                        summary: notice.summary,
                        created_at_unix: notice.created_at_unix,
                    };
                    self.send(agent_message::Body::Alert(alert));
                }
                () = at(silence) => return lost("the director does not acknowledge heartbeats"),
            }
        }
    }

    /// Says nothing more, and waits until the director has heard everything and has closed its side, too.
    pub(crate) async fn leave(mut self) {
        self.parts.dispatcher.answer_over(None);
        self.outbound = mpsc::channel(1).0;
        while let Ok(Some(_)) = self.inbound.message().await {}
    }

    fn acknowledged_within(&self) -> Duration {
        acknowledged_within(self.interval)
    }

    async fn take(&mut self, message: DirectorMessage) -> Option<Event> {
        match message.body? {
            director_message::Body::Request(request) => self.parts.dispatcher.take(request).await,
            director_message::Body::Cancel(cancel) => self.parts.dispatcher.cancel(cancel).await,
            director_message::Body::HeartbeatAck(ack) => {
                if ack.sequence >= self.sequence {
                    self.unacknowledged_since = None;
                }
            }
            director_message::Body::Endpoints(list) => return Some(Event::Endpoints(list.endpoints)),
            director_message::Body::Redirect(redirect) => {
                let endpoints = redirect.endpoints.map(|list| list.endpoints).unwrap_or_default();
                info!(home = redirect.endpoint, "the agent is sent to another director");
                return Some(Event::Ended(Ended::Redirected { home: redirect.endpoint, endpoints }));
            }
            director_message::Body::Welcome(_) => warn!("a second welcome on one stream"),
        }
        None
    }

    async fn heartbeat(&mut self) {
        let report = self.parts.machine.report().await;
        self.sequence += 1;
        let job_state = match serde_json::to_value(report.job_state) {
            Ok(serde_json::Value::String(text)) => text,
            _ => "unknown".into(),
        };
        self.send(agent_message::Body::Heartbeat(Heartbeat {
            sequence: self.sequence,
            job_state,
            vitals_json: report.vitals.to_string().into(),
            processes: report.processes,
        }));
        self.unacknowledged_since.get_or_insert_with(Instant::now);
        // Jittered, so that agents that started together do not stay together.
        self.next_heartbeat = Instant::now() + self.interval.mul_f64(rand::rng().random_range(0.9..1.0));
    }

    /// Hands a message to the stream. When it is full the director has stopped reading: the missing acknowledgement
    /// will tell.
    fn send(&self, body: agent_message::Body) {
        if self.outbound.try_send(AgentMessage { body: Some(body) }).is_err() {
            warn!("a message to the director was dropped: the stream is full or closed");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.parts.dispatcher.answer_over(None);
    }
}

fn lost(why: &str) -> Event {
    Event::Ended(Ended::Lost(why.to_owned()))
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
