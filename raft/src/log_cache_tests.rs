//! The tail of the log in memory: nothing leaves it before it is stored, nothing stays that was cut.

use openraft::EntryPayload;

use crate::log_cache::LogCache;
use crate::type_config::{CommittedLeaderId, Entry, EntryBytes, LogId};

fn entries(indexes: std::ops::Range<u64>, bytes: usize) -> Vec<Entry> {
    let content = EntryBytes(vec![0; bytes].into());
    indexes
        .map(|index| Entry {
            log_id: LogId::new(CommittedLeaderId::new(1), index),
            payload: EntryPayload::Normal(content.clone()),
        })
        .collect()
}

fn read(cache: &LogCache, start: u64, end: u64, max_bytes: usize) -> Vec<u64> {
    cache.read(start, end, max_bytes).iter().map(|entry| entry.log_id.index).collect()
}

#[test]
fn what_is_not_stored_stays_however_much_it_is() {
    let mut cache = LogCache::default();
    cache.append(&entries(1..101, 1 << 20));
    assert_eq!(cache.first(), 1);
    cache.stored(60);
    assert_eq!(cache.first(), 61, "no more room than for the entries that are not stored");
    cache.stored(100);
    assert!(cache.first() > 61 && cache.first() <= 100);
    assert_eq!(cache.last().unwrap().index, 100);
}

#[test]
fn reads_stop_at_the_limit_but_return_something() {
    let mut cache = LogCache::default();
    cache.append(&entries(5..25, 1000));
    assert_eq!(read(&cache, 5, 25, 1), [5]);
    assert_eq!(read(&cache, 5, 25, 3000), [5, 6, 7]);
    assert_eq!(read(&cache, 23, 99, usize::MAX), [23, 24]);
    assert_eq!(read(&cache, 9, 9, usize::MAX), [0u64; 0]);
}

#[test]
fn a_truncated_tail_is_gone_and_its_successor_is_not_taken_for_stored() {
    let mut cache = LogCache::default();
    cache.append(&entries(1..11, 10));
    cache.stored(10);
    cache.truncate(6);
    assert_eq!(cache.last().unwrap().index, 5);
    // As large as the whole cache, and not stored yet: it has to stay.
    cache.append(&entries(6..50, 1 << 20));
    assert_eq!(cache.first(), 6);
    cache.purge(20);
    assert_eq!(cache.first(), 21);
    cache.truncate(0);
    assert_eq!((cache.first(), cache.last()), (u64::MAX, None));
}
