//! Any command, plausible or not, and any log of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::*;
use model::dns::DnsSubject;
use model::plan::{DeploymentRecord, Fate, Plan};
use model::problem::{Fault, Finding};
use model::step::{Action, Left, StepOutcome, VmRole};
use model::task::{OutputKind, TaskError, TaskKind};
use model::*;
use proptest::prelude::*;
use state::command::*;
use state::records::*;

pub fn small() -> impl Strategy<Value = u64> {
    0..4u64
}

pub fn name(prefix: &'static str) -> impl Strategy<Value = String> {
    small().prop_map(move |number| format!("{prefix}{number}"))
}

fn task() -> impl Strategy<Value = TaskId> {
    (0..9u64).prop_map(TaskId)
}

/// Mostly the current epoch of a quiet cluster.
fn epoch() -> impl Strategy<Value = Epoch> {
    prop_oneof![8 => Just(Epoch(1)), 1 => (0..4u64).prop_map(Epoch)]
}

fn action() -> impl Strategy<Value = Action> {
    (0..34u32, name("i"), name("a"), name("d"), name("d")).prop_map(|(sort, i, a, d, e)| {
        let (instance, agent, disk) = (InstanceId::from(i), AgentId::from(a), DiskId::from(d));
        match sort {
            0..=2 => Action::CreateVm { instance, agent, role: VmRole::Current },
            3 => Action::BindVm { instance, agent },
            4 | 5 => Action::DeleteVm { instance, agent },
            6 => Action::CreateDisk { instance, agent, disk, name: None },
            7 => Action::MountDisk { instance, agent, disk },
            8 => Action::MigrateDisk { instance, agent, from: disk, to: e.into() },
            9 => Action::OrphanDisk { instance, disk },
            10 => Action::DeleteOrphanedDisk { disk },
            11 => Action::Apply { instance, agent },
            12 => Action::BeginUpdate { instance },
            13 => Action::CompleteUpdate { instance },
            14 => Action::ReleaseAddresses { instance },
            15 => Action::SaveInstance { instance },
            16 => Action::DeleteInstance { instance },
            17 => Action::SaveDeployment,
            18 => Action::DeleteDeployment,
            19 => Action::OrphanVm { instance, agent },
            20 => Action::DeleteOrphanedVm { agent },
            21 => Action::ForgetVm { instance, agent, left: Left::Perhaps },
            22 => Action::ActivateDisk { instance, disk },
            23 => Action::CloseProblem { problem: ProblemId(1) },
            26 | 27 => Action::CreateVm { instance, agent, role: VmRole::Spare },
            28 => Action::ElectVm { instance, agent, instead_of: None },
            29 => Action::ElectVm { instance, agent, instead_of: Some(e.replace('d', "a").into()) },
            30 | 31 => {
                let snapshot = SnapshotId::from(e.replace('d', "s"));
                Action::SnapshotDisk { instance, disk, snapshot, clean: true }
            }
            32 => Action::DeleteSnapshot { snapshot: e.replace('d', "s").into() },
            24 => Action::ConfirmProblem { problem: ProblemId(1), instance, resolution: "ignore".into() },
            _ => Action::CompilePackage {
                worker: instance,
                agent,
                package: package_key("p", "1", "d"),
                compiled_elsewhere: Vec::new(),
            },
        }
    })
}

fn outcome() -> impl Strategy<Value = StepOutcome> {
    prop_oneof![
        6 => Just(StepOutcome::Done),
        3 => name("vm-").prop_map(|cid| vm_created(&cid)),
        3 => name("disk-").prop_map(|cid| disk_created(&cid)),
        1 => Just(StepOutcome::Bound { networks: vec![network(Some("10.0.0.7"))] }),
        1 => Just(StepOutcome::Applied { configuration_hash: "h".into(), template_hashes: BTreeMap::new() }),
        1 => Just(StepOutcome::Compiled { blob: "b".into(), digest: "d".into(), size_bytes: 1 }),
        1 => Just(StepOutcome::failed(TaskError { code: 1, message: "no".into() })),
        1 => Just(StepOutcome::Failed {
            error: TaskError { code: 1, message: "no".into() },
            left: Left::Perhaps,
            result_line: Some("{}".into()),
        }),
        1 => Just(StepOutcome::PassedOver { error: TaskError { code: 1, message: "no".into() } }),
        1 => name("snap-").prop_map(|cid| StepOutcome::SnapshotTaken { cid: cid.into() }),
        1 => Just(StepOutcome::MayHaveLeaked { what: "something".into() }),
    ]
}

