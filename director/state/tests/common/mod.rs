//! A small world to test the state in: one store, one clock, one leader; and builders for the nouns.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
#![allow(dead_code, reason = "every test file uses its part of this")]

pub mod aim;
pub mod artifacts;
pub mod dynamic_disks;
pub mod networks;

use std::collections::BTreeMap;

use model::instance::*;
use model::link::{LinkOffer, LinkOwner, LinkOwnerKind, LinkPlace, LinkSource, LinkWant, Links};
use model::plan::{
    Change, DeploymentRecord, Fate, Needs, OnFailure, Phase, Plan, Reservation, Stage, Step, Target, Unit,
    Wave,
};
use model::step::{Action, StepOutcome, VmRole};
use model::task::{DeployOptions, OutputKind, TaskError, TaskKind};
use model::*;
use serde_json::{Value, json};
use state::State;
use state::command::*;
use state::kv::MemoryKv;
use state::records::{BusCertificate, Event, FleetSecrets, JoinToken, Member, Sealed, User, UserToken};

#[allow(unused_imports, reason = "every test file uses its part of this")]
pub use artifacts::{compiled, package_key, release, stemcell, stemcell_record};
#[allow(unused_imports, reason = "every test file uses its part of this")]
pub use dynamic_disks::{dynamic_deed, dynamic_disk, dynamic_make};
#[allow(unused_imports, reason = "every test file uses its part of this")]
pub use networks::{network_take, subnet_put};

/// The world's clock at the start.
pub const START: i64 = 1_700_000_000_000;

/// The current epoch in a new world.
pub const EPOCH: Epoch = Epoch(1);

pub struct World {
    pub kv: MemoryKv,
    pub log: Vec<Entry>,
    pub now: i64,
}

impl World {
    /// A cluster with a leader, under epoch 1.
    pub fn new() -> Self {
        let mut world = Self::empty();
        world.must(init());
        world.must(Command::LeaderBegin { node: NodeId(1), epoch: EPOCH });
        world
    }

    /// Nothing at all.
    pub fn empty() -> Self {
        Self { kv: MemoryKv::new(), log: Vec::new(), now: START }
    }

