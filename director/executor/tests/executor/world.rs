//! A whole director in memory: the real executor, planner, state and templates; fakes only where the world outside begins.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::release::blobstore::LocalBlobs;
use ::release::render::{RenderOptions, Renderer};
use executor::ports::{Snapshots, SshGateway};
use executor::{Options, Ports};
use model::task::{OutputKind, TaskKind};
use model::{
    AgentId, BlobDigest, DeploymentName, Epoch, InstanceId, LockName, NodeId, Revision, TaskId, VmCid,
};
use owned_tasks::{OnExit, OwnedTasks};
use state::State;
use state::command::{Command, Outcome};
use state::log::{CommandLog, Proposal, View};
use state::records::{AgentHealth, AgentTransition, FleetSecrets, Sealed, ShardMap};
use tokio_util::sync::CancellationToken;

use crate::artifacts;
use crate::ended::Ended;
use crate::gate::{Gate, Point};
use crate::log::GatedLog;
use crate::ports::{BackwardsVault, KeptOutput, OneCloud, Outside, PlainTokens, TestLease};
use crate::web::Web;

/// A test that waits longer has failed: nothing here takes more than moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// A leader at work.
struct Leader {
    owner: OwnedTasks,
    stop: CancellationToken,
    lease: Arc<TestLease>,
}

pub struct TestWorld {
    pub log: Arc<GatedLog>,
    pub gate: Arc<Gate>,
    pub outside: Arc<Outside>,
    pub output: Arc<KeptOutput>,
    /// What others keep.
    pub web: Arc<Web>,
    pub ports: Ports,
    /// How long new agents may take to answer.
    pub agent_wait: Mutex<Duration>,
    /// How long the cloud may take for what nobody waits for.
    pub late_calls: Mutex<Duration>,
    /// Whether whoever leads next takes snapshots.
    pub snapshots: Mutex<Snapshots>,
    /// Whether leaders give agents DNS records.
    pub local_dns: Mutex<bool>,
    pub ssh_gateway: Mutex<Option<SshGateway>>,
    leader: Mutex<Option<Leader>>,
    /// Leaders that others have followed without their knowing.
    outlived: Mutex<Vec<Leader>>,
    epoch: Mutex<u64>,
    _folder: tempfile::TempDir,
}

/// Starts the Ruby workers; worlds of one test may share them.
pub async fn renderer() -> Arc<Renderer> {
    Arc::new(Renderer::start(RenderOptions::default()).await.unwrap())
}

impl TestWorld {
    /// Returns a world that knows the tiny release, the stemcell and the cloud config, with a leader at work.
    pub async fn seed() -> Self {
        Self::seed_with(renderer().await).await
    }

    /// As [`TestWorld::seed`], with workers that are there already.
    pub async fn seed_with(renderer: Arc<Renderer>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(LocalBlobs::open(folder.path().join("blobs")).unwrap());
        let gate = Arc::new(Gate::new());
        let log = Arc::new(GatedLog::new(gate.clone()));
        let outside = Arc::new(Outside::new(gate.clone(), log.clone()));
        let output = Arc::new(KeptOutput::default());
        let web = Arc::new(Web::new(gate.clone()));
        let ports = Ports {
            log: log.clone(),
            lease: Arc::new(TestLease::default()),
            agents: outside.clone(),
            cpis: Arc::new(OneCloud(outside.clone())),
            blobs,
            archives: web.clone(),
            renderer,
            vault: Arc::new(BackwardsVault),
            enrollment: Arc::new(PlainTokens(outside.clone())),
            output: output.clone(),
            dns: Arc::default(),
            options: Options::default(),
        };
        let (leader, epoch) = (Mutex::new(None), Mutex::new(0));
        let world = Self {
            log,
            gate,
            outside,
            output,
            web,
            ports,
            agent_wait: Mutex::new(Duration::from_millis(300)),
            late_calls: Mutex::new(Options::default().late_calls),
            snapshots: Mutex::new(Snapshots::Off),
            // Most stories are about something else, and are not to be told in the middle of it.
            local_dns: Mutex::new(false),
            ssh_gateway: Mutex::default(),
            leader,
            outlived: Mutex::default(),
            epoch,
            _folder: folder,
        };
        world.file_artifacts().await;
        world
    }

