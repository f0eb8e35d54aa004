//! A replica that is a fleet of one for the time of a command: consensus and the log, no port, no executor. For the first
//! entries of a fleet, and for the entries that make one out of another's remains.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::NodeId;
use owned_tasks::OwnedTasks;
use raft::Node;
use state::State;
use state::command::{Command, NewEvent};
use state::log::{CommandLog as _, Proposal};
use state::records::{Member, Setting};

use crate::config::Config;
use crate::fleet::fsm::Fsm;
use crate::fleet::log::RaftLog;
use crate::fleet::peers::PeerChannels;
use crate::identity::{Names, NodeIdentity};
use crate::tls::TlsIdentity;
use crate::wire::raft_options;

/// How long the end may take.
const STOP: Duration = Duration::from_secs(5);

/// Consensus alone.
pub(super) struct Alone {
    node: Node,
    log: RaftLog,
    tasks: OwnedTasks,
}

/// Whether the replica's data has a fleet already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fleet {
    /// It is to become one.
    New,
    /// It is in the data.
    InTheData,
}

impl Alone {
    /// Starts it.
    pub(super) async fn start(
        config: &Config,
        identity: &NodeIdentity,
        tls: Arc<TlsIdentity>,
        fleet: Fleet,
    ) -> anyhow::Result<Self> {
        let tasks = OwnedTasks::new();
        let peers = Arc::new(PeerChannels::new(tls));
        let node =
            Node::start(raft_options(config, identity), Arc::new(Fsm::default()), peers, &tasks).await?;
        if fleet == Fleet::New && !node.is_initialized().await? {
            let made = node.bootstrap(&config.peer.advertise).await;
            made.context("make this replica the first of its fleet")?;
        }
        let log = RaftLog::new(node.clone(), identity.node);
        Ok(Self { node, log, tasks })
    }

    /// Has a command committed, which must not be refused.
    pub(super) async fn must(&self, command: Command) -> anyhow::Result<()> {
        let committed = self.log.propose(Proposal::own(command)).await?;
        committed.outcome.accepted().context("write the fleet's first entries")?;
        Ok(())
    }

    /// Returns the fleet's replicas, once everything in the log has been applied.
    pub(super) async fn members(&self) -> anyhow::Result<Vec<Member>> {
        self.log.read_barrier().await?;
        let view = self.log.view();
        Ok(State::new(&*view).members())
    }

    /// Writes down that this replica is all that is left: it is a member, everybody else is removed for good, and nothing
    /// is resurrected until somebody has looked. `how` is what the event says. Returns who was removed.
    pub(super) async fn become_the_only_member(&self, own: Member, how: &str) -> anyhow::Result<Vec<Member>> {
        let node = own.node;
        // First: nobody may be the last one and be removed.
        self.must(Command::MemberPut { member: own.clone() }).await?;
        let others: Vec<Member> =
            self.members().await?.into_iter().filter(|member| member.node != node).collect();
        for member in &others {
            self.must(Command::MemberRemove { node: member.node }).await?;
        }
        self.must(Command::SettingPut { setting: Setting::ResurrectionPaused(true) }).await?;
        let removed: Vec<String> = others.iter().map(|member| member.name.clone()).collect();
        let event = NewEvent {
            action: how.into(),
            object_type: "fleet".into(),
            object_name: Some(own.name),
            context: BTreeMap::from([("removed".to_owned(), removed.into())]),
            ..NewEvent::default()
        };
        self.must(Command::EventPut { event: Box::new(event) }).await?;
        Ok(others)
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        self.node.shutdown().await;
        self.tasks.stop(STOP).await;
    }
}

/// Returns the names under which this replica is reached.
pub fn own_names(config: &Config) -> Names {
    let ports = [&config.api, &config.peer, &config.agent];
    let ports = ports.into_iter().chain(config.blob_port.as_ref().map(|blobs| &blobs.port));
    let shared = config.blob_port.as_ref().and_then(|blobs| blobs.dav_advertise.as_deref());
    Names::of_addresses(ports.map(|port| port.advertise.as_str()).chain(shared))
}

/// Returns the row of the replica of a configuration.
pub fn member_of(config: &Config, node: NodeId) -> Member {
    Member {
        node,
        name: config.name.clone(),
        api_address: config.api.advertise.clone(),
        peer_address: config.peer.advertise.clone(),
        agent_address: config.agent.advertise.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        feature_level: config.feature_level,
    }
}

/// Says what is left to people after a fleet was made out of another's remains.
pub(super) fn tell_what_is_next(removed: &[Member]) {
    if !removed.is_empty() {
        let names: Vec<&str> = removed.iter().map(|member| member.name.as_str()).collect();
        println!("Removed for good: {}. They join anew with an empty folder and a token.", names.join(", "));
    }
    println!(
        "Nothing is resurrected until you say so: look at `dctl instances` first, then `dctl health resurrection on`."
    );
    println!("Next: `directord run`, then `dctl cluster join-token` for each further replica.");
}
