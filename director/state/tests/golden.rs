//! Bytes that an earlier version wrote must be read by every later one. The files under `golden/` are never edited: a
//! changed format adds files.
//!
//! `UPDATE_GOLDEN=1` writes files that are missing; it never touches one that is there.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::path::PathBuf;

use common::*;
use model::dns::DnsSubject;
use model::dynamic_disk::DynamicDiskWish;
use model::plan::Fate;
use model::problem::{Fault, Finding};
use model::stemcell::AgentKind;
use model::step::{Action, StepOutcome};
use model::task::{OutputKind, TaskError, TaskKind};
use model::*;
use state::command::*;
use state::records::*;

/// One command of each kind, with everything in it that may be there.
fn commands() -> Vec<Command> {
    let (task, epoch) = (TaskId(7), Epoch(3));
    let mut all = fleet_commands();
    all.extend(artifact_commands(task, epoch));
    all.extend(task_commands(task, epoch));
    all.extend(instance_commands(task, epoch));
    all
}

fn fleet_commands() -> Vec<Command> {
    vec![
        init(),
        Command::LeaderBegin { node: NodeId(2), epoch: Epoch(3) },
        Command::MemberPut { member: member(2) },
        Command::MemberRemove { node: NodeId(2) },
        Command::TokenPut { token: token("hash", START) },
        Command::TokenUse { hash: "hash".into(), key_digest: "key".into() },
        Command::UserPut { user: user("ann") },
        Command::UserRemove { name: "ann".into() },
        Command::SettingPut { setting: Setting::ResurrectionPaused(true) },
        Command::UserTokenPut { token: user_token("t1", "ann") },
        Command::UserTokenRemove { id: "t1".into() },
        Command::LinkPut { provider: LinkProviderId(3), consumer: "ext".into(), network: Some("a".into()) },
        Command::LinkRemove { id: LinkId(4) },
        Command::NetworkRetire { task: TaskId(7), epoch: Epoch(3), network: "a".into() },
        network_take(TaskId(7), "a", &["s"]),
        subnet_put(TaskId(7), "a", "s", Some("net-1")),
        dynamic_deed(TaskId(7), dynamic_make("a1")),
        Command::VmLeaves { task: TaskId(7), epoch: Epoch(3), agent: "a1".into() },
        certificate_offer(TaskId(7), step_no(1, 0), "a1", "01"),
    ]
}

fn artifact_commands(task: TaskId, epoch: Epoch) -> Vec<Command> {
    vec![
        Command::ConfigPut {
            kind: "cloud".into(),
            name: "default".into(),
            content: "azs: []\n".into(),
            expected_latest: Some(ConfigId(4)),
        },
        Command::ConfigDelete { kind: "cloud".into(), name: "default".into() },
        Command::ForTeams {
            teams: vec!["red".into()],
            only_theirs: true,
            command: Box::new(Command::ConfigDelete { kind: "cloud".into(), name: "default".into() }),
        },
        Command::ConfigVersionDelete { id: ConfigId(4) },
        Command::BlobHeld { digest: "b1".into(), size_bytes: 9, nodes: vec![NodeId(1)] },
        Command::BlobLost { digest: "b1".into(), node: NodeId(1) },
        Command::ReleasePut {
            task,
            epoch,
            release: Box::new(release("golden", "1")),
            compiled: vec![compiled(package_key("p", "1", "d"))],
            fix: false,
            partial: false,
        },
        Command::ReleaseDelete {
            task,
            epoch,
            name: "golden".into(),
            version: Some("1".into()),
            with_compiled: false,
        },
        Command::StemcellPut { task, epoch, stemcell: stemcell_record("1", "sha1") },
        Command::StemcellDelete { task, epoch, name: "ubuntu".into(), version: "1".into(), cpi: "".into() },
        Command::StemcellRetire { task, epoch, name: "ubuntu".into(), version: "1".into() },
        Command::BundlePut { task, epoch, digest: "b1".into() },
        Command::BundlesForget { digests: vec!["b1".into()], before: Timestamp(START) },
        Command::ExportPut { task, epoch, digest: "b1".into() },
        Command::BlobsForget { digests: vec!["b1".into()], before: Timestamp(START) },
        Command::BlobKeep { digest: "b1".into() },
        Command::BlobsLeave { task, epoch, digests: vec!["b1".into()] },
    ]
}

