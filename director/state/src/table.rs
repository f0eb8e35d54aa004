//! A typed table over the key-value store: one byte that says which table, then the ordered key.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::key::{Key, PrefixOf};
use crate::kv::{Direction, Kv, KvRead, Span};

/// Whether clients that watch the state see changes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Changes are reported.
    Shown,
    /// The table is our own book-keeping.
    Hidden,
}

/// What every table has, whatever its types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// First byte of all its keys.
    pub id: u8,
    /// Its name, as watchers see it.
    pub name: &'static str,
    /// Whether its changes are reported.
    pub watch: Watch,
}

/// A table with keys `K` and rows `V`.
pub struct Table<K, V> {
    info: TableInfo,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Key, V: Serialize + DeserializeOwned> Table<K, V> {
    /// Names a table. Numbers are written to disk: they are never reused.
    pub const fn new(id: u8, name: &'static str, watch: Watch) -> Self {
        Self { info: TableInfo { id, name, watch }, types: PhantomData }
    }

    /// Returns its number and name.
    pub const fn info(&self) -> TableInfo {
        self.info
    }

    /// Returns the row of `key`.
    pub fn get(&self, kv: &dyn KvRead, key: &K) -> Option<V> {
        kv.get(&self.bytes(key)).map(|bytes| codec::decode_row(self.info.name, &bytes))
    }

    /// Returns whether there is a row of `key`.
    pub fn has(&self, kv: &dyn KvRead, key: &K) -> bool {
        kv.get(&self.bytes(key)).is_some()
    }

    /// Returns all rows in order.
    pub fn rows<'a>(
        &self,
        kv: &'a dyn KvRead,
        direction: Direction,
    ) -> impl Iterator<Item = (K, V)> + use<'a, K, V> {
        self.span(kv, Span::prefix(&[self.info.id]), direction)
    }

    /// Returns the rows whose keys begin with `prefix`, in order.
    pub fn rows_of<'a, P: PrefixOf<K>>(
        &self,
        kv: &'a dyn KvRead,
        prefix: &P,
        direction: Direction,
    ) -> impl Iterator<Item = (K, V)> + use<'a, K, V, P> {
        self.span(kv, Span::prefix(&self.bytes(prefix)), direction)
    }

    /// Returns the rows from `start` on, in order.
    pub fn rows_from<'a>(
        &self,
        kv: &'a dyn KvRead,
        start: &K,
    ) -> impl Iterator<Item = (K, V)> + use<'a, K, V> {
        let span = Span { start: self.bytes(start), end: Span::prefix(&[self.info.id]).end };
        self.span(kv, span, Direction::Forward)
    }

    /// Returns the rows before `end`, last one first.
    pub fn rows_before<'a>(
        &self,
        kv: &'a dyn KvRead,
        end: &K,
    ) -> impl Iterator<Item = (K, V)> + use<'a, K, V> {
        let span = Span { start: vec![self.info.id], end: Some(self.bytes(end)) };
        self.span(kv, span, Direction::Reverse)
    }

    /// Sets the row of `key`.
    pub fn put(&self, kv: &mut dyn Kv, key: &K, row: &V) {
        kv.put(self.bytes(key), codec::encode(row));
    }

    /// Removes the row of `key`.
    pub fn delete(&self, kv: &mut dyn Kv, key: &K) {
        kv.delete(&self.bytes(key));
    }

    /// Returns the bytes under which a key, or what begins one, is stored.
    pub fn bytes(&self, key: &impl Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(48);
        bytes.push(self.info.id);
        key.encode(&mut bytes);
        bytes
    }

    fn span<'a>(
        &self,
        kv: &'a dyn KvRead,
        span: Span,
        direction: Direction,
    ) -> impl Iterator<Item = (K, V)> + use<'a, K, V> {
        let name = self.info.name;
        kv.scan(span, direction).map(move |(key, row)| {
            let decoded = K::decode(&mut &key[1..]);
            let key = decoded.unwrap_or_else(|| panic!("a key of table {name} is damaged"));
            (key, codec::decode_row(name, &row))
        })
    }
}
