//! The one stream of each agent, over the gRPC service `AgentGateway`.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{Heartbeat, JobState, VITALS_BYTES_MAX};
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
use crate::ports::{Alert, Home, PeerAgent};
use crate::registry::{Newest, OUTBOUND_MAX, Report, Stream};

/// An agent that has opened a stream says hello at once, or something is wrong with it.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// The service; see the module's header.
pub(crate) struct Gateway {
    hub: Arc<AgentHub>,
}

impl Gateway {
    pub(crate) fn new(hub: Arc<AgentHub>) -> Self {
        Self { hub }
    }
}

/// What an agent says on its stream.
pub type AgentMessages = BoxStream<'static, Result<AgentMessage, Status>>;

/// What its director says.
pub type DirectorMessages = BoxStream<'static, Result<DirectorMessage, Status>>;

impl AgentHub {
    fn welcome(&self) -> DirectorMessage {
        let placement = &self.parts.placement;
        let interval_ms = self.options.heartbeat_interval.as_millis();
        let welcome = Welcome {
            heartbeat_interval_ms: u32::try_from(interval_ms).unwrap_or(u32::MAX),
            endpoints: Some(Endpoints { endpoints: placement.endpoints() }),
            epoch: placement.epoch().0,
        };
        DirectorMessage { body: Some(director_message::Body::Welcome(welcome)) }
    }

    /// Returns where to send the agent instead, if it should not stay here.
    fn better_home(&self, agent: &AgentId, hello: &Hello) -> Option<String> {
        match self.parts.placement.home_of(agent) {
            Home::Elsewhere(endpoint) if endpoint != hello.unreachable_home => Some(endpoint),
            _ => None,
        }
    }

    /// Serves the stream of an agent that has proved who it is; or sends it home, and that is the end.
    pub async fn attach(
        self: &Arc<Self>,
        peer: PeerAgent,
        mut inbound: AgentMessages,
    ) -> Result<DirectorMessages, Status> {
        self.parts.identity.admit(&peer).await.map_err(|error| status(&error))?;
        let agent = peer.agent;
        let hello = hello(&mut inbound).await?;
        if hello.agent_id != agent.as_str() {
            return Err(Status::permission_denied("the certificate belongs to another agent"));
        }
        if let Some(home) = self.better_home(&agent, &hello) {
            debug!(agent = %agent, home, "agent is sent home");
            let message = redirect(home, self.parts.placement.endpoints());
            return Ok(futures::stream::iter([Ok(message)]).boxed());
        }
        let (outbound, receiver) = mpsc::channel(OUTBOUND_MAX);
        outbound.try_send(self.welcome()).map_err(|_| Status::internal("a new queue is full"))?;
        let stream = self.registry.connect(&agent, outbound, self.tasks.stop_token().child_token());
        self.parts.sink.connected(&agent);
        let lost = stream.lost.clone();
        let reader = Reader { hub: self.clone(), agent, stream };
        self.tasks.spawn("agent stream", OnExit::Ignore, |stop| reader.run(inbound, stop));
        // Ends with the reader: a stream that nobody reads must not look alive to its agent.
        let messages = ReceiverStream::new(receiver).map(Ok).take_until(lost.cancelled_owned());
        Ok(messages.boxed())
    }
}

#[tonic::async_trait]
impl AgentGateway for Gateway {
    type AttachStream = DirectorMessages;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = agent_of(&request)?;
        self.hub.attach(peer, request.into_inner().boxed()).await.map(Response::new)
    }
}

async fn hello(inbound: &mut AgentMessages) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_WITHIN, inbound.next())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello came"))?
        .transpose()?;
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
    async fn run(self, mut inbound: AgentMessages, stop: CancellationToken) {
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(self.hub.options.silence_max, inbound.next()) => message,
                () = self.stream.lost.cancelled() => break,
                () = stop.cancelled() => break,
            };
            match message {
                Ok(Some(Ok(message))) => {
                    self.hub.registry.heard(&self.agent, &self.stream);
                    match message.body.map(|body| self.take(body)) {
                        Some(Keeping::Stream) | None => {}
                        Some(Keeping::Nothing) => break,
                    }
                }
                Ok(None) => break,
                Ok(Some(Err(status))) => {
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

/// Returns vitals as they are handed on.
pub(crate) fn vitals_json(vitals: &serde_json::Value) -> Bytes {
    if vitals.is_null() { Bytes::new() } else { vitals.to_string().into() }
}

/// Whether a stream is still good after a message.
enum Keeping {
    Stream,
    Nothing,
}
