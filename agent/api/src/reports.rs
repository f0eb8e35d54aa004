//! What agents tell without being asked, whatever they are heard by.

use model::AgentId;

use crate::Heartbeat;

/// Longest vitals that are taken from a heartbeat, in bytes of JSON. Real ones are a few hundred; what is larger is none, and
/// not kept.
pub const VITALS_BYTES_MAX: usize = 16 << 10;

/// An agent's alert, as BOSH's health monitor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Unique per alert, or empty: BOSH's agents do not number all of theirs.
    pub id: String,
    /// 1 alert, 2 critical, 3 error, 4 warning.
    pub severity: u32,
    /// `service (addresses) - event - action`.
    pub title: String,
    /// More words.
    pub summary: String,
    /// When, seconds since the Unix epoch.
    pub created_at_unix: i64,
}

/// Hears what agents say of themselves. Called where messages come in: must not block.
pub trait HeartbeatSink: Send + Sync + 'static {
    /// An agent is alive.
    fn heartbeat(&self, heartbeat: Heartbeat);

    /// An agent's supervisor has noticed something.
    fn alert(&self, agent: &AgentId, alert: Alert);

    /// An agent can be heard here. Comes again, without a `disconnected`, when it comes anew.
    fn connected(&self, agent: &AgentId);

    /// An agent is not heard here any more, or has said that it stops.
    fn disconnected(&self, agent: &AgentId);
}