    async fn file_artifacts(&self) {
        let secrets = FleetSecrets { authority_pem: String::new(), authority_key: Sealed(Vec::new()) };
        let (cluster_id, director_name) = ("c".to_owned(), "directorate".to_owned());
        self.apply(Command::ClusterInit { cluster_id, director_name, director_uuid: "u".into(), secrets });
        let (kind, name) = ("cloud".to_owned(), "default".to_owned());
        self.apply(Command::ConfigPut {
            kind,
            name,
            content: artifacts::cloud_config(),
            expected_latest: None,
        });
        self.lead();
        let blob = self.put(artifacts::release("tiny")).await;
        self.run(TaskKind::UploadRelease { blob, rebase: false, fix: false }).await.done();
        let blob = self.put(artifacts::stemcell()).await;
        self.run(TaskKind::UploadStemcell { blob, fix: false }).await.done();
    }

    /// Stores a blob.
    pub async fn put(&self, content: Vec<u8>) -> BlobDigest {
        self.ports.blobs.put(&mut content.as_slice()).await.unwrap().digest
    }

    /// Applies a command as an operator or the fleet sends it.
    pub fn apply(&self, command: Command) -> Outcome {
        self.log.memory.apply(Proposal::own(command)).outcome.accepted().unwrap()
    }

    /// Returns a look at the state.
    pub fn view(&self) -> View {
        self.log.view()
    }

