//! A replica alone, with real consensus and real files, but no ports: what the doors and the agents' side are tested
//! with.

use std::sync::Arc;
use std::time::Duration;

use agent_client_grpc::{AgentHub, HubOptions, HubParts, RemoteAgents};
use executor::ports::Vault;
use health::watcher::Ears;
use model::plan::Plan;
use model::{NodeId, TaskId};
use owned_tasks::OwnedTasks;
use raft::Node;
use rcgen::KeyPair;
use release::LocalBlobs;
use service::Service;
use state::State;
use state::command::{Command, FEATURE_LEVEL, Outcome};
use state::log::{CommandLog as _, Proposal};
use state::records::{FleetSecrets, Member, User};
use tonic_health::server::HealthReporter;

use super::state::{
    EPOCH, commit, create_vm, delete_vm, deploy, finished, plan_of, queue, started, vm_created,
};
use crate::agents::AgentSide;
use crate::alerts;
use crate::auth::{Doorkeeper, hash_password};
use crate::clouds::probe::Prober;
use crate::config;
use crate::door::Door;
use crate::fleet::blobs::FleetBlobs;
use crate::fleet::fsm::Fsm;
use crate::fleet::log::RaftLog;
use crate::fleet::membership::Membership;
use crate::fleet::peers::PeerChannels;
use crate::identity::{Authority, Names};
use crate::secrets::{Kek, KekVault};
use crate::tls::TlsIdentity;
use crate::wire::AUTHORITY_SECRET;

/// The password of every user here.
pub const PASSWORD: &str = "secret";

/// A fleet of one.
pub struct Replica {
    /// The log.
    pub log: RaftLog,
    /// The front door.
    pub door: Door,
    /// The agents' side.
    pub agents: Arc<AgentSide>,
    /// The fleet's key.
    pub kek: Kek,
    tasks: OwnedTasks,
    _folder: tempfile::TempDir,
}

impl Replica {
    /// Starts one. Its users are `admin`, `reader` and `nobody`.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (kek, tasks, id) = (Kek::generate(), OwnedTasks::new(), NodeId(1));
        let (authority, authority_key) = Authority::create("test").unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = authority.issue_replica(id, &Names::default(), &key).unwrap();
        let tls =
            TlsIdentity::new(&issued.chain_pem, &key.serialize_pem(), authority.certificate_pem()).unwrap();
        let peers = Arc::new(PeerChannels::new(Arc::new(tls)));
        let options = raft::Options::new(id.0, folder.path().join("raft"));
        let node = Node::start(options, Arc::new(Fsm::default()), peers.clone(), &tasks).await.unwrap();
        node.bootstrap("127.0.0.1:1").await.unwrap();
        let log = RaftLog::new(node.clone(), id);
        let local = Arc::new(LocalBlobs::open(folder.path().join("blobs")).unwrap());
        let blobs = Arc::new(FleetBlobs::new(id, local, log.clone(), peers.clone()));
        let agents = Arc::new(AgentSide {
            id,
            log: log.clone(),
            kek: kek.clone(),
            blobs: blobs.clone(),
            peers: peers.clone(),
            ears: Arc::new(Ears::default()),
            alerts: alerts::desk().0,
            nats: None,
        });
        let parts = HubParts {
            identity: agents.clone(),
            blobs: agents.clone(),
            placement: Arc::new(agents.homes()),
            sink: agents.clone(),
        };
        let hub = AgentHub::new(parts, HubOptions::default(), tasks.clone());
        let reports = RemoteAgents::new(hub.clone(), agents.clone());
        let service = Service::new(Arc::new(log.clone()));
        let vault: Arc<dyn Vault> = Arc::new(KekVault::new(kek.clone()));
        let prober = Prober::new(
            config::Cpi::Sim(config::SimCpi { socket: folder.path().join("no-cloud.sock") }),
            folder.path().to_owned(),
            Arc::new(log.clone()),
            vault.clone(),
        );
        let door = Door {
            doorkeeper: Doorkeeper::new(service.clone()),
            service,
            blobs,
            upload_bytes_max: 1 << 20,
            takes_snapshots: true,
            agents: Arc::new(reports.clone()),
            reports,
            vault,
            membership: Membership { id, node, log: log.clone(), peers, hub, prober },
            kek: kek.clone(),
            health: HealthReporter::new(),
            tasks: tasks.clone(),
        };
        let replica = Self { log, door, agents, kek: kek.clone(), tasks, _folder: folder };
        replica.first_entries(&authority, &authority_key).await;
        replica
    }

    async fn first_entries(&self, authority: &Authority, authority_key: &str) {
        let secrets = FleetSecrets {
            authority_pem: authority.certificate_pem().to_owned(),
            authority_key: KekVault::new(self.kek.clone())
                .seal_bytes(AUTHORITY_SECRET, authority_key.as_bytes()),
        };
        self.must(Command::ClusterInit {
            cluster_id: "c1".into(),
            director_name: "director".into(),
            director_uuid: "d-uuid".into(),
            secrets,
        })
        .await;
        let member = Member { feature_level: FEATURE_LEVEL, ..super::state::member(1) };
        self.must(Command::MemberPut { member }).await;
        let epoch = EPOCH;
        self.must(Command::LeaderBegin { node: NodeId(1), epoch }).await;
        let password_hash = hash_password(PASSWORD);
        for (name, scope) in [("admin", Some("bosh.admin")), ("reader", Some("bosh.read")), ("nobody", None)]
        {
            let scopes = scope.into_iter().map(str::to_owned).collect();
            let user = User { name: name.into(), password_hash: password_hash.clone(), scopes };
            self.must(Command::UserPut { user }).await;
        }
    }

    /// Starts one under which the VM of agent `a1` runs, of the only instance of deployment `web`; returns also the task
    /// that made it.
    pub async fn with_agent() -> (Self, TaskId) {
        let replica = Self::start().await;
        let task = replica.begin_vm().await;
        let records = vec![finished(1, 0, 1, vm_created("vm-1"))];
        replica.must(Command::StepRecords { task, epoch: EPOCH, records }).await;
        (replica, task)
    }

    /// Has a task begin to make the VM of agent `a1`.
    pub async fn begin_vm(&self) -> TaskId {
        let outcome = self.must(queue(deploy(), vec!["lock:deployment:web".into()])).await;
        let Outcome::TaskQueued(task) = outcome else { panic!("{outcome:?}") };
        self.must(Command::TaskTake { task, epoch: EPOCH }).await;
        let generation = State::new(&*self.log.view()).deployment(&"web".into()).unwrap().generation;
        let plan = Plan { generation, ..plan_of(vec![create_vm(), delete_vm()]) };
        self.must(commit(task, plan)).await;
        self.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] }).await;
        task
    }

    /// Has a command committed that must not be refused.
    #[track_caller]
    pub fn must(&self, command: Command) -> impl Future<Output = Outcome> {
        let log = self.log.clone();
        async move { log.propose(Proposal::own(command)).await.unwrap().outcome.accepted().unwrap() }
    }

    /// Stops it.
    pub async fn stop(self) {
        self.door.membership.node.shutdown().await;
        assert!(self.tasks.stop(Duration::from_secs(10)).await);
    }
}
