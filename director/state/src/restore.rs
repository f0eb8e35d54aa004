//! What changes in a state when a new fleet begins with it.
//!
//! The state is as it was when the backup was taken, and the world has gone on. Numbers that the old fleet gave after
//! that may be on agents, in clients and in people's notes; so the new one does not give them again, and its revisions
//! begin beyond all of the old one's. Whoever watched the old fleet is told to begin anew.

use model::{NodeId, Revision};

use crate::codec;
use crate::kv::{KvRead, Pair};
use crate::tables::{self, CHANGES, CHANGES_FROM, CLUSTER, COUNTERS, MEMBERS};

/// Entries that the old fleet may have written after the backup.
const REVISIONS_UNSEEN: u64 = 1_000_000_000;

/// Counters whose numbers leave the state, and how many the old fleet may have given after the backup. Agents know
/// requests by their task; clients compare configs by number; a replica is known by its own.
const UNSEEN: &[(&str, u64)] = &[("tasks", 100_000), ("configs", 100_000), (MEMBERS_COUNTER, 100)];

/// Counts replicas.
const MEMBERS_COUNTER: &str = "members";

/// Returns the tables, by number and name, that this version does not know, or knows as another one.
pub fn unknown_tables(listed: &[(u8, String)]) -> Vec<String> {
    let known = |id: u8, name: &str| tables::ALL.iter().any(|table| table.id == id && table.name == name);
    listed.iter().filter(|(id, name)| !known(*id, name)).map(|(_, name)| name.clone()).collect()
}

/// Returns whether a row is one of the few that must be known before the new fleet has a state: the cluster's own, its
/// replicas, its counters.
pub fn is_first(key: &[u8]) -> bool {
    let first = [COUNTERS.info().id, CLUSTER.info().id, MEMBERS.info().id];
    key.first().is_some_and(|table| first.contains(table))
}

/// Returns the number of the new fleet's first replica: one that the old fleet gave to nobody. `kv` has the first rows as
/// they are in the backup.
pub fn first_member(kv: &dyn KvRead) -> NodeId {
    let last = COUNTERS.get(kv, &MEMBERS_COUNTER.to_owned()).unwrap_or_default();
    NodeId(last + unseen(MEMBERS_COUNTER) + 1)
}

/// Returns the revision that a state taken at `taken` begins with in a new fleet.
pub fn first_revision(taken: Revision) -> Revision {
    Revision(taken.0.saturating_add(REVISIONS_UNSEEN))
}

/// Returns a row as the new fleet has it; none if it has no such row.
pub fn row((key, value): Pair) -> Option<Pair> {
    match key.first() {
        Some(table) if *table == CHANGES.info().id || *table == CHANGES_FROM.info().id => None,
        Some(table) if *table == COUNTERS.info().id => Some(counter(key, value)),
        _ => Some((key, value)),
    }
}

fn unseen(counter: &str) -> u64 {
    UNSEEN.iter().find(|(name, _)| *name == counter).map_or(0, |(_, numbers)| *numbers)
}

fn counter(key: Vec<u8>, value: Vec<u8>) -> Pair {
    let skipped = UNSEEN.iter().find(|(name, _)| COUNTERS.bytes(&(*name).to_owned()) == key);
    match skipped {
        Some((_, numbers)) => {
            let last: u64 = codec::decode_row(COUNTERS.info().name, &value);
            let value = codec::encode(&last.saturating_add(*numbers));
            (key, value)
        }
        None => (key, value),
    }
}

/// Returns the rows that the new fleet has beside those.
pub fn further_rows(first: Revision) -> Vec<Pair> {
    vec![(CHANGES_FROM.bytes(&()), codec::encode(&first.next()))]
}

#[cfg(test)]
mod tests {
    use model::{TaskId, Timestamp, UserName};

    use super::*;
    use crate::State;
    use crate::command::{Actor, Command, ENTRY_VERSION, Entry, NewEvent, Outcome};
    use crate::kv::{Direction, Kv as _, MemoryKv, Span};
    use crate::query::Compacted;

