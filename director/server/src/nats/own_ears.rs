//! Every replica hears every agent on the bus. Each takes what concerns it.

use std::sync::Arc;

use agent_api::{Alert, Heartbeat, HeartbeatSink};
use agent_client_grpc::{AgentHub, Home, Placement as _};
use model::AgentId;

use super::Nats;
use crate::fleet::homes::Homes;

/// The ears of the replica that watches an agent, deaf for all others, and for those that are no agents of BOSH's: whoever has
/// an id of one of ours on the bus says nothing of that one.
pub struct OwnEars {
    pub nats: Arc<Nats>,
    pub homes: Homes,
    pub sink: Arc<dyn HeartbeatSink>,
    pub hub: Arc<AgentHub>,
}

impl OwnEars {
    fn concerns(&self, agent: &AgentId) -> bool {
        self.nats.is_bosh_s(agent) && self.homes.home_of(agent) == Home::Here
    }
}

impl HeartbeatSink for OwnEars {
    fn heartbeat(&self, heartbeat: Heartbeat) {
        if self.concerns(&heartbeat.agent) {
            self.hub.keep_report(&heartbeat);
            self.sink.heartbeat(heartbeat);
        }
    }

    fn alert(&self, agent: &AgentId, alert: Alert) {
        if self.concerns(agent) {
            self.sink.alert(agent, alert);
        }
    }

    fn connected(&self, agent: &AgentId) {
        if self.concerns(agent) {
            self.sink.connected(agent);
        }
    }

    fn disconnected(&self, agent: &AgentId) {
        if self.concerns(agent) {
            self.sink.disconnected(agent);
        }
    }
}