fn task_commands(task: TaskId, epoch: Epoch) -> Vec<Command> {
    let line = PrepareLine {
        stage: "Preparing deployment".into(),
        task: "Preparing deployment".into(),
        total: 1,
        index: 1,
        state: LineState::Failed,
        error: Some("no".into()),
    };
    let mut content = DraftPart::default();
    content.targets.push(target("i1", Some("fd00::5"), Fate::Recreated));
    content.reservations.push(reservation("i1", "10.0.0.5"));
    let place = unit(1, "api/i1 (0)", vec![create_vm(), create_disk("d1")]);
    content.units.push(DraftUnit { phase: 0, stage: 0, wave: 0, unit: place });
    let error = TaskError { code: 400_007, message: "not running".into() };
    let records = vec![
        started(1, 0, 1),
        finished(1, 0, 1, vm_created("vm-1")),
        finished(1, 1, 1, StepOutcome::Bound { networks: vec![network(Some("10.0.0.5"))] }),
        finished(1, 2, 1, StepOutcome::failed(error.clone())),
        StepRecord { step: step_no(1, 3), attempt: 2, event: StepEvent::Retrying("timeout".into()) },
        StepRecord { step: step_no(1, 4), attempt: 1, event: StepEvent::Skipped },
    ];
    let mut plan = plan_of(vec![Action::BeginUpdate { instance: "i1".into() }, Action::SaveDeployment]);
    plan.reservations.push(reservation("i1", "10.0.0.5"));
    plan.warnings.push("careful".into());
    let segment = OutputSegment { offset: 64, length: 32, blob: "b1".into() };
    vec![
        queue(deploy(), vec!["lock:deployment:web".into()]),
        Command::ProblemsFound {
            task,
            epoch,
            part: 0,
            among: Some(vec!["i1".into()]),
            findings: vec![Finding {
                instance: "i1".into(),
                group: "web".into(),
                index: 0,
                fault: Fault::MissingVm { agent: Some("a1".into()), cid: Some("vm-1".into()) },
            }],
        },
        Command::TaskReport { task, epoch, lines: "{\"id\":\"i1\"}\n".into() },
        Command::TaskCancel { task },
        Command::TaskTake { task, epoch },
        Command::TaskLine { task, epoch, line },
        Command::PlanDraft { task, epoch, draft: 5, part: 0, content: Box::new(content) },
        Command::PlanCommit { task, epoch, draft: 5, parts: 1, plan: Box::new(plan) },
        Command::StepRecords { task, epoch, records },
        Command::OutputSeal { task, epoch, kind: OutputKind::Cpi, segment },
        Command::TaskFinish { task, epoch, end: TaskEnd::Error(error) },
    ]
}

