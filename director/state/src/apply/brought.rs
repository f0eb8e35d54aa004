//! Blobs that agents bring under names of theirs, until whoever asked for one has found it.

use model::*;

use super::blob;
use super::tx::Tx;
use crate::command::{Outcome, Refusal};
use crate::records::{BroughtBlob, BroughtByAgent};
use crate::tables::*;

/// What is remembered of one agent. It does one long thing at a time, and what it has brought is asked for as soon as that has
/// ended.
const KEPT: usize = 32;

/// `AgentBrought`.
pub(super) fn put(
    tx: &mut Tx<'_>,
    agent: &AgentId,
    name: &str,
    brought: &BroughtBlob,
) -> Result<Outcome, Refusal> {
    tx.need(&AGENTS, agent, "agent")?;
    let key = (agent.clone(), name.to_owned());
    match tx.get(&BROUGHT_BY_AGENTS, &key) {
        Some(before) if before.brought.blob == brought.blob => {}
        Some(before) => blob::leave(tx, [before.brought.blob]),
        None => make_room(tx, agent),
    }
    tx.put(&BROUGHT_BY_AGENTS, &key, &BroughtByAgent { brought: brought.clone(), at: tx.at });
    Ok(Outcome::Done)
}

/// Forgets the oldest, if there are many.
fn make_room(tx: &mut Tx<'_>, agent: &AgentId) {
    let rows: Vec<_> = tx.rows_of(&BROUGHT_BY_AGENTS, agent).collect();
    if rows.len() < KEPT {
        return;
    }
    if let Some((key, row)) = rows.into_iter().min_by_key(|(_, row)| row.at) {
        tx.delete(&BROUGHT_BY_AGENTS, &key);
        blob::leave(tx, [row.brought.blob]);
    }
}

/// The agent's VM is gone. What it has brought stays where something names it by now.
pub(super) fn forget(tx: &mut Tx<'_>, agent: &AgentId) {
    let blobs: Vec<BlobDigest> =
        tx.rows_of(&BROUGHT_BY_AGENTS, agent).map(|(_, row)| row.brought.blob).collect();
    tx.delete_of(&BROUGHT_BY_AGENTS, agent);
    blob::leave(tx, blobs);
}
