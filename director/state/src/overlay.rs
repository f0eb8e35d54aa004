//! Writes held back over a store: seen by the reads after them, and thrown away if nobody commits them. This is how a
//! refused command leaves no trace, however late it is refused.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::kv::{Direction, Kv, KvRead, Pair, Span};

/// Keys with their new value; none for deleted ones.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A store with writes on top.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    writes: Writes,
}

impl<'a> Overlay<'a> {
    /// Lays an empty set of writes over `base`.
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self { base, writes: Writes::new() }
    }

    /// Forgets all writes.
    pub fn discard(&mut self) {
        self.writes.clear();
    }

    /// Gives the writes up, in the order of their keys.
    pub fn into_writes(self) -> Writes {
        self.writes
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.writes.get(key) {
            Some(written) => written.clone(),
            None => self.base.get(key),
        }
    }

    fn scan(&self, span: Span, direction: Direction) -> Box<dyn Iterator<Item = Pair> + '_> {
        if span.end.as_ref().is_some_and(|end| *end <= span.start) {
            return Box::new(std::iter::empty());
        }
        let end = span.end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.writes.range((Bound::Included(span.start.clone()), end));
        let writes: Box<dyn Iterator<Item = Written<'_>> + '_> = match direction {
            Direction::Forward => Box::new(range),
            Direction::Reverse => Box::new(range.rev()),
        };
        let base = self.base.scan(span, direction).peekable();
        Box::new(Merged { base, writes: writes.peekable(), direction })
    }
}

impl Kv for Overlay<'_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.writes.insert(key.to_vec(), None);
    }
}

type Written<'a> = (&'a Vec<u8>, &'a Option<Vec<u8>>);

/// Both sides in order; where they have the same key, the written one counts.
struct Merged<'a> {
    base: std::iter::Peekable<Box<dyn Iterator<Item = Pair> + 'a>>,
    writes: std::iter::Peekable<Box<dyn Iterator<Item = Written<'a>> + 'a>>,
    direction: Direction,
}

impl Iterator for Merged<'_> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            let order = match (self.base.peek(), self.writes.peek()) {
                (_, None) => return self.base.next(),
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((base, _)), Some((written, _))) => match self.direction {
                    Direction::Forward => base.cmp(written),
                    Direction::Reverse => (*written).cmp(base),
                },
            };
            if order.is_lt() {
                return self.base.next();
            }
            if order.is_eq() {
                self.base.next();
            }
            if let Some((key, Some(value))) = self.writes.next() {
                return Some((key.clone(), value.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::MemoryKv;

    fn show(kv: &impl KvRead, direction: Direction) -> String {
        let pairs = kv.scan(Span::prefix(b"k"), direction);
        pairs.map(|(k, v)| format!("{}={}", k[1] as char, v[0] as char)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn scans_see_writes_and_deletions_both_ways() {
        let mut base = MemoryKv::new();
        for key in ["k1", "k3", "k5", "z1"] {
            base.put(key.into(), b"o".to_vec());
        }
        let mut over = Overlay::new(&base);
        for key in ["k0", "k3", "k4", "k9"] {
            over.put(key.into(), b"n".to_vec());
        }
        over.delete(b"k5");
        over.delete(b"k7");
        assert_eq!(show(&over, Direction::Forward), "0=n 1=o 3=n 4=n 9=n");
        assert_eq!(show(&over, Direction::Reverse), "9=n 4=n 3=n 1=o 0=n");
        assert_eq!(over.get(b"k5"), None);
        over.discard();
        assert_eq!(show(&over, Direction::Forward), "1=o 3=o 5=o");
    }
}