    fn say(kv: &mut MemoryKv, revision: Revision, command: Command) -> Outcome {
        let actor = Actor { user: UserName::new("u"), node: NodeId(1) };
        let entry =
            Entry { version: ENTRY_VERSION, request_id: None, actor, proposed_at: Timestamp(1), command };
        crate::apply(kv, revision, &entry).outcome
    }

    fn config(n: u64) -> Command {
        Command::ConfigPut {
            kind: "note".into(),
            name: "n".into(),
            content: n.to_string(),
            expected_latest: None,
        }
    }

    fn queue() -> Command {
        let kind = model::task::TaskKind::DeleteOrphanedDisks { disks: Vec::new() };
        Command::TaskQueue { kind, deployment: None, context_id: String::new(), locks: Vec::new() }
    }

    fn restored(old: &MemoryKv, taken: Revision) -> MemoryKv {
        let mut kv = MemoryKv::new();
        let all = old.scan(Span { start: Vec::new(), end: None }, Direction::Forward);
        for (key, value) in all.filter_map(row).chain(further_rows(first_revision(taken))) {
            kv.put(key, value);
        }
        kv
    }

    #[test]
    fn numbers_that_the_old_fleet_may_have_given_are_not_given_again() {
        let mut old = MemoryKv::new();
        for n in 1..=3 {
            say(&mut old, Revision(n), config(n));
        }
        assert_eq!(say(&mut old, Revision(4), queue()), Outcome::TaskQueued(TaskId(1)));
        let mut new = restored(&old, Revision(4));
        let first = first_revision(Revision(4));
        assert_eq!(say(&mut new, first.next(), queue()), Outcome::TaskQueued(TaskId(100_002)));
        let stored = say(&mut new, Revision(first.0 + 2), config(9));
        assert!(matches!(stored, Outcome::ConfigStored { id, .. } if id.0 == 100_004), "{stored:?}");
        // What was there is there.
        assert!(State::new(&new).task(TaskId(1)).is_some());
        assert_eq!(first_member(&old), NodeId(101));
    }

    #[test]
    fn whoever_watched_the_old_fleet_begins_anew() {
        let mut old = MemoryKv::new();
        say(&mut old, Revision(1), config(1));
        let mut new = restored(&old, Revision(1));
        let first = first_revision(Revision(1));
        let since = |kv: &MemoryKv, revision| State::new(kv).changes_since(revision, 10);
        for seen in [Revision(0), Revision(1), Revision(5000), Revision(first.0 - 1)] {
            assert!(matches!(since(&new, seen), Err(Compacted { .. })), "{seen:?}");
        }
        assert_eq!(since(&new, first).unwrap(), []);
        say(&mut new, first.next(), config(2));
        let changes = since(&new, first).unwrap();
        assert!(
            !changes.is_empty() && changes.iter().all(|change| change.revision == first.next()),
            "{changes:?}"
        );
    }

    #[test]
    fn the_first_rows_are_those_of_the_cluster() {
        let mut old = MemoryKv::new();
        say(&mut old, Revision(1), Command::EventPut { event: Box::new(NewEvent::default()) });
        say(&mut old, Revision(2), config(1));
        let all = old.scan(Span { start: Vec::new(), end: None }, Direction::Forward);
        let (first, others): (Vec<_>, Vec<_>) = all.partition(|(key, _)| is_first(key));
        assert!(!first.is_empty() && !others.is_empty());
        assert!(first.iter().all(|(key, _)| [0x01, 0x02, 0x04].contains(&key[0])));
    }

    #[test]
    fn a_table_of_a_later_version_is_told() {
        let listed = |id, name: &str| vec![(0x20, "tasks".to_owned()), (id, name.to_owned())];
        assert!(unknown_tables(&listed(0x24, "locks")).is_empty());
        assert_eq!(unknown_tables(&listed(0x24, "latches")), ["latches"]);
        assert_eq!(unknown_tables(&listed(0xf0, "new")), ["new"]);
    }
}
