//! Who leads, for those who wait for it.
//!
//! The engine's metrics change with every batch of entries; whoever has a request under way only cares whether the
//! leader is still the same. Hundreds of them must not be woken for each other's entries.

use tokio::sync::watch;

use crate::node::Metrics;

/// The replica that leads a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) id: u64,
    pub(crate) term: u64,
    pub(crate) address: String,
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Office {
    /// Nobody, or somebody whom this replica does not know yet.
    Vacant,
    /// This one.
    Held(Leader),
    /// This replica has stopped and learns nothing more.
    Stopped,
}

impl Office {
    /// Returns what `metrics` say.
    pub(crate) fn of(metrics: &Metrics) -> Self {
        if metrics.running_state.is_err() {
            return Self::Stopped;
        }
        let leader = metrics.current_leader.and_then(|id| {
            let node = metrics.membership_config.get_node(&id)?;
            Some(Leader { id, term: metrics.current_term, address: node.addr.clone() })
        });
        leader.map_or(Self::Vacant, Self::Held)
    }
}

/// Follows the office; clones follow it too.
#[derive(Clone)]
pub(crate) struct Leaders(watch::Receiver<Office>);

impl Leaders {
    pub(crate) fn new(office: watch::Receiver<Office>) -> Self {
        Self(office)
    }

    /// Waits until there is a leader; `None` once this replica has stopped.
    pub(crate) async fn leader(&self) -> Option<Leader> {
        let mut office = self.0.clone();
        let known = office.wait_for(|office| *office != Office::Vacant).await.ok()?.clone();
        // An engine that panics says nothing more: what was known of it last is no news. Who believed it would ask again
        // and again, without ever waiting.
        office.has_changed().ok()?;
        match known {
            Office::Held(leader) => Some(leader),
            Office::Vacant | Office::Stopped => None,
        }
    }

    /// Waits until `leader` is no longer the leader, or this replica has stopped.
    pub(crate) async fn is_not(&self, leader: &Leader) {
        let same = |office: &Office| matches!(office, Office::Held(now) if now.id == leader.id && now.term == leader.term);
        // An error is the end of the replica.
        let _ = self.0.clone().wait_for(|office| !same(office)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_led_when_the_engine_ended_leads_no_more() {
        let leader = Leader { id: 1, term: 3, address: "here".into() };
        let (office, leaders) = watch::channel(Office::Held(leader.clone()));
        let leaders = Leaders::new(leaders);
        assert_eq!(leaders.leader().await, Some(leader.clone()));
        drop(office);
        assert_eq!(leaders.leader().await, None);
        leaders.is_not(&leader).await;
    }
}
