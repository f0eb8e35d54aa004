//! What was asked of agents that remember nothing themselves. One leader writes, and no older one.

use model::*;

use super::tx::Tx;
use crate::command::{Outcome, Refusal};
use crate::records::{AskedOfAgent, AskedStage};
use crate::tables::*;

/// Requests that are remembered of one agent. Only those of steps that a leader has left open are asked for again, and an
/// agent has few of them at a time.
const KEPT: usize = 32;

/// `AgentAsked`. What stands elsewhere than at `from` by now stays.
pub(super) fn put(
    tx: &mut Tx<'_>,
    epoch: Epoch,
    which: (&AgentId, &RequestId),
    change: (Option<&AskedStage>, Option<&AskedStage>),
) -> Result<Outcome, Refusal> {
    tx.fence(epoch)?;
    let (agent, request) = which;
    tx.need(&AGENTS, agent, "agent")?;
    let key = (agent.clone(), request.clone());
    let (from, to) = change;
    let known = tx.get(&ASKED_OF_AGENTS, &key);
    if known.as_ref().map(|known| &known.stage) != from {
        return Ok(Outcome::Done);
    }
    match to {
        None => tx.delete(&ASKED_OF_AGENTS, &key),
        Some(stage) => {
            if known.is_none() {
                make_room(tx, agent);
            }
            tx.put(&ASKED_OF_AGENTS, &key, &AskedOfAgent { stage: stage.clone(), at: tx.at });
        }
    }
    Ok(Outcome::Done)
}

/// Forgets the oldest that has ended, if there are many. What has not ended is never forgotten: it could be done twice.
fn make_room(tx: &mut Tx<'_>, agent: &AgentId) {
    let rows: Vec<_> = tx.rows_of(&ASKED_OF_AGENTS, agent).collect();
    if rows.len() < KEPT {
        return;
    }
    let ended = rows.iter().filter(|(_, row)| row.stage.is_end());
    if let Some((key, _)) = ended.min_by_key(|(_, row)| row.at) {
        tx.delete(&ASKED_OF_AGENTS, key);
    }
}

/// The agent's VM is gone, and with it what it was asked.
pub(super) fn forget(tx: &mut Tx<'_>, agent: &AgentId) {
    tx.delete_of(&ASKED_OF_AGENTS, agent);
}
