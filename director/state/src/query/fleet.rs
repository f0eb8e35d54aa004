//! The fleet: cluster, replicas, users, who watches what.

use model::*;

use super::State;
use crate::kv::Direction;
use crate::records::*;
use crate::rows::Leader;
use crate::tables::*;

impl State<'_> {
    /// Returns the cluster's row; none before `ClusterInit`.
    pub fn cluster(&self) -> Option<Cluster> {
        let leader = self.leader();
        let cluster = CLUSTER.get(self.kv, &())?;
        Some(Cluster { epoch: leader.epoch, leader: leader.node, ..cluster })
    }

    /// Returns the current epoch; 0 before the first leader.
    pub fn epoch(&self) -> Epoch {
        self.leader().epoch
    }

    /// Returns whether resurrection is paused everywhere.
    pub fn resurrection_paused(&self) -> bool {
        CLUSTER.get(self.kv, &()).is_some_and(|cluster| cluster.resurrection_paused)
    }

    /// Returns the replicas by number.
    pub fn members(&self) -> Vec<Member> {
        MEMBERS.rows(self.kv, Direction::Forward).map(|(_, member)| member).collect()
    }

    /// Returns a replica.
    pub fn member(&self, node: NodeId) -> Option<Member> {
        MEMBERS.get(self.kv, &node)
    }

    /// Returns whether a replica was removed for good; its number is never given again.
    pub fn is_removed_member(&self, node: NodeId) -> bool {
        MEMBERS_REMOVED.get(self.kv, &node).is_some()
    }

    /// Returns the join tokens, used ones included.
    pub fn join_tokens(&self) -> Vec<JoinToken> {
        TOKENS.rows(self.kv, Direction::Forward).map(|(_, token)| token).collect()
    }

    /// Returns the users by name.
    pub fn users(&self) -> Vec<User> {
        USERS.rows(self.kv, Direction::Forward).map(|(_, user)| user).collect()
    }

    /// Returns a user.
    pub fn user(&self, name: &UserName) -> Option<User> {
        USERS.get(self.kv, name)
    }

    /// Returns who watches which agents; number 0 and nobody before the first map.
    pub fn shard_map(&self) -> ShardMap {
        SHARD_MAP.get(self.kv, &()).unwrap_or_default()
    }

    /// Returns the agents that may connect.
    pub fn agents(&self) -> Vec<AgentRecord> {
        AGENTS.rows(self.kv, Direction::Forward).map(|(_, agent)| agent).collect()
    }

    /// Returns an agent that may connect.
    pub fn agent(&self, agent: &AgentId) -> Option<AgentRecord> {
        AGENTS.get(self.kv, agent)
    }

    fn leader(&self) -> Leader {
        LEADER.get(self.kv, &()).unwrap_or_default()
    }
}
