//! `AgentGateway`: the one stream of each agent.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{Heartbeat, JobState};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::AgentId;
use owned_tasks::OnExit;
use proto::agent::v1::agent_gateway_server::AgentGateway;
use proto::agent::v1::{
    AgentMessage, DirectorMessage, Endpoints, HeartbeatAck, Hello, Welcome, agent_message, director_message,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use crate::hub::{AgentHub, redirect};
use crate::identity::status;
use crate::peer_certificate::agent_of;
use crate::ports::{Alert, Home};
use crate::registry::{Newest, OUTBOUND_MAX, Report, Stream};

/// An agent that has opened a stream says hello at once, or something is wrong with it.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Vitals are a few hundred bytes; what is larger is none, and not kept.
const VITALS_BYTES_MAX: usize = 16 << 10;

/// The service; see the module's header.
pub(crate) struct Gateway {
    hub: Arc<AgentHub>,
}

impl Gateway {
    pub(crate) fn new(hub: Arc<AgentHub>) -> Self {
        Self { hub }
    }

    fn welcome(&self) -> DirectorMessage {
        let placement = &self.hub.parts.placement;
        let interval_ms = self.hub.options.heartbeat_interval.as_millis();
        let welcome = Welcome {
            heartbeat_interval_ms: u32::try_from(interval_ms).unwrap_or(u32::MAX),
            endpoints: Some(Endpoints { endpoints: placement.endpoints() }),
            epoch: placement.epoch().0,
        };
        DirectorMessage { body: Some(director_message::Body::Welcome(welcome)) }
    }

    /// Returns where to send the agent instead, if it should not stay here.
    fn better_home(&self, agent: &AgentId, hello: &Hello) -> Option<String> {
        match self.hub.parts.placement.home_of(agent) {
            Home::Elsewhere(endpoint) if endpoint != hello.unreachable_home => Some(endpoint),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl AgentGateway for Gateway {
    type AttachStream = BoxStream<'static, Result<DirectorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = agent_of(&request)?;
        self.hub.parts.identity.admit(&peer).await.map_err(|error| status(&error))?;
        let agent = peer.agent;
        let mut inbound = request.into_inner();
        let hello = hello(&mut inbound).await?;
        if hello.agent_id != agent.as_str() {
            return Err(Status::permission_denied("the certificate belongs to another agent"));
        }
        if let Some(home) = self.better_home(&agent, &hello) {
            debug!(agent = %agent, home, "agent is sent home");
            let message = redirect(home, self.hub.parts.placement.endpoints());
            return Ok(Response::new(futures::stream::iter([Ok(message)]).boxed()));
        }
        let (outbound, receiver) = mpsc::channel(OUTBOUND_MAX);
        outbound.try_send(self.welcome()).map_err(|_| Status::internal("a new queue is full"))?;
        let stream = self.hub.registry.connect(&agent, outbound, self.hub.tasks.stop_token().child_token());
        self.hub.parts.sink.connected(&agent);
        let lost = stream.lost.clone();
        let reader = Reader { hub: self.hub.clone(), agent, stream };
        self.hub.tasks.spawn("agent stream", OnExit::Ignore, |stop| reader.run(inbound, stop));
        // Ends with the reader: a stream that nobody reads must not look alive to its agent.
        let messages = ReceiverStream::new(receiver).map(Ok).take_until(lost.cancelled_owned());
        Ok(Response::new(messages.boxed()))
    }
}

async fn hello(inbound: &mut Streaming<AgentMessage>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_WITHIN, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello came"))??;
    match first.and_then(|message| message.body) {
        Some(agent_message::Body::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message must be a hello")),
    }
}

/// Reads one agent's stream to its end.
struct Reader {
    hub: Arc<AgentHub>,
    agent: AgentId,
    stream: Stream,
}

impl Reader {
    async fn run(self, mut inbound: Streaming<AgentMessage>, stop: CancellationToken) {
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(self.hub.options.silence_max, inbound.message()) => message,
                () = self.stream.lost.cancelled() => break,
                () = stop.cancelled() => break,
            };
            match message {
                Ok(Ok(Some(message))) => {
                    self.hub.registry.heard(&self.agent, &self.stream);
                    match message.body.map(|body| self.take(body)) {
                        Some(Keeping::Stream) | None => {}
                        Some(Keeping::Nothing) => break,
                    }
                }
                Ok(Ok(None)) => break,
                Ok(Err(status)) => {
                    debug!(agent = %self.agent, error = %status, "agent stream broke");
                    break;
                }
                Err(_) => {
                    warn!(agent = %self.agent, "agent stream is silent and is given up");
                    break;
                }
            }
        }
        if self.hub.registry.disconnect(&self.agent, &self.stream) == Newest::Yes {
            self.hub.parts.sink.disconnected(&self.agent);
        }
    }

    fn take(&self, body: agent_message::Body) -> Keeping {
        match body {
            agent_message::Body::Hello(_) => {
                warn!(agent = %self.agent, "a second hello on one stream");
                return Keeping::Nothing;
            }
            agent_message::Body::Heartbeat(heartbeat) => return self.take_heartbeat(&heartbeat),
            agent_message::Body::Response(response) => self.hub.registry.resolve(&self.agent, response),
            agent_message::Body::CancelResult(result) => self.hub.registry.cancelled(&self.agent, &result),
            agent_message::Body::Alert(alert) => {
                let alert = Alert {
                    id: alert.id,
                    severity: alert.severity,
                    title: alert.title,
                    summary: alert.summary,
                    created_at_unix: alert.created_at_unix,
                };
                self.hub.parts.sink.alert(&self.agent, alert);
            }
        }
        Keeping::Stream
    }

    fn take_heartbeat(&self, heartbeat: &proto::agent::v1::Heartbeat) -> Keeping {
        let job_state =
            serde_json::from_value(heartbeat.job_state.clone().into()).unwrap_or(JobState::Unknown);
        // An agent may send anything; what is passed on to others is what vitals are.
        let said = Some(&heartbeat.vitals_json).filter(|said| said.len() <= VITALS_BYTES_MAX);
        let vitals = said.and_then(|said| serde_json::from_slice(said).ok()).unwrap_or_default();
        self.stream.keep(Report {
            job_state,
            processes: heartbeat.processes,
            vitals_json: vitals_json(&vitals),
            at: Instant::now(),
        });
        self.hub.parts.sink.heartbeat(Heartbeat {
            agent: self.agent.clone(),
            job_state,
            vitals,
            processes: heartbeat.processes,
        });
        let ack = director_message::Body::HeartbeatAck(HeartbeatAck { sequence: heartbeat.sequence });
        match self.stream.outbound.try_send(DirectorMessage { body: Some(ack) }) {
            Ok(()) => Keeping::Stream,
            Err(_) => {
                warn!(agent = %self.agent, "agent does not read its stream, which is given up");
                Keeping::Nothing
            }
        }
    }
}

fn vitals_json(vitals: &serde_json::Value) -> Bytes {
    if vitals.is_null() { Bytes::new() } else { vitals.to_string().into() }
}

/// Whether a stream is still good after a message.
enum Keeping {
    Stream,
    Nothing,
}