fn instance_commands(task: TaskId, epoch: Epoch) -> Vec<Command> {
    let value = NewVariable {
        name: "/director/web/password".into(),
        kind: "password".into(),
        options_digest: "o".into(),
        sealed: Some(Sealed(vec![0, 255, 7])),
    };
    let pins = vec![
        VariablePin { name: "/director/web/password".into(), version: 3, provider: None },
        VariablePin { name: "/director/db/password".into(), version: 4, provider: Some("db".into()) },
    ];
    let transition =
        AgentTransition { agent: "a1".into(), health: AgentHealth::Dead, reason: "silent".into() };
    let event = NewEvent {
        action: "start".into(),
        object_type: "director".into(),
        context: [("version".to_owned(), "0.1.0".into())].into(),
        ..NewEvent::default()
    };
    let watchers = [NodeId(2), NodeId(3)].into();
    let leak = Leak { id: EventId(0), what: "VM of agent a1".into(), task: Some(task), at: Timestamp(START) };
    vec![
        Command::VariableSetOpen { task, epoch, deployment: "web".into() },
        Command::VariablesPut { task, epoch, set: VariableSetId(2), values: vec![value] },
        Command::VariablesPin { task, epoch, set: VariableSetId(2), pins },
        Command::InstanceIgnore { instance: "i1".into(), ignore: true },
        Command::AgentEnroll { agent: "a1".into(), key_digest: "key".into(), token_generation: 0 },
        Command::AgentTokenRenew { task, epoch, agent: "a1".into() },
        Command::ShardMapPut { epoch, map: ShardMap { number: 2, watchers } },
        Command::AgentTransitions { shard_epoch: 2, transitions: vec![transition] },
        Command::MeltdownPut {
            epoch,
            deployment: "web".into(),
            failed: Some(FailedShare { unhealthy: 6, total: 10 }),
        },
        Command::LatecomerPut { task, epoch, sought: Sought::Vm("a1".into()), look_for_ms: 3_600_000 },
        Command::LatecomerLooked {
            epoch,
            sought: Sought::Disk("d1".into()),
            found: vec!["disk-1".into()],
            left_ms: (9, 8),
        },
        Command::LeakPut { leak },
        Command::LeakClear { id: EventId(3) },
        Command::BlobForget { digest: "b1".into() },
        Command::EventPut { event: Box::new(event) },
        Command::DnsNumber { epoch, subjects: vec![DnsSubject::Instance("web".into(), "i1".into())] },
        Command::DnsPut { epoch, version: 4, content: "c".into(), blob: "b1".into() },
        Command::DnsForget { blobs: vec!["b1".into()], before: Timestamp(START) },
        Command::AgentsJobs { shard_epoch: 2, jobs: vec![AgentJobs { agent: "a1".into(), run: false }] },
        Command::AgentAsked {
            epoch,
            agent: "a1".into(),
            request: "t7-1-1-errand".into(),
            from: Some(AskedStage::Asked),
            to: Some(AskedStage::Running { agent_task: "f08ff9d4".into() }),
        },
        Command::AgentBrought { agent: "a1".into(), name: "t7-1-1-compile".into(), brought: brought("b1") },
    ]
}

/// Returns the command's name, as it stands in its bytes.
fn name(command: &Command) -> String {
    match serde_json::to_value(command).unwrap() {
        serde_json::Value::Object(fields) => fields.keys().next().unwrap().clone(),
        other => panic!("a command without fields: {other}"),
    }
}

#[track_caller]
fn check(name: &str, command: Command) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/entry_v1_{name}.bin"));
    let expected = entry(Some("request-1"), START, command);
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, expected.encode()).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(Entry::decode(&bytes).unwrap(), expected, "{}", path.display());
}

#[test]
fn entries_of_version_1_are_read() {
    for command in commands() {
        check(&name(&command), command);
    }
}

#[test]
fn entries_with_disks_that_have_names_are_read() {
    let mut plan = plan_of(vec![create_disk_of("d1", Some("data"))]);
    plan.targets[0].spec.named_disks.push(disk_spec(Some("data")));
    let (task, epoch) = (TaskId(7), Epoch(3));
    check(
        "plan_commit_named_disks",
        Command::PlanCommit { task, epoch, draft: 5, parts: 0, plan: Box::new(plan) },
    );
}

#[test]
fn entries_about_stemcells_with_an_agent_are_read() {
    let (task, epoch) = (TaskId(7), Epoch(3));
    let mut stemcell = stemcell_record("1", "sha1");
    stemcell.stemcell.agent = Some(AgentKind::Bosh);
    let mut plan = plan_of(vec![create_vm()]);
    plan.targets[0].spec.stemcell = stemcell.stemcell.clone();
    check("stemcell_put_agent", Command::StemcellPut { task, epoch, stemcell });
    check(
        "plan_commit_stemcell_agent",
        Command::PlanCommit { task, epoch, draft: 5, parts: 0, plan: Box::new(plan) },
    );
}

