//! The fleet: members, join tokens, resurrection, health.

use std::collections::BTreeMap;

use model::{DeploymentName, NodeId, RequestId, Revision, Timestamp};
use state::State;
use state::command::{Command, NewEvent, Outcome};
use state::query::{DeploymentHealth, Which};
use state::records::{AgentRecord, Cluster, JoinToken, Member, Setting, ShardMap};

use crate::{Caller, List, Mutation, Page, Read, Right, Service, ServiceError};

impl Service {
    /// Returns the fleet's own row. Needs no rights: names and versions are for everybody.
    pub fn info(&self) -> Option<Cluster> {
        let view = self.log().view();
        State::new(&*view).cluster()
    }

    /// Fails unless the caller may see the fleet's state.
    pub fn may_see_fleet(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Read, "see the fleet's state")
    }

    /// Fails unless the caller may change the fleet.
    pub fn may_change_fleet(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "change the fleet")
    }

    /// Files a single-use token for a new replica; only its hash is stored. Returns it as it is stored, which after a repeat
    /// is the first one.
    pub async fn put_join_token(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        hash: String,
        expires_at: Timestamp,
    ) -> Result<JoinToken, ServiceError> {
        caller.needs(Right::Admin, "let replicas join")?;
        let token = JoinToken { hash, expires_at, used_by: None };
        self.propose(caller, request_id, Command::TokenPut { token: token.clone() }).await?;
        let view = self.log().view();
        Ok(State::new(&*view).join_token(&token.hash).unwrap_or(token))
    }

    /// Returns whether this very request has handed leadership over before.
    pub async fn was_handed_over(
        &self,
        caller: &Caller,
        request_id: Option<&RequestId>,
    ) -> Result<bool, ServiceError> {
        caller.needs(Right::Admin, "change the fleet")?;
        if request_id.is_none() {
            return Ok(false);
        }
        Ok(matches!(self.look_for(caller, request_id).await?, Mutation::Repeated(_)))
    }

    /// Notes that leadership was handed over on request.
    pub async fn note_hand_over(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        leader: NodeId,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "change the fleet")?;
        let event = NewEvent {
            action: "transfer".into(),
            object_type: "leader".into(),
            object_name: Some(leader.to_string()),
            ..NewEvent::default()
        };
        self.propose(caller, request_id, Command::EventPut { event: Box::new(event) }).await.map(|_| ())
    }

    /// Notes that the fleet is being backed up, and waits until this replica's state has everything that was acknowledged
    /// before: what is read here from now on is what the backup promises.
    pub async fn begin_backup(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        with_blobs: bool,
    ) -> Result<(), ServiceError> {
        // Password hashes, manifests, task output: all that there is.
        caller.needs(Right::Admin, "back the fleet up")?;
        let event = NewEvent {
            action: "save".into(),
            object_type: "snapshot".into(),
            context: BTreeMap::from([("with_blobs".to_owned(), with_blobs.into())]),
            ..NewEvent::default()
        };
        self.propose(caller, request_id, Command::EventPut { event: Box::new(event) }).await?;
        self.log().read_barrier().await?;
        Ok(())
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

    /// Returns whether resurrection is paused everywhere.
    pub async fn resurrection_paused(&self, caller: &Caller) -> Result<bool, ServiceError> {
        caller.needs(Right::Admin, "see whether instances are resurrected")?;
        let looked = self.look(Read::Linearizable).await?;
        Ok(State::new(&*looked.view).resurrection_paused())
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
        deployment: Option<DeploymentName>,
        page: &Page,
    ) -> Result<List<AgentRecord>, ServiceError> {
        caller.needs(Right::Read, "list agents")?;
        self.list(Read::Linearizable, page, move |state, page| {
            let agents = state.agents_from(page.after()?.as_ref());
            let wanted = |agent: &AgentRecord| deployment.as_ref().is_none_or(|d| agent.deployment == *d);
            page.cut(agents.filter(wanted), |agent| agent.agent.clone())
        })
        .await
    }

    /// Lists deployments with the health of their instances.
    pub async fn deployments_health(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<List<DeploymentHealth>, ServiceError> {
        caller.needs(Right::Read, "see the health of deployments")?;
        self.list(Read::Linearizable, page, |state, page| {
            let deployments = state.health_from(Which::All, page.after()?.as_ref());
            page.cut(deployments, |health| health.deployment.clone())
        })
        .await
    }

    /// Returns which replica watches which shard, as it is known here.
    pub fn shard_map(&self, caller: &Caller) -> Result<ShardMap, ServiceError> {
        caller.needs(Right::Read, "see shards")?;
        let view = self.log().view();
        Ok(State::new(&*view).shard_map())
    }

    /// Returns who watches how many agents of which deployments.
    pub async fn shards(&self, caller: &Caller) -> Result<Shards, ServiceError> {
        caller.needs(Right::Read, "see shards")?;
        let count = |state: &State<'_>| {
            let mut agents: BTreeMap<DeploymentName, u32> = BTreeMap::new();
            for agent in state.agents_from(None) {
                *agents.entry(agent.deployment).or_default() += 1;
            }
            Ok((state.shard_map(), agents))
        };
        let ((map, agents), revision) = self.read(Read::Linearizable, count).await?;
        Ok(Shards { map, agents, revision })
    }
}

/// Who watches what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// Who watches.
    pub map: ShardMap,
    /// How many agents each deployment has.
    pub agents: BTreeMap<DeploymentName, u32>,
    /// Everything up to this revision is in it.
    pub revision: Revision,
}
