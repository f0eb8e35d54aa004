//! The fleet: cluster, replicas, users, who watches what.

use model::*;

use super::State;
use crate::kv::Direction;
use crate::records::*;
use crate::rows::Leader;
use crate::tables::*;

impl<'a> State<'a> {
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

    /// Returns a join token by its hash.
    pub fn join_token(&self, hash: &str) -> Option<JoinToken> {
        TOKENS.get(self.kv, &hash.to_owned())
    }

    /// Returns the users by name.
    pub fn users(&self) -> Vec<User> {
        USERS.rows(self.kv, Direction::Forward).map(|(_, user)| user).collect()
    }

    /// Returns a user.
    pub fn user(&self, name: &UserName) -> Option<User> {
        USERS.get(self.kv, name)
    }

    /// Returns a user's token by its id.
    pub fn user_token(&self, id: &str) -> Option<UserToken> {
        USER_TOKENS.get(self.kv, &id.to_owned())
    }

    /// Returns the tokens of a user, or of all, by id; expired ones included.
    pub fn user_tokens(&self, user: Option<&UserName>) -> Vec<UserToken> {
        let all = USER_TOKENS.rows(self.kv, Direction::Forward).map(|(_, token)| token);
        all.filter(|token| user.is_none_or(|user| token.user == *user)).collect()
    }

    /// Returns the highest feature level that every member reads; none before there is a member.
    pub fn feature_level(&self) -> Option<u32> {
        self.members().into_iter().map(|member| member.feature_level).min()
    }

    /// Returns who watches which agents; number 0 and nobody before the first map.
    pub fn shard_map(&self) -> ShardMap {
        SHARD_MAP.get(self.kv, &()).unwrap_or_default()
    }

    /// Returns the agents that may connect.
    pub fn agents(&self) -> Vec<AgentRecord> {
        AGENTS.rows(self.kv, Direction::Forward).map(|(_, agent)| agent).collect()
    }

    /// Returns the agents that may connect from an id on, as they are read.
    pub fn agents_from(&self, from: Option<&AgentId>) -> impl Iterator<Item = AgentRecord> + use<'a> {
        let start = from.cloned().unwrap_or_default();
        AGENTS.rows_from(self.kv, &start).map(|(_, agent)| agent)
    }

    /// Returns an agent that may connect.
    pub fn agent(&self, agent: &AgentId) -> Option<AgentRecord> {
        AGENTS.get(self.kv, agent)
    }

    /// Returns what is known of a request to an agent that remembers none itself.
    pub fn asked_of_agent(&self, agent: &AgentId, request: &RequestId) -> Option<AskedOfAgent> {
        ASKED_OF_AGENTS.get(self.kv, &(agent.clone(), request.clone()))
    }

    /// Returns what an agent that names what it brings has brought under a name.
    pub fn brought_by_agent(&self, agent: &AgentId, name: &str) -> Option<BroughtByAgent> {
        BROUGHT_BY_AGENTS.get(self.kv, &(agent.clone(), name.to_owned()))
    }

    fn leader(&self) -> Leader {
        LEADER.get(self.kv, &()).unwrap_or_default()
    }
}
