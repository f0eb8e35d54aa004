//! Agents: enrolment, who watches them, and what the watchers see.

use model::*;

use super::event::{Audit, audit};
use super::task::working;
use super::tx::Tx;
use crate::command::{Outcome, Refusal};
use crate::records::{AgentHealth, AgentJobs, AgentRecord, AgentTransition, FailedShare, Meltdown, ShardMap};
use crate::tables::*;

/// `AgentEnroll`. The first key wins; its holder may ask again.
pub(super) fn enroll(
    tx: &mut Tx<'_>,
    agent: &AgentId,
    key_digest: &str,
    token_generation: u32,
) -> Result<Outcome, Refusal> {
    let mut record = tx.need(&AGENTS, agent, "agent")?;
    if record.token_generation != token_generation {
        return Err(Refusal::AgentTokenReplaced { agent: agent.clone() });
    }
    match &record.key_digest {
        Some(known) if known == key_digest => Ok(Outcome::Done),
        Some(_) => Err(Refusal::AgentKeyTaken { agent: agent.clone() }),
        None => {
            record.key_digest = Some(key_digest.to_owned());
            tx.put(&AGENTS, agent, &record);
            Ok(Outcome::Done)
        }
    }
}

/// `AgentTokenRenew`. Not before somebody has looked: a VM that runs would be locked out.
pub(super) fn renew_token(tx: &mut Tx<'_>, by: (TaskId, Epoch), agent: &AgentId) -> Result<Outcome, Refusal> {
    working(tx, by)?;
    let mut record = tx.need(&AGENTS, agent, "agent")?;
    if tx.get(&VMS, agent).is_some_and(|vm| vm.cid.is_some()) {
        return Err(Refusal::Exists { what: "VM of agent".into(), name: agent.to_string() });
    }
    record.token_generation += 1;
    record.key_digest = None;
    tx.put(&AGENTS, agent, &record);
    Ok(Outcome::Done)
}

/// `ShardMapPut`.
pub(super) fn shard_map_put(tx: &mut Tx<'_>, epoch: Epoch, map: &ShardMap) -> Result<Outcome, Refusal> {
    tx.fence(epoch)?;
    let current = tx.state().shard_map();
    if map == &current {
        return Ok(Outcome::Done);
    }
    if map.number <= current.number {
        return Err(Refusal::StaleShardMap { given: map.number, current: current.number });
    }
    tx.put(&SHARD_MAP, &(), map);
    Ok(Outcome::Done)
}

/// `AgentTransitions`. Agents that are gone meanwhile are passed over: their VM was deleted on purpose.
pub(super) fn transitions(
    tx: &mut Tx<'_>,
    shard_epoch: u64,
    transitions: &[AgentTransition],
) -> Result<Outcome, Refusal> {
    let current = tx.state().shard_map().number;
    if shard_epoch != current {
        return Err(Refusal::StaleShardMap { given: shard_epoch, current });
    }
    for seen in transitions {
        transition(tx, seen);
    }
    Ok(Outcome::Done)
}

fn transition(tx: &mut Tx<'_>, seen: &AgentTransition) {
    let Some(mut record) = tx.get(&AGENTS, &seen.agent) else { return };
    // A suspicion that arrives after the finding it led to is no news.
    let is_late = seen.health == AgentHealth::Suspect && record.health == AgentHealth::Dead;
    if record.health == seen.health || is_late {
        return;
    }
    let was = std::mem::replace(&mut record.health, seen.health);
    record.health_since = tx.at;
    tx.put(&AGENTS, &seen.agent, &record);
    let action = match (was, seen.health) {
        (_, AgentHealth::Dead) => "dead",
        (AgentHealth::Dead, AgentHealth::Alive) => "back",
        _ => return,
    };
    let slug = tx.get(&INSTANCES, &record.instance).map(|instance| instance.slug());
    let death = Audit {
        action,
        object_type: "agent",
        object_name: Some(seen.agent.to_string()),
        deployment: Some(record.deployment),
        instance: slug,
        context: [("reason".to_owned(), seen.reason.clone().into())].into(),
        ..Audit::default()
    };
    audit(tx, death);
}

/// `AgentsJobs`. No event tells of it: jobs come and go with every deploy.
pub(super) fn jobs(tx: &mut Tx<'_>, shard_epoch: u64, jobs: &[AgentJobs]) -> Result<Outcome, Refusal> {
    let current = tx.state().shard_map().number;
    if shard_epoch != current {
        return Err(Refusal::StaleShardMap { given: shard_epoch, current });
    }
    for said in jobs {
        let record = tx.get(&AGENTS, &said.agent).filter(|record| record.jobs_run != Some(said.run));
        if let Some(record) = record {
            tx.put(&AGENTS, &said.agent, &AgentRecord { jobs_run: Some(said.run), ..record });
        }
    }
    Ok(Outcome::Done)
}

/// `MeltdownPut`. Its begin and its end are told; that more or less has failed meanwhile is only noted.
pub(super) fn meltdown(
    tx: &mut Tx<'_>,
    epoch: Epoch,
    deployment: &DeploymentName,
    failed: Option<FailedShare>,
) -> Result<Outcome, Refusal> {
    tx.fence(epoch)?;
    tx.need(&DEPLOYMENTS, deployment, "deployment")?;
    let current = tx.get(&MELTDOWNS, deployment);
    let action = match (&current, failed) {
        (None, None) => return Ok(Outcome::Done),
        (Some(current), Some(failed)) if current.failed == failed => return Ok(Outcome::Done),
        (Some(_), Some(_)) => None,
        (None, Some(_)) => Some("meltdown"),
        (Some(_), None) => Some("meltdown_over"),
    };
    match failed {
        Some(failed) => {
            let since = current.map_or(tx.at, |current| current.since);
            tx.put(&MELTDOWNS, deployment, &Meltdown { deployment: deployment.clone(), failed, since });
        }
        None => tx.delete(&MELTDOWNS, deployment),
    }
    if let Some(action) = action {
        let counts = failed.map(|failed| [("unhealthy", failed.unhealthy), ("total", failed.total)]);
        let turn = Audit {
            action,
            object_type: "deployment",
            object_name: Some(deployment.to_string()),
            deployment: Some(deployment.clone()),
            context: counts.into_iter().flatten().map(|(name, n)| (name.to_owned(), n.into())).collect(),
            ..Audit::default()
        };
        audit(tx, turn);
    }
    Ok(Outcome::Done)
}
