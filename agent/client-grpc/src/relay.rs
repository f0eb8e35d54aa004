//! Other replicas reach the agents whose streams are here ([`Here`]), over the gRPC service `AgentRelay` ([`RelayService`],
//! [`There`]).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use model::{AgentId, Epoch, RequestId};
use proto::peer::v1::agent_relay_client::AgentRelayClient;
use proto::peer::v1::agent_relay_server::AgentRelay;
use proto::peer::v1::{
    RelayCallEvent, RelayCallRequest, RelayCancelRequest, RelayCancelResponse, RelayLocateRequest,
    RelayLocateResponse, RelayReportsRequest, RelayReportsResponse, RelayWaiting, relay_call_event,
};
use tokio::time::{Instant, Interval};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::hub::{AgentHub, MESSAGE_BYTES_MAX};
use crate::ports::{Relay, RelayCallEvents};
use crate::reports::to_peer;
use crate::wire::{Call, Try};

/// How often a waiting caller hears that we are alive. The other side gives up after four of these.
pub(crate) const STILL_WAITING_EVERY: Duration = Duration::from_secs(3);

/// Longest a `Locate` may wait for an agent to arrive.
const LOCATE_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long an agent may take to say what became of a cancellation.
pub(crate) const CANCEL_WITHIN: Duration = Duration::from_secs(10);

/// This replica's agents.
pub(crate) struct Here {
    pub(crate) hub: Arc<AgentHub>,
}

/// A relayed call under way.
struct Under {
    outcome: Pin<Box<dyn Future<Output = Try> + Send>>,
    still_waiting: Interval,
}

#[async_trait]
impl Relay for Here {
    async fn call(&self, request: RelayCallRequest) -> Result<RelayCallEvents, Status> {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms.min(MONTH_MS));
        let (hub, call) = (self.hub.clone(), Call::from_peer(request));
        let under = Under {
            outcome: Box::pin(async move { hub.registry.call(&call, deadline).await }),
            still_waiting: tokio::time::interval(STILL_WAITING_EVERY),
        };
        let events = futures::stream::unfold(Some(under), |under| async {
            let mut under = under?;
            tokio::select! {
                outcome = &mut under.outcome => Some((event(outcome.to_peer()), None)),
                _ = under.still_waiting.tick() => {
                    Some((event(relay_call_event::Event::Waiting(RelayWaiting {})), Some(under)))
                }
            }
        });
        Ok(events.boxed())
    }

    async fn cancel(&self, request: RelayCancelRequest) -> Result<RelayCancelResponse, Status> {
        let (agent, id) = (AgentId::from(request.agent_id), RequestId::from(request.request_id));
        let deadline = Instant::now() + CANCEL_WITHIN;
        let outcome = self.hub.registry.cancel(&agent, &id, Epoch(request.epoch), deadline).await;
        Ok(outcome.to_peer())
    }

    async fn locate(&self, request: RelayLocateRequest) -> Result<RelayLocateResponse, Status> {
        let agent = AgentId::from(request.agent_id);
        let wait = Duration::from_millis(request.wait_ms.into()).min(LOCATE_WAIT_MAX);
        // Over without an arrival, or arrived: the registry says which.
        let _ = tokio::time::timeout(wait, self.hub.registry.arrival(&agent)).await;
        Ok(RelayLocateResponse { here: self.hub.registry.hears(&agent) })
    }

    async fn reports(&self, request: RelayReportsRequest) -> Result<RelayReportsResponse, Status> {
        let agents: Vec<AgentId> = request.agent_ids.into_iter().map(AgentId::from).collect();
        let reports = self.hub.reports(&agents).into_iter();
        let reports = reports.map(|(agent, report)| to_peer(agent, report)).collect();
        Ok(RelayReportsResponse { reports })
    }
}

/// The gRPC service.
pub(crate) struct RelayService(pub(crate) Here);

#[tonic::async_trait]
impl AgentRelay for RelayService {
    type CallStream = RelayCallEvents;

    async fn call(&self, request: Request<RelayCallRequest>) -> Result<Response<Self::CallStream>, Status> {
        self.0.call(request.into_inner()).await.map(Response::new)
    }

    async fn cancel(
        &self,
        request: Request<RelayCancelRequest>,
    ) -> Result<Response<RelayCancelResponse>, Status> {
        self.0.cancel(request.into_inner()).await.map(Response::new)
    }

    async fn locate(
        &self,
        request: Request<RelayLocateRequest>,
    ) -> Result<Response<RelayLocateResponse>, Status> {
        self.0.locate(request.into_inner()).await.map(Response::new)
    }

    async fn reports(
        &self,
        request: Request<RelayReportsRequest>,
    ) -> Result<Response<RelayReportsResponse>, Status> {
        self.0.reports(request.into_inner()).await.map(Response::new)
    }
}

/// The same at another replica, over a channel to its peer port.
struct There(AgentRelayClient<Channel>);

/// Returns the way to the agents of the replica whose peer port a channel leads to.
pub fn relay_over(channel: Channel) -> Arc<dyn Relay> {
    let client = AgentRelayClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Arc::new(There(client))
}

#[async_trait]
impl Relay for There {
    async fn locate(&self, request: RelayLocateRequest) -> Result<RelayLocateResponse, Status> {
        Ok(self.0.clone().locate(request).await?.into_inner())
    }

    async fn call(&self, request: RelayCallRequest) -> Result<RelayCallEvents, Status> {
        Ok(self.0.clone().call(request).await?.into_inner().boxed())
    }

    async fn cancel(&self, request: RelayCancelRequest) -> Result<RelayCancelResponse, Status> {
        Ok(self.0.clone().cancel(request).await?.into_inner())
    }

    async fn reports(&self, request: RelayReportsRequest) -> Result<RelayReportsResponse, Status> {
        Ok(self.0.clone().reports(request).await?.into_inner())
    }
}

/// Keeps a deadline within what a clock can add.
const MONTH_MS: u64 = 30 * 24 * 3600 * 1000;

fn event(event: relay_call_event::Event) -> Result<RelayCallEvent, Status> {
    Ok(RelayCallEvent { event: Some(event) })
}
