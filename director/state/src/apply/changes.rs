//! The change log: which rows each revision changed, for watchers that were away.

use model::Revision;

use super::tx::Tx;
use crate::records::Change;
use crate::tables::{self, CHANGES, CHANGES_FROM};

/// Revisions whose changes a fleet keeps.
pub const CHANGES_KEPT: u64 = 10_000;

/// Old revisions are dropped so many at a time, which keeps the common entry cheap.
const REVISIONS_DROPPED_AT_ONCE: u64 = 64;

/// Keeps the command's changes beside those of the `kept` revisions before, and returns them as watchers see them.
pub(super) fn keep(tx: &mut Tx<'_>, kept: u64) -> Vec<Change> {
    let rows = tx.changes();
    if rows.is_empty() {
        return Vec::new();
    }
    let revision = tx.revision;
    tx.put(&CHANGES, &revision, &rows);
    drop_old(tx, kept);
    let change = |row: crate::rows::ChangeRow| Change {
        revision,
        table: tables::name(row.0).into(),
        key: row.1,
        deleted: row.2,
    };
    rows.into_iter().map(change).collect()
}

fn drop_old(tx: &mut Tx<'_>, kept: u64) {
    if !tx.revision.0.is_multiple_of(REVISIONS_DROPPED_AT_ONCE) {
        return;
    }
    let from = tx.get(&CHANGES_FROM, &()).unwrap_or(Revision(0));
    let keep_from = Revision(tx.revision.0.saturating_sub(kept.saturating_sub(1)));
    let old = tx.rows_from(&CHANGES, &from).map(|(revision, _)| revision);
    let old: Vec<Revision> = old.take_while(|revision| *revision < keep_from).collect();
    for revision in old {
        tx.delete(&CHANGES, &revision);
    }
    if keep_from > from {
        tx.put(&CHANGES_FROM, &(), &keep_from);
    }
}