    pub fn state(&self) -> State<'_> {
        State::new(&self.kv)
    }

    pub fn revision(&self) -> Revision {
        Revision(self.log.len() as u64)
    }

    /// Applies an entry a second later.
    pub fn apply(&mut self, request_id: Option<&str>, command: Command) -> state::Applied {
        self.now += 1000;
        let entry = entry(request_id, self.now, command);
        self.log.push(entry);
        let revision = self.revision();
        let before = self.kv.clone();
        let applied = state::apply(&mut self.kv, revision, &self.log[self.log.len() - 1]);
        if matches!(applied.outcome, Outcome::Refused(_)) && request_id.is_none() {
            assert!(self.kv == before, "a refused command changed something");
        }
        applied
    }

    pub fn ask(&mut self, command: Command) -> Outcome {
        self.apply(None, command).outcome
    }

    /// The answer as a reader of a test likes it.
    pub fn say(&mut self, command: Command) -> String {
        show(&self.ask(command))
    }

    #[track_caller]
    pub fn must(&mut self, command: Command) -> Outcome {
        let outcome = self.ask(command);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{}", show(&outcome));
        outcome
    }

    #[track_caller]
    pub fn queue(&mut self, kind: TaskKind, locks: &[&str]) -> TaskId {
        let locks = locks.iter().map(|name| LockName::from(*name)).collect();
        match self.must(queue(kind, locks)) {
            Outcome::TaskQueued(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// A deploy that the leader has taken up.
    #[track_caller]
    pub fn deploying(&mut self) -> TaskId {
        let task = self.queue(deploy(), &["lock:deployment:web"]);
        self.must(Command::TaskTake { task, epoch: EPOCH });
        task
    }

    /// A deploy whose plan has been committed.
    #[track_caller]
    pub fn planned(&mut self, plan: Plan) -> TaskId {
        let task = self.deploying();
        let generation = self.state().deployment(&"web".into()).unwrap().generation;
        self.must(commit(task, Plan { generation, ..plan }));
        task
    }

    #[track_caller]
    pub fn records(&mut self, task: TaskId, records: Vec<StepRecord>) -> Outcome {
        self.ask(Command::StepRecords { task, epoch: EPOCH, records })
    }

    /// Does a step: begun, and ended with `outcome`.
    #[track_caller]
    pub fn step(&mut self, task: TaskId, unit: u32, index: u32, outcome: StepOutcome) {
        let records = vec![started(unit, index, 1), finished(unit, index, 1, outcome)];
        self.must(Command::StepRecords { task, epoch: EPOCH, records });
    }

    pub fn events(&self, task: TaskId) -> String {
        let bytes = self.state().output(task, OutputKind::Event, 0, usize::MAX);
        String::from_utf8(bytes).unwrap()
    }

    /// Audit events, oldest first, one a line.
    pub fn audit(&self) -> String {
        let mut events = self.state().events(&Default::default(), None, usize::MAX);
        events.reverse();
        let line = |event: &Event| {
            let parent = event.parent.map(|parent| format!(" <- {parent}")).unwrap_or_default();
            let name = event.object_name.as_deref().unwrap_or("-");
            let context =
                if event.context.is_empty() { String::new() } else { format!(" {}", json!(event.context)) };
            let error = event.error.as_ref().map(|error| format!(" error: {error}")).unwrap_or_default();
            format!("{}{parent} {} {} {name}{context}{error}\n", event.id, event.action, event.object_type)
        };
        events.iter().map(line).collect()
    }
}

pub fn entry(request_id: Option<&str>, now: i64, command: Command) -> Entry {
    Entry {
        version: ENTRY_VERSION,
        request_id: request_id.map(RequestId::from),
        actor: Actor { user: "admin".into(), node: NodeId(1) },
        proposed_at: Timestamp(now),
        command,
    }
}

pub fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused(refusal) => format!("refused: {refusal}"),
        other => format!("{other:?}"),
    }
}

pub fn init() -> Command {
    Command::ClusterInit {
        cluster_id: "c1".into(),
        director_name: "director".into(),
        director_uuid: "d-uuid".into(),
        secrets: FleetSecrets { authority_pem: "PEM".into(), authority_key: Sealed(vec![1, 2, 3]) },
    }
}

pub fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        name: format!("director-{node}"),
        api_address: "127.0.0.1:25555".into(),
        peer_address: "127.0.0.1:25556".into(),
        agent_address: "127.0.0.1:25557".into(),
        version: "0.1.0".into(),
        feature_level: 1,
    }
}

pub fn user(name: &str) -> User {
    User { name: name.into(), password_hash: "$argon2id$x".into(), scopes: ["bosh.admin".to_owned()].into() }
}

pub fn user_token(id: &str, user: &str) -> UserToken {
    UserToken {
        id: id.into(),
        user: user.into(),
        hash: "hash".into(),
        scopes: ["bosh.read".to_owned()].into(),
        note: "ci".into(),
        created_at: Timestamp(0),
        expires_at: Timestamp(START + 1_000_000),
    }
}

pub fn token(hash: &str, expires_at: i64) -> JoinToken {
    JoinToken { hash: hash.into(), expires_at: Timestamp(expires_at), used_by: None }
}

pub fn deploy() -> TaskKind {
    TaskKind::Deploy { manifest_text: "name: web\n".into(), options: DeployOptions::default() }
}

pub fn queue(kind: TaskKind, locks: Vec<LockName>) -> Command {
    Command::TaskQueue { kind, deployment: Some("web".into()), context_id: "ctx".into(), locks }
}

pub fn network(ip: Option<&str>) -> NetworkSettings {
    NetworkSettings {
        name: "default".into(),
        kind: if ip.is_some() { NetworkKind::Manual } else { NetworkKind::Dynamic },
        ip: ip.map(|ip| ip.parse().unwrap()),
        address: AddressKind::Automatic,
        prefix: "32".into(),
        netmask: None,
        gateway: None,
        dns: vec!["10.0.0.2".parse().unwrap()],
        defaults: Vec::new(),
        cloud_properties: json!({}),
        nic_group: None,
    }
}

