//! Networks that directors have made.

use model::managed_network::ManagedNetwork;
use model::{NetworkName, TaskId};

use super::State;
use crate::kv::Direction;
use crate::tables::*;

impl State<'_> {
    /// Returns whether directors make networks.
    pub fn makes_networks(&self) -> bool {
        CLUSTER.get(self.kv, &()).is_some_and(|cluster| cluster.managed_networks)
    }

    /// Returns the networks that directors have made, orphaned ones included, by name.
    pub fn networks(&self) -> Vec<ManagedNetwork> {
        NETWORKS.rows(self.kv, Direction::Forward).map(|(_, network)| network).collect()
    }

    /// Returns one of them.
    pub fn network(&self, name: &NetworkName) -> Option<ManagedNetwork> {
        NETWORKS.get(self.kv, name)
    }

    /// Returns a task other than this one that is at work on a network: it makes a subnet of it, or deletes it.
    pub fn at_work_on(&self, network: &ManagedNetwork, task: TaskId) -> Option<TaskId> {
        let makers = network.subnets.iter().filter(|subnet| subnet.made.is_none()).map(|subnet| subnet.task);
        let mut others = makers.chain(network.retired_by).filter(|other| *other != task);
        others.find(|other| TASKS_OPEN.has(self.kv, other))
    }

    /// Returns whether somebody holds an address in a network: an instance, or an orphaned VM.
    pub fn is_lived_in(&self, name: &NetworkName) -> bool {
        ADDRESSES.rows(self.kv, Direction::Forward).any(|(_, held)| held.network == *name)
    }
}