fn plan_of_any() -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![6 => Just(Fate::New), 1 => Just(Fate::Updated), 1 => Just(Fate::Deleted)];
    // All instances are in most plans, so that their steps are taken; one address in five is somebody else's.
    let ids = prop_oneof![
        4 => Just((0..4u64).map(|number| format!("i{number}")).collect::<Vec<_>>()),
        1 => prop::collection::vec(name("i"), 0..4),
    ];
    let targets =
        (ids, fate).prop_map(|(ids, fate)| ids.into_iter().map(|id| (id, fate)).collect::<Vec<_>>());
    let own = small().prop_map(|number| (format!("i{number}"), number as u8));
    let reservation_of = prop_oneof![4 => own, 1 => (name("i"), 0..4u8)];
    let reservations = prop::collection::vec(reservation_of, 0..4);
    let units = prop::collection::vec(prop::collection::vec(action(), 0..6), 1..6);
    (targets, reservations, units, small()).prop_map(|(targets, reservations, units, generation)| {
        let targets = targets.into_iter().map(|(id, fate)| target(&id, Some("10.0.0.1"), fate)).collect();
        let held = |(id, ip): (String, u8)| reservation(&id, &format!("10.0.0.{ip}"));
        let reservations = reservations.into_iter().map(held).collect();
        let units = (0u32..).zip(units).map(|(no, actions)| unit(no, "u", actions)).collect();
        let mut plan = plan(targets, reservations, vec![stage(Some("Updating instance"), units)]);
        let planned_links = Some(Box::new(links(&format!("g{generation}"), true)));
        plan.record = plan.record.map(|record| DeploymentRecord { planned_links, ..record });
        Plan { generation, ..plan }
    })
}

fn records() -> impl Strategy<Value = Vec<StepRecord>> {
    let event = prop_oneof![
        4 => Just(StepEvent::Started),
        4 => outcome().prop_map(StepEvent::Finished),
        1 => Just(StepEvent::Retrying("again".into())),
        1 => Just(StepEvent::Skipped),
    ];
    let record = (0..6u32, 0..6u32, 0..3u32, event).prop_map(|(unit, index, attempt, event)| StepRecord {
        step: step_no(unit, index),
        attempt,
        event,
    });
    // Begin-and-end pairs, so that plans get somewhere.
    let pair = (0..6u32, 0..6u32, outcome())
        .prop_map(|(unit, index, outcome)| vec![started(unit, index, 1), finished(unit, index, 1, outcome)]);
    prop_oneof![prop::collection::vec(record, 0..4), pair]
}

fn end() -> impl Strategy<Value = TaskEnd> {
    prop_oneof![
        Just(TaskEnd::Done(Some("/deployments/web".into()))),
        Just(TaskEnd::Error(TaskError { code: 100, message: "no".into() })),
        Just(TaskEnd::Cancelled),
    ]
}

fn health() -> impl Strategy<Value = AgentHealth> {
    prop_oneof![Just(AgentHealth::Alive), Just(AgentHealth::Suspect), Just(AgentHealth::Dead)]
}

fn dynamic_deeds() -> impl Strategy<Value = DynamicDeed> {
    let id = || DiskId::new("id-data");
    let agent = || name("a").prop_map(AgentId::from);
    prop_oneof![
        3 => name("a").prop_map(|beside| dynamic_make(&beside)),
        2 => name("c").prop_map(move |cid| DynamicDeed::Made { id: id(), cid: cid.into() }),
        1 => Just(DynamicDeed::Gone { id: id() }),
        1 => Just(DynamicDeed::Orphaned { id: id() }),
        1 => Just(DynamicDeed::Told { metadata: Default::default() }),
        3 => agent().prop_map(|agent| DynamicDeed::Attach { agent }),
        3 => agent().prop_map(|agent| DynamicDeed::Attached { agent, hint: "/dev/sdc".into() }),
        1 => agent().prop_map(|agent| DynamicDeed::Detached { agent }),
    ]
}

