//! Applying entries: the only way in which the state changes.
//!
//! [`apply()`] is total. It refuses by answering, a refused command changes nothing but its remembered answer, and it
//! knows no time but the entry's. It does not log and tells nobody: who wants to know reads what it returns.
//!
//! Read next: `tx.rs` (what a command reads and writes), then one file per noun; `step.rs` is the heart.

mod address;
mod agent;
mod answers;
mod asked;
mod blob;
mod brought;
mod certificate;
mod changes;
mod config;
mod deed;
mod deployment;
mod disk;
mod dns;
mod dynamic_disk;
mod errand;
mod event;
mod fleet;
mod instance;
mod latecomer;
mod line;
mod link;
mod lock;
mod network;
mod output;
mod plan;
mod problem;
mod release;
mod snapshot;
mod stemcell;
mod step;
mod task;
mod tx;
mod unit;
mod variable;
mod vm;

use model::Revision;
use model::release::Parts;

pub use self::changes::CHANGES_KEPT;
use self::tx::{Owner, Tx};
use crate::command::{Command, Entry, Outcome, Refusal};
use crate::kv::Kv;
use crate::overlay::Writes;
use crate::records::Change;

/// What an entry did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The answer, the same on every replica.
    pub outcome: Outcome,
    /// What watchers see, by table and key; empty if the entry was refused or had been answered before.
    pub changes: Vec<Change>,
}

/// Applies the entry at position `revision` of the log. Never fails, whatever the entry holds.
pub fn apply<K: Kv>(kv: &mut K, revision: Revision, entry: &Entry) -> Applied {
    apply_keeping(kv, revision, entry, CHANGES_KEPT)
}

fn apply_keeping<K: Kv>(kv: &mut K, revision: Revision, entry: &Entry, changes_kept: u64) -> Applied {
    let (applied, writes) = decide(kv, revision, entry, changes_kept);
    for (key, value) in writes {
        match value {
            Some(value) => kv.put(key, value),
            None => kv.delete(&key),
        }
    }
    applied
}

/// Applies an entry's bytes and returns its outcome's bytes. Bytes that this version can't read are refused; who proposes
/// asks [`Command::feature_level`] first, so that they are not proposed while a member is too old for them.
///
/// How many revisions' changes are kept is the same on every replica, or their states differ: a fleet's are
/// [`CHANGES_KEPT`].
pub fn apply_bytes<K: Kv>(
    kv: &mut K,
    revision: Revision,
    bytes: &[u8],
    changes_kept: u64,
) -> (Vec<u8>, Vec<Change>) {
    match Entry::decode(bytes) {
        Ok(entry) => {
            let applied = apply_keeping(kv, revision, &entry, changes_kept);
            (applied.outcome.encode(), applied.changes)
        }
        Err(_) => (Outcome::Refused(Refusal::UnknownCommand).encode(), Vec::new()),
    }
}

/// Finds out what the entry does, without doing it.
fn decide(
    kv: &dyn crate::kv::KvRead,
    revision: Revision,
    entry: &Entry,
    changes_kept: u64,
) -> (Applied, Writes) {
    let mut tx = Tx::new(kv, revision, entry.proposed_at, &entry.actor);
    if let Some(outcome) = entry.request_id.as_ref().and_then(|id| answers::find(&tx, id)) {
        return (Applied { outcome, changes: Vec::new() }, Writes::new());
    }
    let outcome = command(&mut tx, &entry.command).unwrap_or_else(|refusal| {
        tx.discard();
        Outcome::Refused(refusal)
    });
    if let Some(id) = &entry.request_id {
        answers::remember(&mut tx, id, &outcome);
    }
    let changes = changes::keep(&mut tx, changes_kept);
    (Applied { outcome, changes }, tx.into_writes())
}

