//! Agents' certificates: how long they are good, what comes with them, and when an agent needs another one. Pure.
//!
//! The name in them stays the same, and with it what an agent may do: an older one is good until it ends, so that nothing is
//! lost where handing another one over was broken off.

use model::Timestamp;
use model::instance::Vm;
use ring::digest::{SHA256, digest};
use state::records::{AgentRecord, BusCertificate};

use crate::config::NatsConfig;

/// How long certificates were good that nothing is remembered of.
const UNREMEMBERED_MS: i64 = 730 * 24 * 3600 * 1000;

/// What certificates are given on today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    lasts_ms: i64,
    bus: String,
}

impl Terms {
    /// Returns the terms of a configuration; `authorities` are the servers' and the one that signs.
    pub fn of(config: &NatsConfig, authorities: [&str; 2]) -> Self {
        // In any order they are the same servers.
        let mut urls = config.urls.clone();
        urls.sort();
        let bus = [urls.join("\n").as_str(), authorities[0].trim(), authorities[1].trim()].join("\n\n");
        let lasts_ms = i64::try_from(config.agent_certificate.as_millis()).unwrap_or(UNREMEMBERED_MS);
        Self { lasts_ms, bus: hex::encode(digest(&SHA256, bus.as_bytes())) }
    }

    /// Returns a new one, of a number that was drawn.
    pub fn certificate(&self, drawn: u128, now: Timestamp) -> BusCertificate {
        // Numbers in certificates are positive.
        let serial = format!("{:032x}", (drawn >> 1) | 1);
        BusCertificate { serial, until: Timestamp(now.0 + self.lasts_ms), bus: self.bus.clone() }
    }

    /// Returns whether an agent is to be given another certificate: it has none, there is a third left of it, or it was told of
    /// another bus.
    pub fn is_due(&self, agent: &AgentRecord, vm: &Vm, now: Timestamp) -> bool {
        let is_elsewhere = agent.certificate.as_ref().is_some_and(|has| has.bus != self.bus);
        vm.cid.is_none() || is_elsewhere || self.left_ms(agent, vm, now) < self.lasts_ms / 3
    }

    /// Returns whether an agent should have been given another one long ago.
    pub fn is_late(&self, agent: &AgentRecord, vm: &Vm, now: Timestamp) -> bool {
        self.left_ms(agent, vm, now) < self.lasts_ms / 6
    }

    fn left_ms(&self, agent: &AgentRecord, vm: &Vm, now: Timestamp) -> i64 {
        until(agent, vm).0 - now.0
    }
}

/// Returns when the certificate ends that an agent of BOSH's has.
pub fn until(agent: &AgentRecord, vm: &Vm) -> Timestamp {
    let unremembered = || Timestamp(vm.created_at.0.saturating_add(UNREMEMBERED_MS));
    agent.certificate.as_ref().map_or_else(unremembered, |has| has.until)
}
