//! One replica's end of the agents' streams.

use std::sync::Arc;
use std::time::Duration;

use model::AgentId;
use owned_tasks::OwnedTasks;
use proto::agent::v1::agent_blobs_server::AgentBlobsServer;
use proto::agent::v1::agent_gateway_server::AgentGatewayServer;
use proto::agent::v1::agent_identity_server::AgentIdentityServer;
use proto::agent::v1::{DirectorMessage, Endpoints, Redirect, director_message};
use proto::peer::v1::agent_relay_server::AgentRelayServer;
use tonic::service::Routes;

use crate::blobs::BlobService;
use crate::gateway::Gateway;
use crate::identity::IdentityService;
use crate::ports::{BlobAccess, HeartbeatSink, Home, Identity, Placement, Relay};
use crate::registry::Registry;
use crate::relay::{Here, RelayService};
use crate::told::Told;

/// Largest message from or to an agent or about one. Rendered templates are the largest thing that travels in one.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How a hub treats its agents.
#[derive(Clone, Copy, Debug)]
pub struct HubOptions {
    /// How often an agent says that it is alive.
    pub heartbeat_interval: Duration,
    /// A stream that is silent for this long is given up.
    pub silence_max: Duration,
    /// How many agents a second are sent to a new home: all at once would be a stampede.
    pub rehome_per_second: u32,
}

impl HubOptions {
    /// Returns how long a silent stream is trusted. An agent sends at least one message in each interval: after two
    /// without one, it is looked for elsewhere as well.
    fn trusted_for(&self) -> Duration {
        self.heartbeat_interval * 2
    }
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(4),
            silence_max: Duration::from_secs(14),
            rehome_per_second: 500,
        }
    }
}

/// What the replica supplies.
pub struct HubParts {
    /// Issues certificates.
    pub identity: Arc<dyn Identity>,
    /// Reads and writes blobs.
    pub blobs: Arc<dyn BlobAccess>,
    /// Knows the agents' homes.
    pub placement: Arc<dyn Placement>,
    /// Hears the heartbeats.
    pub sink: Arc<dyn HeartbeatSink>,
}

/// The streams of the agents that dialled this replica, and the services that they dial.
pub struct AgentHub {
    pub(crate) parts: HubParts,
    pub(crate) options: HubOptions,
    pub(crate) registry: Registry,
    pub(crate) told: Told,
    pub(crate) tasks: OwnedTasks,
}

impl AgentHub {
    /// Makes a hub without streams. Its tasks run in `tasks` and end with them.
    pub fn new(parts: HubParts, options: HubOptions, tasks: OwnedTasks) -> Arc<Self> {
        let (registry, told) = (Registry::new(options.trusted_for()), Told::default());
        Arc::new(Self { parts, options, registry, told, tasks })
    }

    /// Returns the services for the agent port: TLS with an optional client certificate, because enrolling has none
    /// yet. Everything else refuses without one.
    pub fn agent_routes(self: &Arc<Self>) -> Routes {
        let gateway = AgentGatewayServer::new(Gateway::new(self.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Routes::new(gateway)
            .add_service(AgentBlobsServer::new(BlobService::new(self.clone())))
            .add_service(AgentIdentityServer::new(IdentityService::new(self.clone())))
    }

    /// Returns the service for the peer port, where only replicas get in.
    pub fn relay_routes(self: &Arc<Self>) -> Routes {
        let relay = AgentRelayServer::new(RelayService(Here { hub: self.clone() }))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Routes::new(relay)
    }

    /// Returns the way to the agents of this replica, as the others have it.
    pub fn relay(self: &Arc<Self>) -> impl Relay + use<> {
        Here { hub: self.clone() }
    }

    /// Returns whether the agent's stream is here, silent or not.
    pub fn holds(&self, agent: &AgentId) -> bool {
        self.registry.holds(agent)
    }

    /// Returns how many agents' streams are here.
    pub fn stream_count(&self) -> usize {
        self.registry.stream_count()
    }

    /// Sends agents whose home is another replica by now on their way, at a measured pace. Call it after a change of
    /// placement; dropping the future stops it.
    pub async fn rehome(&self) {
        let pause = Duration::from_secs(1) / self.options.rehome_per_second.max(1);
        for agent in self.registry.agents() {
            let Home::Elsewhere(endpoint) = self.parts.placement.home_of(&agent) else { continue };
            let Some(stream) = self.registry.stream(&agent) else { continue };
            // A full queue means that this agent has other troubles; it is asked again after the next change.
            let _ = stream.outbound.try_send(redirect(endpoint, self.parts.placement.endpoints()));
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells every agent here where directors can be reached now.
    pub fn announce_endpoints(&self) {
        for agent in self.registry.agents() {
            let Some(stream) = self.registry.stream(&agent) else { continue };
            let endpoints = Endpoints { endpoints: self.parts.placement.endpoints() };
            // Not worth waiting for: the next dial brings the list again.
            let _ = stream
                .outbound
                .try_send(DirectorMessage { body: Some(director_message::Body::Endpoints(endpoints)) });
        }
    }
}

pub(crate) fn redirect(endpoint: String, endpoints: Vec<String>) -> DirectorMessage {
    let redirect = Redirect { endpoint, endpoints: Some(Endpoints { endpoints }) };
    DirectorMessage { body: Some(director_message::Body::Redirect(redirect)) }
}