pub fn spec(id: &str, ip: Option<&str>) -> InstanceSpec {
    let watch = WatchTime { min_ms: 1000, max_ms: 30_000 };
    InstanceSpec {
        id: id.into(),
        deployment: "web".into(),
        group: "api".into(),
        index: 0,
        az: Some("z1".into()),
        bootstrap: true,
        lifecycle: Lifecycle::Service,
        jobs: Vec::new(),
        packages: Vec::new(),
        networks: vec![network(ip)],
        stemcell: stemcell("1"),
        cpi: "".into(),
        vm_type: Some("small".into()),
        cloud_properties: json!({ "ram": 1024 }),
        env: Value::Null,
        persistent_disk: Some(disk_spec(None)),
        canary_watch_time: watch,
        update_watch_time: watch,
        tags: BTreeMap::new(),
        configuration_hash: None,
        template_hashes: BTreeMap::new(),
        address: None,
        named_disks: Vec::new(),
    }
}

pub fn target(id: &str, ip: Option<&str>, fate: Fate) -> Target {
    let changes = if fate == Fate::Updated { vec![Change::Configuration] } else { Vec::new() };
    Target { spec: spec(id, ip), state: InstanceState::Started, fate, changes, compilation: false }
}

pub fn reservation(id: &str, ip: &str) -> Reservation {
    Reservation {
        ip: ip.parse().unwrap(),
        network: "default".into(),
        instance: id.into(),
        kind: AddressKind::Automatic,
        prefix: None,
    }
}

pub fn unit(no: u32, label: &str, actions: Vec<Action>) -> Unit {
    let steps = actions
        .into_iter()
        .map(|action| Step { action, progress: None, on_failure: OnFailure::Stop })
        .collect();
    let (needs, on_failure) = (Needs::All, OnFailure::Stop);
    Unit { no: UnitNo(no), label: label.into(), after: Vec::new(), needs, on_failure, cleanup: false, steps }
}

pub fn stage(title: Option<&str>, units: Vec<Unit>) -> Stage {
    Stage {
        title: title.map(str::to_owned),
        tags: vec!["api".into()],
        total: units.len() as u32,
        waves: vec![Wave { max_in_flight: 1, units }],
    }
}

pub fn record(set: u64) -> DeploymentRecord {
    DeploymentRecord {
        name: "web".into(),
        manifest_text: "name: web\n".into(),
        manifest: json!({ "name": "web" }),
        configs: Vec::new(),
        releases: vec![ReleaseRef { name: "golden".into(), version: "1".into() }],
        stemcells: vec![("ubuntu".into(), "1".into())],
        links: Value::Null,
        tags: BTreeMap::new(),
        variable_set: VariableSetId(set),
        planned_links: None,
        managed_networks: Vec::new(),
    }
}

/// A server that offers a link, and a client that consumes it and would like another.
pub fn links(group: &str, shared: bool) -> Links {
    let owner = |name: &str, group: &str| LinkOwner {
        kind: LinkOwnerKind::Job,
        name: name.into(),
        group: Some(group.into()),
    };
    let place = LinkPlace::Group {
        deployment: "web".into(),
        group: group.into(),
        network: "a".into(),
        domain: "bosh".into(),
        short_names: false,
        link_group: None,
    };
    let source = LinkSource {
        deployment: "web".into(),
        owner: owner("server", group),
        name: "endpoint".into(),
        place: place.clone(),
    };
    let want = |name: &str, alias: &str, source: Option<LinkSource>| LinkWant {
        owner: owner("client", "cli"),
        former_groups: Vec::new(),
        name: name.into(),
        alias: alias.into(),
        kind: "http".into(),
        optional: source.is_none(),
        source,
    };
    Links {
        offers: vec![LinkOffer {
            owner: owner("server", group),
            former_groups: Vec::new(),
            name: "endpoint".into(),
            alias: "front".into(),
            kind: "http".into(),
            shared,
            networks: vec!["a".into(), "b".into()],
            place,
        }],
        wants: vec![want("endpoint", "front", Some(source)), want("db", "db", None)],
    }
}

