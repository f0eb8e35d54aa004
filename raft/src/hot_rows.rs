//! Rows that entries read again and again, in memory: counters, the leader's row, the task at work.
//!
//! Only what was read is kept, and every write to it goes through here; whoever applies entries owns it. So it never
//! differs from the database, and it is bounded: two generations, of which the older one goes as a whole when the younger
//! one is full, without what was read meanwhile.

use std::collections::HashMap;

/// Keys and values of one generation, in bytes.
const GENERATION_BYTES_MAX: usize = 2 << 20;
/// Larger rows are rare, and would push many small ones out.
const ROW_BYTES_MAX: usize = 16 << 10;
/// What a row costs beside its content, roughly.
const OVERHEAD_BYTES: usize = 96;

/// See the module's header.
#[derive(Default)]
pub(crate) struct HotRows {
    young: HashMap<Vec<u8>, Vec<u8>>,
    old: HashMap<Vec<u8>, Vec<u8>>,
    young_bytes: usize,
}

impl HotRows {
    /// Returns the value of `key`, from the database where it is not here.
    pub(crate) fn get(&mut self, key: &[u8], load: impl FnOnce() -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key).or_else(load)?;
        self.keep(key.to_vec(), value.clone());
        Some(value)
    }

    /// Takes in what has been written to the database.
    pub(crate) fn written(&mut self, key: &[u8], value: Option<&[u8]>) {
        let known = self.young.remove(key);
        let was_young = known.as_ref().map(|value| size(key, value));
        self.young_bytes -= was_young.unwrap_or_default();
        let was_here = self.old.remove(key).is_some() || known.is_some();
        if let Some(value) = value.filter(|_| was_here) {
            self.keep(key.to_vec(), value.to_vec());
        }
    }

    fn keep(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if value.len() > ROW_BYTES_MAX {
            return;
        }
        self.young_bytes += size(&key, &value);
        self.young.insert(key, value);
        if self.young_bytes > GENERATION_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

fn size(key: &[u8], value: &[u8]) -> usize {
    OVERHEAD_BYTES + key.len() + value.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is read and written, in whatever order: it says what the database says.
        #[test]
        fn it_never_differs_from_the_database(
            steps in prop::collection::vec((0..40u8, prop::option::of(0..30_000usize), any::<bool>()), 1..400)
        ) {
            let (mut rows, mut database) = (HotRows::default(), BTreeMap::new());
            for (number, (key, length, writes)) in steps.into_iter().enumerate() {
                let key = vec![key];
                if writes {
                    let value = length.map(|length| vec![number as u8; length]);
                    rows.written(&key, value.as_deref());
                    match value {
                        Some(value) => database.insert(key.clone(), value),
                        None => database.remove(&key),
                    };
                }
                prop_assert_eq!(rows.get(&key, || database.get(&key).cloned()), database.get(&key).cloned());
                let held: usize = rows.young.iter().map(|(key, value)| size(key, value)).sum();
                prop_assert_eq!(held, rows.young_bytes);
                prop_assert!(held <= GENERATION_BYTES_MAX);
            }
        }
    }

    #[test]
    fn what_was_read_is_not_read_from_the_database_again_and_what_is_new_is_not_kept() {
        let mut rows = HotRows::default();
        rows.written(b"a", Some(b"1"));
        assert_eq!(rows.get(b"a", || Some(b"1".to_vec())).unwrap(), b"1");
        rows.written(b"a", Some(b"2"));
        assert_eq!(rows.get(b"a", || panic!("it is here")).unwrap(), b"2");
        rows.written(b"a", None);
        assert_eq!(rows.get(b"a", || None), None);
    }
}