    /// Reads something out of the state.
    pub fn read<T>(&self, read: impl FnOnce(&State<'_>) -> T) -> T {
        let view = self.view();
        read(&State::new(&*view))
    }

    /// Lets a replica lead under the next epoch.
    pub fn lead(&self) {
        let epoch = {
            let mut epoch = self.epoch.lock().unwrap();
            *epoch += 1;
            Epoch(*epoch)
        };
        let lease = Arc::new(TestLease::default());
        lease.give(epoch);
        let (owner, stop) = (OwnedTasks::new(), CancellationToken::new());
        let (mut ports, inner, token) = (self.ports.clone(), owner.clone(), stop.clone());
        ports.lease = lease.clone();
        ports.options.agent_wait = *self.agent_wait.lock().unwrap();
        ports.options.late_calls = *self.late_calls.lock().unwrap();
        ports.options.snapshots = *self.snapshots.lock().unwrap();
        ports.options.local_dns = *self.local_dns.lock().unwrap();
        ports.options.ssh_gateway = self.ssh_gateway.lock().unwrap().clone();
        // Every leader is a replica of its own.
        ports.dns = Arc::default();
        owner.spawn("runner", OnExit::Ignore, move |_| {
            executor::runner::run(ports, inner, Duration::ZERO, token)
        });
        *self.leader.lock().unwrap() = Some(Leader { owner, stop, lease });
    }

    /// Has the leader's lease run out for a moment, seen by whoever looks after so many other looks.
    pub async fn lapse_after(&self, looks: u32) {
        let lease = self.leader.lock().unwrap().as_ref().expect("somebody leads").lease.clone();
        lease.lapse_after(looks);
        let seen = async {
            while !lease.has_lapsed() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("somebody looks at the lease");
    }

    /// Has somebody lead who takes snapshots.
    pub async fn take_snapshots(&self) {
        *self.snapshots.lock().unwrap() = Snapshots::On;
        self.depose().await;
        self.lead();
    }

    /// Takes the leader away: what it waits for never comes, what it would do next is not done.
    pub async fn depose(&self) {
        let leader = self.leader.lock().unwrap().take().unwrap();
        leader.lease.take();
        leader.stop.cancel();
        assert!(leader.owner.stop(PATIENCE).await, "a deposed leader still works");
    }

    /// Lets another replica lead, while the old leader goes on to believe in its lease.
    pub fn usurp(&self) {
        let old = self.leader.lock().unwrap().take();
        self.outlived.lock().unwrap().extend(old);
        self.lead();
    }

    /// Files a task and returns its number.
    pub fn queue(&self, kind: TaskKind) -> TaskId {
        let lock = match &kind {
            TaskKind::UploadRelease { .. }
            | TaskKind::FetchRelease { .. }
            | TaskKind::DeleteRelease { .. } => "lock:releases",
            TaskKind::UploadStemcell { .. }
            | TaskKind::FetchStemcell { .. }
            | TaskKind::DeleteStemcell { .. } => "lock:stemcells",
            TaskKind::DeleteOrphanedDisks { .. } | TaskKind::DeleteOrphanedVms { .. } => "lock:orphans",
            TaskKind::DeleteOrphanedNetworks { .. } => "lock:networks",
            TaskKind::CreateDynamicDisk { .. }
            | TaskKind::AttachDynamicDisk { .. }
            | TaskKind::ProvideDynamicDisk { .. }
            | TaskKind::DetachDynamicDisk { .. }
            | TaskKind::DeleteDynamicDisk { .. } => "lock:dynamic_disk:data",
            TaskKind::Deploy { manifest_text, .. } => {
                let manifest = model::yaml::parse_mapping(manifest_text).unwrap();
                return self.queue_in(manifest["name"].as_str().unwrap(), kind);
            }
            _ => return self.queue_in("p", kind),
        };
        self.queue_under(kind, None, lock.to_owned())
    }

    /// Files a task of a deployment and returns its number.
    pub fn queue_in(&self, deployment: &str, kind: TaskKind) -> TaskId {
        let lock = format!("lock:deployment:{deployment}");
        self.queue_under(kind, Some(DeploymentName::new(deployment)), lock)
    }

    fn queue_under(&self, kind: TaskKind, deployment: Option<DeploymentName>, lock: String) -> TaskId {
        let locks = vec![LockName::new(lock)];
        match self.apply(Command::TaskQueue { kind, deployment, context_id: String::new(), locks }) {
            Outcome::TaskQueued(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Files a task, waits for its end and returns it.
    pub async fn run(&self, kind: TaskKind) -> Ended {
        let id = self.queue(kind);
        self.ended(id).await
    }

    /// Files a task that fails at this kind of steps, and waits for its end.
    pub async fn fail_at(&self, kind: &str, task: TaskKind) {
        *self.outside.failing.lock().unwrap() = Some(kind.to_owned());
        self.run(task).await.error();
        *self.outside.failing.lock().unwrap() = None;
    }

    /// Waits until a task has ended.
    pub async fn ended(&self, id: TaskId) -> Ended {
        self.until(&format!("task {id} has ended"), |state| {
            state.task(id).filter(|task| task.state.is_final()).map(|task| Ended {
                events: String::from_utf8(state.output(id, OutputKind::Event, 0, 1 << 20)).unwrap(),
                result: String::from_utf8(state.output(id, OutputKind::Result, 0, 1 << 20)).unwrap(),
                task,
            })
        })
        .await
    }

    /// Waits until the state says something.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&State<'_>) -> Option<T>) -> T {
        let waited = tokio::time::timeout(PATIENCE, async {
            let mut revision = Revision(0);
            loop {
                if let Some(found) = self.read(&mut look) {
                    return found;
                }
                revision = self.log.changed(revision).await;
            }
        });
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain until {what}; the debug output was:\n{}", self.debug()),
        }
    }

    /// Waits until a step of this kind is under way.
    pub async fn until_open(&self, task: TaskId, kind: &str) {
        self.until(&format!("task {task} is at {kind}"), |state| {
            assert!(state.task(task).is_none_or(|t| !t.state.is_final()), "the task ended before {kind}");
            state.units(task).iter().find(|unit| {
                let states = state.step_states(task, unit.unit.no);
                states.iter().any(|(index, step)| {
                    step.is_open() && unit.unit.steps[*index as usize].action.name() == kind
                })
            })?;
            Some(())
        })
        .await
    }

    /// Waits until agents were asked for a script so often.
    pub async fn until_asked(&self, script: &str, times: usize) {
        let enough =
            |deeds: &Vec<&'static str>| deeds.iter().filter(|name| **name == script).count() >= times;
        let mut requests = self.outside.watch_requests();
        let waited = tokio::time::timeout(PATIENCE, requests.wait_for(enough)).await;
        assert!(
            waited.is_ok(),
            "nobody asked for {script} {times} times; the debug output was:\n{}",
            self.debug()
        );
    }

    /// Waits until the armed gate has stopped the leader; `false` if the task ended before that.
    pub async fn stopped_before_end_of(&self, id: TaskId) -> bool {
        tokio::select! {
            () = self.gate.stopped() => true,
            _ = self.ended(id) => false,
        }
    }

    /// Runs a task whose leader dies at `point`, and has another one finish it.
    pub async fn run_through(&self, kind: TaskKind, point: Point) -> Ended {
        self.gate.arm(Some(point.clone()));
        let id = self.queue(kind);
        assert!(self.stopped_before_end_of(id).await, "the task ended before {point:?}");
        self.depose().await;
        self.gate.arm(None);
        self.lead();
        self.ended(id).await
    }

    /// Replaces the cloud config.
    pub fn put_cloud_config(&self, content: &serde_json::Value) {
        let (kind, name, content) = ("cloud".to_owned(), "default".to_owned(), content.to_string());
        self.apply(Command::ConfigPut { kind, name, content, expected_latest: None });
    }

    /// Returns the first web instance.
    pub fn first_web(&self) -> InstanceId {
        let instances = self.read(|state| state.instances(&DeploymentName::new("p")));
        let first = instances.iter().find(|i| i.spec.group.as_str() == "web" && i.spec.index == 0);
        first.unwrap().spec.id.clone()
    }

    /// Fails unless the state knows every VM, disk, snapshot and network of the cloud, and the cloud everything that the state knows.
    #[track_caller]
    pub fn assert_consistent(&self) {
        let cloud = self.outside.cloud.cloud();
        let (vms, disks, snapshots) = self.read(|state| {
            let instances: Vec<_> =
                state.deployments().iter().flat_map(|d| state.instances(&d.name)).collect();
            let vms = instances.iter().flat_map(|i| state.vms(&i.spec.id)).filter_map(|vm| vm.cid);
            let vms = vms.chain(state.orphaned_vms().into_iter().filter_map(|o| o.vm.cid));
            let disks = instances.iter().flat_map(|i| state.disks(&i.spec.id)).filter_map(|disk| disk.cid);
            let disks = disks.chain(state.dynamic_disks().into_iter().filter_map(|disk| disk.cid));
            let orphans = state.orphaned_disks().into_iter().filter_map(|o| o.disk.cid);
            let ids = instances.iter().flat_map(|i| state.disks(&i.spec.id)).map(|disk| disk.id);
            let ids = ids.chain(state.orphaned_disks().into_iter().map(|o| o.disk.id));
            let snapshots =
                ids.flat_map(|disk| state.snapshots_of(&disk)).filter_map(|snapshot| snapshot.cid);
            (
                vms.collect::<BTreeSet<_>>(),
                disks.chain(orphans).collect::<BTreeSet<_>>(),
                snapshots.collect::<BTreeSet<_>>(),
            )
        });
        crate::networks::assert_known(self, &cloud);
        let taken: BTreeSet<_> = cloud.snapshots.keys().cloned().collect();
        assert_eq!(taken, snapshots, "snapshots\n{}", self.debug());
        assert_eq!(cloud.vms.keys().cloned().collect::<BTreeSet<_>>(), vms, "VMs\n{}", self.debug());
        assert_eq!(cloud.disks.keys().cloned().collect::<BTreeSet<_>>(), disks, "disks\n{}", self.debug());
    }

    /// Stores a cloud config that has workers left to be deleted later.
    pub fn leave_workers(&self) {
        let mut cloud: serde_json::Value = serde_json::from_str(&artifacts::cloud_config()).unwrap();
        cloud["compilation"]["orphan_workers"] = true.into();
        let (kind, name) = ("cloud".to_owned(), "default".to_owned());
        self.apply(Command::ConfigPut { kind, name, content: cloud.to_string(), expected_latest: None });
    }

    /// Returns the task that deletes them.
    pub fn deletion_of_workers(&self) -> TaskKind {
        let agents = self.read(|state| state.orphaned_vms().into_iter().map(|o| o.vm.agent).collect());
        TaskKind::DeleteOrphanedVms { agents }
    }

    /// Destroys the VM of a web instance behind everybody's back; returns the instance.
    pub fn kill_a_vm(&self) -> InstanceId {
        let vm = self.read(|state| state.active_vm(&self.first_web()).unwrap());
        self.destroy_vm(vm.cid.unwrap());
        vm.instance
    }

    /// Destroys a VM behind everybody's back.
    pub fn destroy_vm(&self, cid: VmCid) {
        self.outside.cloud.tamper(|cloud| {
            let context = cpi_api::CallContext {
                director_uuid: String::new(),
                request_id: model::RequestId::new("an operator"),
                epoch: cloud.epoch,
                stemcell_api_version: None,
                timeout: PATIENCE,
                log: Default::default(),
            };
            cloud.perform(Some(&context), cpi_api::Call::DeleteVm(cid)).unwrap();
        });
        self.outside.settle();
    }

    /// Has the watchers call an agent dead, whatever it says.
    pub fn call_dead(&self, agent: &AgentId) {
        let epoch = self.read(|state| state.epoch());
        self.apply(Command::ShardMapPut { epoch, map: ShardMap { number: 1, watchers: [NodeId(0)].into() } });
        let dead =
            AgentTransition { agent: agent.clone(), health: AgentHealth::Dead, reason: "silent".into() };
        self.apply(Command::AgentTransitions { shard_epoch: 1, transitions: vec![dead] });
    }

    /// Returns everything that was written for developers.
    pub fn debug(&self) -> String {
        self.output.0.lock().unwrap().iter().map(|(task, line)| format!("{task}: {line}")).collect()
    }
}