/// Every command has its line here; a new one breaks the build until it has, too.
fn command<'a>(tx: &mut Tx<'a>, command: &'a Command) -> Result<Outcome, Refusal> {
    use Command::*;
    match command {
        ClusterInit { cluster_id, director_name, director_uuid, secrets } => {
            fleet::init(tx, [cluster_id, director_name, director_uuid], secrets)
        }
        LeaderBegin { node, epoch } => fleet::leader_begin(tx, *node, *epoch),
        MemberPut { member } => fleet::member_put(tx, member),
        MemberRemove { node } => fleet::member_remove(tx, *node),
        TokenPut { token } => fleet::token_put(tx, token),
        TokenUse { hash, key_digest } => fleet::token_use(tx, hash, key_digest),
        UserPut { user } => fleet::user_put(tx, user),
        UserRemove { name } => fleet::user_remove(tx, name),
        SettingPut { setting } => fleet::setting_put(tx, *setting),

        ConfigPut { kind, name, content, expected_latest } => {
            config::put(tx, (kind, name), content, *expected_latest)
        }
        ConfigDelete { kind, name } => config::delete(tx, (kind, name)),
        BlobHeld { digest, size_bytes, nodes } => blob::held(tx, digest, *size_bytes, nodes),
        BlobLost { digest, node } => blob::lost(tx, digest, *node),
        ReleasePut { task, epoch, release, compiled, fix, partial } => {
            let parts = if *fix { Parts::Replace } else { Parts::Keep };
            let extent = if *partial { release::Extent::Partial } else { release::Extent::Whole };
            release::put(tx, (*task, *epoch), release, compiled, (parts, extent))
        }
        ReleaseDelete { task, epoch, name, version, with_compiled } => {
            let compiled =
                if *with_compiled { release::Compiled::GoWithThem } else { release::Compiled::Stay };
            release::delete(tx, (*task, *epoch), name, version.as_ref(), compiled)
        }
        StemcellPut { task, epoch, stemcell } => stemcell::put(tx, (*task, *epoch), stemcell),
        StemcellDelete { task, epoch, name, version, cpi } => {
            stemcell::delete(tx, (*task, *epoch), (name, version, cpi))
        }

        StemcellRetire { task, epoch, name, version } => {
            stemcell::retire(tx, (*task, *epoch), (name, version))
        }

        TaskQueue { kind, deployment, context_id, locks } => {
            task::queue(tx, kind, deployment.as_ref(), context_id, locks)
        }
        TaskCancel { task } => task::cancel(tx, *task),
        TaskTake { task, epoch } => task::take(tx, *task, *epoch),
        TaskLine { task, epoch, line } => line::prepare(tx, (*task, *epoch), line),
        ProblemsFound { task, epoch, part, among, findings } => {
            problem::found(tx, (*task, *epoch), *part, among.as_deref(), findings)
        }
        TaskReport { task, epoch, lines } => task::report(tx, (*task, *epoch), lines),
        PlanDraft { task, epoch, draft, part, content } => {
            plan::draft(tx, (*task, *epoch), (*draft, *part), content)
        }
        PlanCommit { task, epoch, draft, parts, plan } => {
            plan::commit(tx, (*task, *epoch), (*draft, *parts), plan)
        }
        StepRecords { task, epoch, records } => step::records(tx, (*task, *epoch), records),
        OutputSeal { task, epoch, kind, segment } => output::seal(tx, (*task, *epoch), *kind, segment),
        TaskFinish { task, epoch, end } => task::finish(tx, (*task, *epoch), end),

        VariableSetOpen { task, epoch, deployment } => variable::open_set(tx, (*task, *epoch), deployment),
        VariablesPut { task, epoch, set, values } => variable::put(tx, (*task, *epoch), *set, values),
        VariablesPin { task, epoch, set, pins } => variable::pin(tx, (*task, *epoch), *set, pins),

        InstanceIgnore { instance, ignore } => instance::ignore(tx, instance, *ignore),
        AgentEnroll { agent, key_digest, token_generation } => {
            agent::enroll(tx, agent, key_digest, *token_generation)
        }
        AgentTokenRenew { task, epoch, agent } => agent::renew_token(tx, (*task, *epoch), agent),
        ShardMapPut { epoch, map } => agent::shard_map_put(tx, *epoch, map),
        AgentTransitions { shard_epoch, transitions } => agent::transitions(tx, *shard_epoch, transitions),
        MeltdownPut { epoch, deployment, failed } => agent::meltdown(tx, *epoch, deployment, *failed),
        LeakPut { leak } => event::leak_put(tx, leak),
        LeakClear { id } => event::leak_clear(tx, *id),
        LatecomerPut { task, epoch, sought, look_for_ms } => {
            latecomer::put(tx, (*task, *epoch), sought, *look_for_ms)
        }
        LatecomerLooked { epoch, sought, found, left_ms } => {
            latecomer::looked(tx, *epoch, sought, found, *left_ms)
        }
        BlobForget { digest } => blob::forget(tx, digest),
        BundlePut { task, epoch, digest } => blob::bundle_put(tx, (*task, *epoch), digest),
        BundlesForget { digests, before } => blob::bundles_forget(tx, digests, *before),
        ExportPut { task, epoch, digest } => blob::export_put(tx, (*task, *epoch), digest),
        BlobsForget { digests, before } => blob::forget_left(tx, digests, *before),
        BlobKeep { digest } => blob::keep(tx, digest),
        BlobsLeave { task, epoch, digests } => blob::left_by_task(tx, (*task, *epoch), digests),
        EventPut { event } => event::put(tx, event),
        UserTokenPut { token } => fleet::user_token_put(tx, token),
        UserTokenRemove { id } => fleet::user_token_remove(tx, id),
        ConfigVersionDelete { id } => config::delete_version(tx, *id),
        ForTeams { teams, only_theirs, command } => for_teams(tx, (teams, *only_theirs), command),
        LinkPut { provider, consumer, network } => link::put(tx, *provider, consumer, network.as_ref()),
        LinkRemove { id } => link::remove(tx, *id),
        DnsNumber { epoch, subjects } => dns::number_those_there(tx, *epoch, subjects),
        DnsPut { epoch, version, content, blob } => dns::put(tx, *epoch, (*version, content, blob)),
        DnsForget { blobs, before } => dns::forget_blobs(tx, blobs, *before),
        AgentsJobs { shard_epoch, jobs } => agent::jobs(tx, *shard_epoch, jobs),
        NetworkTake { task, epoch, network, subnets } => network::take(tx, (*task, *epoch), network, subnets),
        SubnetPut { task, epoch, network, subnet, made } => {
            network::subnet_put(tx, (*task, *epoch), (network, subnet), made.as_ref())
        }
        NetworkRetire { task, epoch, network } => network::retire(tx, (*task, *epoch), network),
        DynamicDisk { task, epoch, name, deed } => dynamic_disk::deed(tx, (*task, *epoch), name, deed),
        VmLeaves { task, epoch, agent } => dynamic_disk::vm_leaves(tx, (*task, *epoch), agent),
        CertificateOffer { task, epoch, step, agent, certificate } => {
            certificate::offer(tx, (*task, *epoch), *step, (agent, certificate))
        }
        AgentAsked { epoch, agent, request, from, to } => {
            asked::put(tx, *epoch, (agent, request), (from.as_ref(), to.as_ref()))
        }
        AgentBrought { agent, name, brought } => brought::put(tx, agent, name, brought),
    }
}

/// `ForTeams`. Once: a command for the teams of a command for teams is nobody's.
fn for_teams<'a>(
    tx: &mut Tx<'a>,
    owner: (&'a [String], bool),
    asked: &'a Command,
) -> Result<Outcome, Refusal> {
    let is_owned =
        matches!(asked, Command::TaskQueue { .. } | Command::ConfigPut { .. } | Command::ConfigDelete { .. });
    if !is_owned {
        return Err(tx::invalid("a command for teams", "teams own deployments and configs"));
    }
    tx.owner = Owner { teams: owner.0, only_theirs: owner.1 };
    command(tx, asked)
}