pub fn fleet_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (small(), small())
            .prop_map(|(node, epoch)| Command::LeaderBegin { node: NodeId(node), epoch: Epoch(epoch) }),
        small().prop_map(|node| Command::MemberPut { member: member(node) }),
        small().prop_map(|node| Command::MemberRemove { node: NodeId(node) }),
        name("t").prop_map(|hash| Command::TokenPut { token: token(&hash, START + 50_000) }),
        (name("t"), name("k")).prop_map(|(hash, key_digest)| Command::TokenUse { hash, key_digest }),
        name("u").prop_map(|name| Command::UserPut { user: user(&name) }),
        name("u").prop_map(|name| Command::UserRemove { name: name.into() }),
        (name("k"), name("u")).prop_map(|(id, user)| Command::UserTokenPut { token: user_token(&id, &user) }),
        name("k").prop_map(|id| Command::UserTokenRemove { id }),
        (small(), name("x")).prop_map(|(number, consumer)| Command::LinkPut {
            provider: LinkProviderId(number),
            consumer,
            network: None
        }),
        small().prop_map(|number| Command::LinkRemove { id: LinkId(number) }),
        any::<bool>().prop_map(|on| Command::SettingPut { setting: Setting::ManagedNetworks(on) }),
        (small(), name("n"), name("s"))
            .prop_map(|(task, network, subnet)| { network_take(TaskId(task), &network, &[subnet.as_str()]) }),
        (small(), name("n"), name("s"), any::<bool>()).prop_map(|(task, network, subnet, is_made)| {
            subnet_put(TaskId(task), &network, &subnet, is_made.then_some("net-1"))
        }),
        (small(), name("n")).prop_map(|(task, network)| Command::NetworkRetire {
            task: TaskId(task),
            epoch: EPOCH,
            network: network.into()
        }),
        (small(), dynamic_deeds()).prop_map(|(task, deed)| dynamic_deed(TaskId(task), deed)),
        (small(), name("a")).prop_map(|(task, agent)| Command::VmLeaves {
            task: TaskId(task),
            epoch: EPOCH,
            agent: agent.into()
        }),
        any::<bool>().prop_map(|paused| Command::SettingPut { setting: Setting::ResurrectionPaused(paused) }),
        (name("c"), name("text")).prop_map(|(name, content)| Command::ConfigPut {
            kind: "cloud".into(),
            name,
            content,
            expected_latest: None
        }),
        (1..5u64).prop_map(|id| Command::ConfigVersionDelete { id: ConfigId(id) }),
        name("c").prop_map(|name| Command::ConfigDelete { kind: "cloud".into(), name }),
        name("b").prop_map(|digest| Command::BlobHeld {
            digest: digest.into(),
            size_bytes: 1,
            nodes: vec![NodeId(1)]
        }),
        name("b").prop_map(|digest| Command::BlobLost { digest: digest.into(), node: NodeId(1) }),
        name("b").prop_map(|digest| Command::BlobForget { digest: digest.into() }),
        (small(), epoch(), name("b")).prop_map(|(task, epoch, digest)| {
            let (is_export, task, digest) = (task % 2 == 0, TaskId(task), digest.into());
            match is_export {
                true => Command::ExportPut { task, epoch, digest },
                false => Command::BundlePut { task, epoch, digest },
            }
        }),
        (name("b"), small()).prop_map(|(digest, later)| Command::BundlesForget {
            digests: vec![digest.into()],
            before: Timestamp(START + later as i64 * 10_000)
        }),
        name("b").prop_map(|digest| Command::BlobKeep { digest: digest.into() }),
        (small(), name("b")).prop_map(|(task, digest)| Command::BlobsLeave {
            task: TaskId(task),
            epoch: EPOCH,
            digests: vec![digest.into()],
        }),
        (name("b"), small()).prop_map(|(digest, later)| Command::BlobsForget {
            digests: vec![digest.into()],
            before: Timestamp(START + later as i64 * 10_000)
        }),
        (name("a"), name("k"), 0..3u32).prop_map(|(agent, key_digest, token_generation)| {
            Command::AgentEnroll { agent: agent.into(), key_digest, token_generation }
        }),
        (epoch(), small()).prop_map(|(epoch, number)| Command::ShardMapPut {
            epoch,
            map: ShardMap { number, watchers: BTreeSet::new() }
        }),
        (small(), name("a"), health()).prop_map(|(shard_epoch, agent, health)| Command::AgentTransitions {
            shard_epoch,
            transitions: vec![AgentTransition { agent: agent.into(), health, reason: "r".into() }]
        }),
        (name("i"), any::<bool>())
            .prop_map(|(id, ignore)| Command::InstanceIgnore { instance: id.into(), ignore }),
        small().prop_map(|id| Command::LeakClear { id: EventId(id) }),
        (small(), name("a"), any::<bool>()).prop_map(|(shard_epoch, agent, run)| Command::AgentsJobs {
            shard_epoch,
            jobs: vec![AgentJobs { agent: agent.into(), run }],
        }),
        (epoch(), name("i"), name("az")).prop_map(|(epoch, id, az)| Command::DnsNumber {
            epoch,
            subjects: vec![DnsSubject::Instance("web".into(), id.into()), DnsSubject::Zone(az.into())],
        }),
        (epoch(), small(), name("b")).prop_map(|(epoch, version, blob)| Command::DnsPut {
            epoch,
            version,
            content: blob.clone(),
            blob: blob.into(),
        }),
        (name("b"), small()).prop_map(|(blob, later)| Command::DnsForget {
            blobs: vec![blob.into()],
            before: Timestamp(START + later as i64 * 10_000),
        }),
        (epoch(), prop::option::of(0..3u32)).prop_map(|(epoch, unhealthy)| Command::MeltdownPut {
            epoch,
            deployment: "web".into(),
            failed: unhealthy.map(|unhealthy| FailedShare { unhealthy, total: 3 }),
        }),
    ]
}

