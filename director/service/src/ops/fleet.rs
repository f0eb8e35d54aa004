//! The fleet: users, tokens, resurrection, health.

use model::{DeploymentName, NodeId, RequestId, Timestamp, UserName};
use state::State;
use state::command::{Command, Outcome};
use state::records::{AgentRecord, Cluster, JoinToken, Member, Setting, ShardMap, User};

use crate::{Caller, Page, Read, Right, Service, ServiceError};

impl Service {
    /// Returns the fleet's own row. Needs no rights: names and versions are for everybody.
    pub fn info(&self) -> Option<Cluster> {
        let view = self.log().view();
        State::new(&*view).cluster()
    }

    /// Returns a user for checking a password. Local: logging in must also work without a leader.
    pub fn user(&self, name: &UserName) -> Option<User> {
        let view = self.log().view();
        State::new(&*view).user(name)
    }

    /// Fails unless the caller may see the fleet's state.
    pub fn may_see_fleet(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Read, "see the fleet's state")
    }

    /// Fails unless the caller may change the fleet.
    pub fn may_change_fleet(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "change the fleet")
    }

    /// Files a single-use token for a new replica; only its hash is stored.
    pub async fn put_join_token(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        hash: String,
        expires_at: Timestamp,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "let replicas join")?;
        let token = JoinToken { hash, expires_at, used_by: None };
        self.propose(caller, request_id, Command::TokenPut { token }).await.map(|_| ())
    }

    /// Uses a join token up for the key with this digest; the token itself is the right.
    pub async fn use_join_token(&self, hash: String, key_digest: String) -> Result<NodeId, ServiceError> {
        let proposal = state::log::Proposal::own(Command::TokenUse { hash, key_digest });
        match self.log().propose(proposal).await?.outcome.accepted()? {
            Outcome::MemberNumber(node) => Ok(node),
            other => {
                Err(ServiceError::told(model::ErrorCode::Unknown, format!("unexpected answer {other:?}")))
            }
        }
    }

    /// Returns the members.
    pub async fn members(&self, caller: &Caller) -> Result<Vec<Member>, ServiceError> {
        caller.needs(Right::Read, "see the fleet's state")?;
        let looked = self.look(Read::Linearizable).await?;
        Ok(State::new(&*looked.view).members())
    }

    /// Adds or changes a user.
    pub async fn put_user(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        user: User,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "change users")?;
        self.propose(caller, request_id, Command::UserPut { user }).await.map(|_| ())
    }

    /// Removes a user.
    pub async fn remove_user(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: UserName,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "change users")?;
        self.propose(caller, request_id, Command::UserRemove { name }).await.map(|_| ())
    }

    /// Lists users.
    pub async fn users(&self, caller: &Caller) -> Result<Vec<User>, ServiceError> {
        caller.needs(Right::Admin, "list users")?;
        let looked = self.look(Read::Linearizable).await?;
        Ok(State::new(&*looked.view).users())
    }

    /// Pauses or resumes resurrection everywhere.
    pub async fn set_resurrection(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        paused: bool,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "switch resurrection")?;
        let setting = Setting::ResurrectionPaused(paused);
        self.propose(caller, request_id, Command::SettingPut { setting }).await.map(|_| ())
    }

    /// Lists agents with their health.
    pub async fn agents(
        &self,
        caller: &Caller,
        deployment: Option<&DeploymentName>,
        page: &Page,
    ) -> Result<(Vec<AgentRecord>, String), ServiceError> {
        caller.needs(Right::Read, "list agents")?;
        let looked = self.look(Read::Linearizable).await?;
        let agents = State::new(&*looked.view).agents();
        page.cut(agents.into_iter().filter(|a| deployment.is_none_or(|d| a.deployment == *d)).collect())
    }

    /// Returns who watches what.
    pub async fn shards(&self, caller: &Caller) -> Result<(ShardMap, Vec<AgentRecord>), ServiceError> {
        caller.needs(Right::Read, "see shards")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        Ok((state.shard_map(), state.agents()))
    }
}
