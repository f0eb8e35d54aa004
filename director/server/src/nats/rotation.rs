//! Agents whose certificates end are given others, also if nobody deploys: the leader files a task for each deployment that has
//! some. It waits for the deployment's lock as any other, and is found again by the next leader.
//!
//! Not here: what is done then (`executor`, where settings are sent), and when a certificate ends (`certificates.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::task::{Task, TaskKind, TaskState};
use model::{AgentId, DeploymentName, LockName, RequestId, Timestamp};
use raft::Node;
use ring::digest::{SHA256, digest};
use state::State;
use state::command::{Command, THIRD_LEVEL};
use state::log::{CommandLog as _, Proposal};
use state::query::TaskFilter;
use state::records::AgentHealth;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Nats;
use super::certificates::{Terms, until};
use crate::metrics;

/// How often the leader looks at most.
const LOOK: Duration = Duration::from_secs(20);

/// Agents of one task at most: a deploy that comes meanwhile waits for it.
const AGENTS_MAX: usize = 100;

/// Tasks that are open at most.
const TASKS_MAX: usize = 4;

/// How long a deployment is left alone after a task that did not end well.
const REST: Duration = Duration::from_secs(3600);

/// How often it is said that some can't be given others.
const SAY_EVERY: Duration = Duration::from_secs(3600);

/// Tasks of a deployment that are looked at for the last rotation.
const TASKS_READ: usize = 50;

/// Runs for the life of the process; acts only while this replica leads.
pub(super) async fn run(node: Node, nats: Arc<Nats>, stop: CancellationToken) {
    // A short life of certificates, as in tests, has short rests and looks.
    let lasts = nats.config.agent_certificate;
    let mut looks = interval(LOOK.min(lasts / 60));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let found = match node.leadership().is_some_and(|l| l.holds()) {
            true => look(&nats, REST.min(lasts / 12)).await,
            false => Found::default(),
        };
        metrics::late_certificates(found.late);
        if found.late > 0 && said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            said = Some(Instant::now());
            let first = found.first.as_ref().map(|(agent, until)| (agent.as_str(), until.seconds()));
            let (agent, until) = first.unwrap_or_default();
            warn!(
                agents = found.late,
                agent, until, "agents' certificates end soon, and could not be replaced"
            );
        }
        for (deployment, proposal) in found.rotations {
            info!(%deployment, "certificates of agents are replaced");
            if let Err(error) = nats.log.propose(proposal).await {
                warn!(%deployment, error = %error, "certificates of agents can't be replaced now");
            }
        }
    }
}

/// What a look has found.
#[derive(Default)]
struct Found {
    rotations: Vec<(DeploymentName, Proposal)>,
    /// Agents that should have another certificate by now.
    late: usize,
    /// The first of them whose certificate ends.
    first: Option<(AgentId, Timestamp)>,
}

async fn look(nats: &Nats, rest: Duration) -> Found {
    let (view, now) = (nats.log.view(), nats.log.clock());
    let terms = match nats.terms() {
        Ok(terms) => terms,
        Err(error) => {
            warn!(error = format!("{error:#}"), "nobody can tell whose certificates are to be replaced");
            return Found::default();
        }
    };
    let looked = owned_tasks::aside(move || found(&State::new(&*view), &terms, now, rest)).await;
    looked.unwrap_or_default()
}

/// Returns what there is to do, the most urgent first.
fn found(state: &State<'_>, terms: &Terms, now: Timestamp, rest: Duration) -> Found {
    let mut found = Found::default();
    if state.feature_level().is_some_and(|level| level < THIRD_LEVEL) {
        return found;
    }
    let mut due: BTreeMap<DeploymentName, Vec<(Timestamp, AgentId)>> = BTreeMap::new();
    for vm in state.all_vms() {
        let is_settled = vm.is_current() && vm.cid.is_some() && vm.stemcell.has_bosh_s_agent();
        let Some(agent) = state.agent(&vm.agent).filter(|_| is_settled) else { continue };
        // A dead one gets another VM, and with it another certificate.
        if agent.health == AgentHealth::Dead {
            continue;
        }
        let until = until(&agent, &vm);
        if terms.is_late(&agent, &vm, now) {
            found.late += 1;
            let first = found.first.take().filter(|(_, first)| *first <= until);
            found.first = first.or_else(|| Some((vm.agent.clone(), until)));
        }
        if terms.is_due(&agent, &vm, now) {
            due.entry(agent.deployment).or_default().push((until, vm.agent));
        }
    }
    let is_rotation = |task: &Task| matches!(task.kind, TaskKind::RotateCertificates { .. });
    let states = vec![TaskState::Queued, TaskState::Processing, TaskState::Cancelling];
    let open = state.tasks(&TaskFilter { states, ..TaskFilter::default() });
    let room = TASKS_MAX.saturating_sub(open.iter().filter(|task| is_rotation(task)).count());
    due.values_mut().for_each(|agents| agents.sort());
    let mut due: Vec<_> = due.into_iter().collect();
    due.sort_by(|(_, a), (_, b)| a.first().cmp(&b.first()));
    let rotations = due.into_iter().filter_map(|(deployment, agents)| {
        let agents = agents.into_iter().take(AGENTS_MAX).map(|(_, agent)| agent).collect();
        Some((deployment.clone(), rotation(state, &deployment, agents, (now, rest))?))
    });
    found.rotations = rotations.take(room).collect();
    found
}

/// Returns the proposal that has agents of a deployment given other certificates; none while one is open, or has failed just
/// now.
///
/// The request id says after which task of the deployment it comes: two leaders propose the same, and the log takes it once.
fn rotation(
    state: &State<'_>,
    deployment: &DeploymentName,
    agents: Vec<AgentId>,
    (now, rest): (Timestamp, Duration),
) -> Option<Proposal> {
    let filter =
        TaskFilter { deployment: Some(deployment.clone()), limit: Some(TASKS_READ), ..TaskFilter::default() };
    let newest = state.tasks(&filter);
    let last = newest.iter().find(|task| matches!(task.kind, TaskKind::RotateCertificates { .. }));
    let rests = last.is_some_and(|last| match (last.state, last.finished_at) {
        (TaskState::Done, _) => false,
        (TaskState::Error | TaskState::Cancelled, Some(at)) => {
            i128::from(now.0) < i128::from(at.0) + rest.as_millis() as i128
        }
        _ => true,
    });
    if rests {
        return None;
    }
    let after = newest.first().map(|task| task.id.0).unwrap_or_default();
    // Hashed, so that no user can make the same id: theirs have a slash.
    let id =
        digest(&SHA256, format!("rotation of certificates of {deployment} after task {after}").as_bytes());
    let command = Command::TaskQueue {
        kind: TaskKind::RotateCertificates { agents },
        deployment: Some(deployment.clone()),
        context_id: String::new(),
        locks: vec![LockName::new(format!("lock:deployment:{deployment}"))],
    };
    Some(Proposal { request_id: Some(RequestId::new(hex::encode(id))), ..Proposal::own(command) })
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
pub(super) mod tests;