#[test]
fn entries_about_managed_networks_are_read() {
    check("setting_put_managed_networks", Command::SettingPut { setting: Setting::ManagedNetworks(true) });
    check("subnet_put_gone", subnet_put(TaskId(7), "a", "s", None));
    let mut plan = plan_of(Vec::new());
    plan.record.as_mut().unwrap().managed_networks.push("a".into());
    let (task, epoch) = (TaskId(7), Epoch(3));
    check(
        "plan_commit_managed_networks",
        Command::PlanCommit { task, epoch, draft: 5, parts: 0, plan: Box::new(plan) },
    );
}

#[test]
fn entries_about_certificates_of_agents_are_read() {
    let kind = TaskKind::RotateCertificates { agents: vec!["a1".into()] };
    check("task_queue_rotate_certificates", queue(kind, Vec::new()));
}

#[test]
fn entries_about_dynamic_disks_are_read() {
    let id = || DiskId::new("id-data");
    let metadata: model::dynamic_disk::DiskMetadata = [("owner".to_owned(), "csi".into())].into();
    for (name, deed) in [
        ("made", DynamicDeed::Made { id: id(), cid: "disk-9".into() }),
        ("gone", DynamicDeed::Gone { id: id() }),
        ("orphaned", DynamicDeed::Orphaned { id: id() }),
        ("told", DynamicDeed::Told { metadata: metadata.clone() }),
        ("attach", DynamicDeed::Attach { agent: "a1".into() }),
        ("attached", DynamicDeed::Attached { agent: "a1".into(), hint: "/dev/sdc".into() }),
        ("detached", DynamicDeed::Detached { agent: "a1".into() }),
    ] {
        check(&format!("dynamic_disk_{name}"), dynamic_deed(TaskId(7), deed));
    }
    let wish = DynamicDiskWish {
        name: "data".into(),
        disk_type: "small".into(),
        size_mib: 512,
        metadata: Some(metadata.clone()),
    };
    let (disk, instance, name) = (Box::new(wish), InstanceId::new("i1"), DynamicDiskName::new("data"));
    for (named, kind) in [
        (
            "create",
            TaskKind::CreateDynamicDisk { deployment: "web".into(), az: "z1".into(), disk: disk.clone() },
        ),
        (
            "attach",
            TaskKind::AttachDynamicDisk {
                name: name.clone(),
                instance: instance.clone(),
                metadata: Some(metadata),
            },
        ),
        ("provide", TaskKind::ProvideDynamicDisk { instance, disk }),
        ("detach", TaskKind::DetachDynamicDisk { name: name.clone() }),
        ("delete", TaskKind::DeleteDynamicDisk { name }),
    ] {
        check(&format!("task_queue_{named}_dynamic_disk"), queue(kind, Vec::new()));
    }
}

#[test]
fn every_command_has_its_golden_bytes() {
    // A command's name stands in no list, but decoding an unknown one lists them all.
    let unknown = serde_json::from_value::<Command>(serde_json::json!({ "no_such_command": {} }));
    let text = unknown.unwrap_err().to_string();
    let known: Vec<&str> = text.split('`').skip(3).step_by(2).collect();
    let golden: Vec<String> = commands().iter().map(name).collect();
    let missing: Vec<&&str> =
        known.iter().filter(|known| !golden.iter().any(|name| name == **known)).collect();
    assert!(known.len() >= golden.len() && missing.is_empty(), "no golden bytes for {missing:?}");
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    let mut value =
        serde_json::to_value(entry(None, START, Command::TaskCancel { task: TaskId(1) })).unwrap();
    value["trace"] = "later".into();
    value["command"]["task_cancel"]["reason"] = "later".into();
    let bytes = rmp_serde::to_vec_named(&value).unwrap();
    assert_eq!(Entry::decode(&bytes).unwrap().command, Command::TaskCancel { task: TaskId(1) });
}