pub fn plan(targets: Vec<Target>, reservations: Vec<Reservation>, stages: Vec<Stage>) -> Plan {
    Plan {
        deployment: Some("web".into()),
        generation: 0,
        targets,
        reservations,
        phases: vec![Phase { stages }],
        record: Some(record(1)),
        warnings: Vec::new(),
        dns_subjects: Vec::new(),
    }
}

/// A plan for one instance `i1` with one unit of these deeds.
pub fn plan_of(actions: Vec<Action>) -> Plan {
    let units = vec![unit(1, "api/i1 (0)", actions)];
    plan(
        vec![target("i1", Some("10.0.0.5"), Fate::New)],
        Vec::new(),
        vec![stage(Some("Updating instance"), units)],
    )
}

pub fn commit(task: TaskId, plan: Plan) -> Command {
    Command::PlanCommit { task, epoch: EPOCH, draft: 1, parts: 0, plan: Box::new(plan) }
}

pub fn step_no(unit: u32, index: u32) -> StepNo {
    StepNo { unit: UnitNo(unit), index }
}

pub fn started(unit: u32, index: u32, attempt: u32) -> StepRecord {
    StepRecord { step: step_no(unit, index), attempt, event: StepEvent::Started }
}

pub fn finished(unit: u32, index: u32, attempt: u32, outcome: StepOutcome) -> StepRecord {
    StepRecord { step: step_no(unit, index), attempt, event: StepEvent::Finished(outcome) }
}

pub fn certificate(serial: &str) -> BusCertificate {
    BusCertificate { serial: serial.into(), until: Timestamp(START), bus: "b".into() }
}

pub fn certificate_offer(task: TaskId, step: StepNo, agent: &str, serial: &str) -> Command {
    let certificate = certificate(serial);
    Command::CertificateOffer { task, epoch: EPOCH, step, agent: agent.into(), certificate }
}

pub fn create_vm() -> Action {
    Action::CreateVm { instance: "i1".into(), agent: "a1".into(), role: VmRole::Current }
}

pub fn delete_vm() -> Action {
    Action::DeleteVm { instance: "i1".into(), agent: "a1".into() }
}

pub fn create_disk(disk: &str) -> Action {
    create_disk_of(disk, None)
}

pub fn create_disk_of(disk: &str, name: Option<&str>) -> Action {
    let name = name.map(DiskName::from);
    Action::CreateDisk { instance: "i1".into(), agent: "a1".into(), disk: disk.into(), name }
}

pub fn disk_spec(name: Option<&str>) -> DiskSpec {
    let name = name.map(DiskName::from);
    DiskSpec { size_mib: 1024, disk_type: None, cloud_properties: json!({}), name }
}

pub fn mount_disk(disk: &str) -> Action {
    Action::MountDisk { instance: "i1".into(), agent: "a1".into(), disk: disk.into() }
}

pub fn vm_created(cid: &str) -> StepOutcome {
    StepOutcome::VmCreated { cid: cid.into() }
}

pub fn disk_created(cid: &str) -> StepOutcome {
    StepOutcome::DiskCreated { cid: cid.into() }
}

pub fn watch() -> Action {
    Action::StartJobs { instance: "i1".into(), agent: "a1".into() }
}

pub fn journal(unit: u32, index: u32, attempt: u32, event: StepEvent) -> StepRecord {
    StepRecord { step: step_no(unit, index), attempt, event }
}

pub fn failed(text: &str) -> StepOutcome {
    StepOutcome::failed(TaskError { code: 450_001, message: text.into() })
}

pub fn brought(blob: &str) -> state::records::BroughtBlob {
    state::records::BroughtBlob { blob: blob.into(), digest: format!("{blob};sha512:{blob}"), size_bytes: 3 }
}
