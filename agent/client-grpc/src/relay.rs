//! `AgentRelay`: other replicas reach the agents whose streams are here.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::{AgentId, Epoch, RequestId};
use proto::peer::v1::agent_relay_server::AgentRelay;
use proto::peer::v1::{
    RelayCallEvent, RelayCallRequest, RelayCancelRequest, RelayCancelResponse, RelayLocateRequest,
    RelayLocateResponse, RelayReportsRequest, RelayReportsResponse, RelayWaiting, relay_call_event,
};
use tokio::time::{Instant, Interval};
use tonic::{Request, Response, Status};

use crate::hub::AgentHub;
use crate::reports::to_peer;
use crate::wire::{Call, Try};

/// How often a waiting caller hears that we are alive. The other side gives up after four of these.
pub(crate) const STILL_WAITING_EVERY: Duration = Duration::from_secs(3);

/// Longest a `Locate` may wait for an agent to arrive.
const LOCATE_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long an agent may take to say what became of a cancellation.
pub(crate) const CANCEL_WITHIN: Duration = Duration::from_secs(10);

/// The service; see the module's header.
pub(crate) struct RelayService {
    hub: Arc<AgentHub>,
}

impl RelayService {
    pub(crate) fn new(hub: Arc<AgentHub>) -> Self {
        Self { hub }
    }
}

/// A relayed call under way.
struct Under {
    outcome: Pin<Box<dyn Future<Output = Try> + Send>>,
    still_waiting: Interval,
}

#[tonic::async_trait]
impl AgentRelay for RelayService {
    type CallStream = BoxStream<'static, Result<RelayCallEvent, Status>>;

    async fn call(&self, request: Request<RelayCallRequest>) -> Result<Response<Self::CallStream>, Status> {
        let request = request.into_inner();
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
        Ok(Response::new(events.boxed()))
    }

    async fn cancel(
        &self,
        request: Request<RelayCancelRequest>,
    ) -> Result<Response<RelayCancelResponse>, Status> {
        let request = request.into_inner();
        let (agent, id) = (AgentId::from(request.agent_id), RequestId::from(request.request_id));
        let deadline = Instant::now() + CANCEL_WITHIN;
        let outcome = self.hub.registry.cancel(&agent, &id, Epoch(request.epoch), deadline).await;
        Ok(Response::new(outcome.to_peer()))
    }

    async fn locate(
        &self,
        request: Request<RelayLocateRequest>,
    ) -> Result<Response<RelayLocateResponse>, Status> {
        let request = request.into_inner();
        let agent = AgentId::from(request.agent_id);
        let wait = Duration::from_millis(request.wait_ms.into()).min(LOCATE_WAIT_MAX);
        // Over without an arrival, or arrived: the registry says which.
        let _ = tokio::time::timeout(wait, self.hub.registry.arrival(&agent)).await;
        Ok(Response::new(RelayLocateResponse { here: self.hub.registry.hears(&agent) }))
    }

    async fn reports(
        &self,
        request: Request<RelayReportsRequest>,
    ) -> Result<Response<RelayReportsResponse>, Status> {
        let agents: Vec<AgentId> = request.into_inner().agent_ids.into_iter().map(AgentId::from).collect();
        let reports = self.hub.reports(&agents).into_iter();
        let reports = reports.map(|(agent, report)| to_peer(agent, report)).collect();
        Ok(Response::new(RelayReportsResponse { reports }))
    }
}

/// Keeps a deadline within what a clock can add.
const MONTH_MS: u64 = 30 * 24 * 3600 * 1000;

fn event(event: relay_call_event::Event) -> Result<RelayCallEvent, Status> {
    Ok(RelayCallEvent { event: Some(event) })
}
