//! One command's reads and writes. What it writes is held back until the command is accepted, so that a refusal,
//! however late, leaves no trace.

use std::collections::BTreeMap;

use model::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::{Actor, Refusal};
use crate::key::{Key, PrefixOf};
use crate::kv::{Direction, KvRead};
use crate::overlay::{Overlay, Writes};
use crate::query::State;
use crate::rows::{ChangeRow, Leader};
use crate::table::{Table, Watch};
use crate::tables::{COUNTERS, LEADER};

/// The command under way: who asked and when, and what it has written so far.
pub(crate) struct Tx<'a> {
    kv: Overlay<'a>,
    /// The entry's place in the log.
    pub revision: Revision,
    /// The proposer's clock.
    pub at: Timestamp,
    /// Who asked.
    pub actor: &'a Actor,
    /// For which teams.
    pub owner: Owner<'a>,
    touched: BTreeMap<(u8, String), Touch>,
}

/// The teams whose admin asks.
#[derive(Clone, Copy, Default)]
pub(crate) struct Owner<'a> {
    /// What is made is theirs.
    pub teams: &'a [String],
    /// What is there already must be theirs, too.
    pub only_theirs: bool,
}

impl Owner<'_> {
    /// Refuses to touch what other teams own.
    pub fn check(&self, what: &str, name: &str, owners: &[String]) -> Result<(), Refusal> {
        match self.only_theirs && !owners.iter().any(|team| self.teams.contains(team)) {
            true => Err(Refusal::NotOwned { what: what.into(), name: name.into(), teams: owners.to_vec() }),
            false => Ok(()),
        }
    }
}

/// What happened to a row that watchers see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    Put,
    Deleted,
}

impl<'a> Tx<'a> {
    pub fn new(base: &'a dyn KvRead, revision: Revision, at: Timestamp, actor: &'a Actor) -> Self {
        let owner = Owner::default();
        Self { kv: Overlay::new(base), revision, at, actor, owner, touched: BTreeMap::new() }
    }

    /// Forgets everything written so far.
    pub fn discard(&mut self) {
        self.kv.discard();
        self.touched.clear();
    }

    /// Gives up the writes.
    pub fn into_writes(self) -> Writes {
        self.kv.into_writes()
    }

    /// Returns the rows that watchers will see changed, by table and key.
    pub fn changes(&self) -> Vec<ChangeRow> {
        let rows = self.touched.iter();
        rows.map(|((table, key), touch)| ChangeRow(*table, key.clone(), *touch == Touch::Deleted)).collect()
    }

    /// Returns a view of the state as this command sees it.
    pub fn state(&self) -> State<'_> {
        State::new(&self.kv)
    }

    pub fn get<K: Key, V: Serialize + DeserializeOwned>(&self, table: &Table<K, V>, key: &K) -> Option<V> {
        table.get(&self.kv, key)
    }

    pub fn has<K: Key, V: Serialize + DeserializeOwned>(&self, table: &Table<K, V>, key: &K) -> bool {
        table.has(&self.kv, key)
    }

    /// Returns the row of `key`, or the refusal that says it does not exist.
    pub fn need<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        key: &K,
        what: &str,
    ) -> Result<V, Refusal> {
        self.get(table, key).ok_or_else(|| not_found(what, key.show()))
    }

    pub fn put<K: Key, V: Serialize + DeserializeOwned>(&mut self, table: &Table<K, V>, key: &K, row: &V) {
        self.touch(table, key, Touch::Put);
        table.put(&mut self.kv, key, row);
    }

    pub fn delete<K: Key, V: Serialize + DeserializeOwned>(&mut self, table: &Table<K, V>, key: &K) {
        if table.info().watch == Watch::Shown && table.has(&self.kv, key) {
            self.touch(table, key, Touch::Deleted);
        }
        table.delete(&mut self.kv, key);
    }

    /// Returns the rows whose keys begin with `prefix`.
    pub fn rows_of<'s, K: Key, V: Serialize + DeserializeOwned, P: PrefixOf<K>>(
        &'s self,
        table: &Table<K, V>,
        prefix: &P,
    ) -> impl Iterator<Item = (K, V)> + use<'s, 'a, K, V, P> {
        table.rows_of(&self.kv, prefix, Direction::Forward)
    }

    /// Returns all rows.
    pub fn rows<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
    ) -> impl Iterator<Item = (K, V)> {
        table.rows(&self.kv, Direction::Forward)
    }

    /// Returns the rows from `start` on.
    pub fn rows_from<'s, K: Key, V: Serialize + DeserializeOwned>(
        &'s self,
        table: &Table<K, V>,
        start: &K,
    ) -> impl Iterator<Item = (K, V)> + use<'s, 'a, K, V> {
        table.rows_from(&self.kv, start)
    }

    /// Returns the rows before `end`, last one first.
    pub fn rows_before<'s, K: Key, V: Serialize + DeserializeOwned>(
        &'s self,
        table: &Table<K, V>,
        end: &K,
    ) -> impl Iterator<Item = (K, V)> + use<'s, 'a, K, V> {
        table.rows_before(&self.kv, end)
    }

    /// Removes the rows whose keys begin with `prefix`.
    pub fn delete_of<K: Key, V: Serialize + DeserializeOwned, P: PrefixOf<K>>(
        &mut self,
        table: &Table<K, V>,
        prefix: &P,
    ) {
        let keys: Vec<K> = self.rows_of(table, prefix).map(|(key, _)| key).collect();
        for key in keys {
            self.delete(table, &key);
        }
    }

    /// Returns a counter's next number. Numbers begin at 1.
    pub fn next_number(&mut self, counter: &str) -> u64 {
        self.count(counter, 1)
    }

    /// Adds to a counter, which stays at 0 at least, and returns it.
    pub fn count(&mut self, counter: &str, by: i64) -> u64 {
        let key = counter.to_owned();
        let number = self.get(&COUNTERS, &key).unwrap_or_default().saturating_add_signed(by);
        self.put(&COUNTERS, &key, &number);
        number
    }

    /// Refuses what a leader asks under another epoch than the current one.
    pub fn fence(&self, epoch: Epoch) -> Result<(), Refusal> {
        let current = self.get(&LEADER, &()).map_or(Epoch(0), |leader: Leader| leader.epoch);
        if epoch == current { Ok(()) } else { Err(Refusal::StaleEpoch { given: epoch, current }) }
    }

    fn touch<K: Key, V: Serialize + DeserializeOwned>(&mut self, table: &Table<K, V>, key: &K, touch: Touch) {
        let info = table.info();
        if info.watch == Watch::Shown {
            self.touched.insert((info.id, key.show()), touch);
        }
    }
}

/// Returns the refusal for something that does not exist.
pub(crate) fn not_found(what: &str, name: impl Into<String>) -> Refusal {
    Refusal::NotFound { what: what.into(), name: name.into() }
}

/// Returns the refusal for something that makes no sense.
pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Refusal {
    Refusal::Invalid { what: what.into(), reason: reason.into() }
}