fn sought() -> impl Strategy<Value = Sought> {
    prop_oneof![
        name("a").prop_map(|agent| Sought::Vm(agent.into())),
        name("d").prop_map(|disk| Sought::Disk(disk.into())),
    ]
}

fn asked() -> impl Strategy<Value = Option<AskedStage>> {
    prop_oneof![
        Just(None),
        Just(Some(AskedStage::Asked)),
        Just(Some(AskedStage::Running { agent_task: "x".into() })),
        Just(Some(AskedStage::Lost)),
    ]
}

pub fn task_command() -> impl Strategy<Value = Command> {
    let kind = prop_oneof![
        4 => Just(deploy()),
        1 => Just(TaskKind::DeleteDeployment { force: false }),
        1 => Just(TaskKind::ScanAndFix { instances: Vec::new(), unknown: Vec::new() }),
    ];
    let locks = prop::collection::vec((0..9u64).prop_map(|number| format!("lock{number}")), 0..3);
    let queue =
        (kind, locks).prop_map(|(kind, locks)| queue(kind, locks.into_iter().map(LockName::from).collect()));
    prop_oneof![
        6 => queue,
        1 => task().prop_map(|task| Command::TaskCancel { task }),
        8 => (task(), epoch()).prop_map(|(task, epoch)| Command::TaskTake { task, epoch }),
        6 => (task(), epoch(), plan_of_any()).prop_map(|(task, epoch, plan)| Command::PlanCommit {
            task, epoch, draft: 0, parts: 0, plan: Box::new(plan)
        }),
        20 => (task(), epoch(), records()).prop_map(|(task, epoch, records)| Command::StepRecords {
            task, epoch, records
        }),
        1 => (task(), epoch(), end()).prop_map(|(task, epoch, end)| Command::TaskFinish { task, epoch, end }),
        1 => (task(), epoch(), name("a")).prop_map(|(task, epoch, agent)| Command::AgentTokenRenew {
            task, epoch, agent: agent.into()
        }),
        2 => (task(), records(), name("a")).prop_map(|(task, records, agent)| {
            let no = records.first().map_or(step_no(1, 0), |record| record.step);
            certificate_offer(task, no, &agent, "01")
        }),
        2 => (task(), epoch(), sought()).prop_map(|(task, epoch, sought)| Command::LatecomerPut {
            task, epoch, sought, look_for_ms: 2
        }),
        2 => (epoch(), sought(), name("vm-"), 0..3u64).prop_map(|(epoch, sought, cid, left)| {
            Command::LatecomerLooked { epoch, sought, found: vec![cid], left_ms: (left, left.saturating_sub(1)) }
        }),
        2 => (task(), epoch(), 0..2u32, name("i")).prop_map(|(task, epoch, part, instance)| {
            let fault = Fault::MissingVm { agent: None, cid: None };
            let finding = Finding { instance: instance.into(), group: "web".into(), index: 0, fault };
            Command::ProblemsFound { task, epoch, part, among: None, findings: vec![finding] }
        }),
        1 => (name("a"), name("n"), name("b")).prop_map(|(agent, name, blob)| Command::AgentBrought {
            agent: agent.into(), name, brought: brought(&blob)
        }),
        2 => (epoch(), name("a"), asked(), asked()).prop_map(|(epoch, agent, from, to)| Command::AgentAsked {
            epoch, agent: agent.into(), request: "r".into(), from, to
        }),
        1 => (task(), epoch()).prop_map(|(task, epoch)| Command::VariableSetOpen {
            task, epoch, deployment: "web".into()
        }),
        1 => (task(), epoch(), name("/v")).prop_map(|(task, epoch, name)| Command::VariablesPut {
            task, epoch, set: VariableSetId(1),
            values: vec![NewVariable {
                name: name.into(), kind: "password".into(), options_digest: "o".into(), sealed: Some(Sealed(vec![1])),
            }],
        }),
        1 => (task(), epoch(), name("/v"), any::<bool>()).prop_map(|(task, epoch, name, linked)| {
            let pin = VariablePin { name: name.into(), version: 1, provider: linked.then(|| "db".into()) };
            Command::VariablesPin { task, epoch, set: VariableSetId(1), pins: vec![pin] }
        }),
        1 => (task(), epoch(), small()).prop_map(|(task, epoch, offset)| Command::OutputSeal {
            task, epoch, kind: OutputKind::Debug,
            segment: OutputSegment { offset, length: 1, blob: "b".into() }
        }),
        1 => (task(), epoch()).prop_map(|(task, epoch)| Command::ReleaseDelete {
            task, epoch, name: "golden".into(), version: None, with_compiled: task.0 % 2 == 0
        }),
        1 => (task(), epoch(), small()).prop_map(|(task, epoch, version)| Command::StemcellPut {
            task, epoch, stemcell: stemcell_record(&version.to_string(), "x")
        }),
        1 => (task(), epoch(), small()).prop_map(|(task, epoch, version)| Command::StemcellRetire {
            task, epoch, name: "ubuntu".into(), version: version.to_string().into()
        }),
        1 => (task(), epoch(), small()).prop_map(|(task, epoch, version)| Command::StemcellDelete {
            task, epoch, name: "ubuntu".into(), version: version.to_string().into(), cpi: "".into()
        }),
        1 => (task(), epoch(), small(), 0..2u32).prop_map(|(task, epoch, draft, part)| Command::PlanDraft {
            task, epoch, draft, part, content: Box::default()
        }),
    ]
}

/// A log: commands with now and then a request id that comes again.
pub fn log() -> impl Strategy<Value = Vec<Entry>> {
    let command = prop_oneof![4 => task_command(), 1 => fleet_command()];
    let request = prop_oneof![9 => Just(None), 1 => name("r").prop_map(Some)];
    prop::collection::vec((request, command, 0..5000i64), 1..120).prop_map(|asked| {
        let first = [init(), Command::LeaderBegin { node: NodeId(1), epoch: EPOCH }]
            .map(|command| (None, command, 0));
        let entries = first.into_iter().chain(asked);
        aim::aim(
            entries.map(|(request, command, ms)| entry(request.as_deref(), START + ms, command)).collect(),
        )
    })
}
