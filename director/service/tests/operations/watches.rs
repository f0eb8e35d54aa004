use std::sync::Arc;

use model::Revision;
use service::ops::Changes;
use service::{Service, ServiceError};
use state::command::Command;
use state::log::{CommandLog as _, MemoryLog, Proposal};

use crate::fleet::caller;

fn put(log: &MemoryLog, name: &str) -> Revision {
    let (kind, content) = ("runtime".to_owned(), "{}".to_owned());
    let put = Command::ConfigPut { kind, name: name.to_owned(), content, expected_latest: None };
    log.apply(Proposal::own(put)).revision
}

fn configs(changes: &Changes) -> Vec<(u64, &str)> {
    let configs = changes.changes.iter().filter(|change| change.table == "configs");
    configs.map(|change| (change.revision.0, change.key.as_str())).collect()
}

#[tokio::test]
async fn a_watch_says_where_it_is_and_then_tells_what_changes() {
    let log = Arc::new(MemoryLog::new());
    let service = Service::new(log.clone());
    put(&log, "a");
    let mut watch = service.watch(&caller("bosh.read"), None).unwrap();
    assert_eq!(watch.next().await, Ok(Changes { changes: Vec::new(), reached: Revision(1) }));
    let (told, ()) = tokio::join!(watch.next(), async {
        put(&log, "b");
    });
    let told = told.unwrap();
    assert_eq!((configs(&told), told.reached), (vec![(2, "2")], Revision(2)));
    // Elsewhere, from where somebody was: everything at once.
    put(&log, "c");
    let mut elsewhere = service.watch(&caller("bosh.read"), Some(Revision(1))).unwrap();
    let told = elsewhere.next().await.unwrap();
    assert_eq!((configs(&told), told.reached), (vec![(2, "2"), (3, "3")], Revision(3)));
}

#[tokio::test]
async fn a_watch_of_a_replica_that_is_behind_waits_for_it() {
    let log = Arc::new(MemoryLog::new());
    let service = Service::new(log.clone());
    let mut watch = service.watch(&caller("bosh.read"), Some(Revision(1))).unwrap();
    assert_eq!(watch.next().await, Ok(Changes { changes: Vec::new(), reached: Revision(1) }));
    let (told, ()) = tokio::join!(watch.next(), async {
        put(&log, "a");
        put(&log, "b");
    });
    let told = told.unwrap();
    assert_eq!((configs(&told), told.reached), (vec![(2, "2")], Revision(2)), "1 is known already");
}

#[tokio::test]
async fn who_was_away_for_too_long_is_told_to_list_again() {
    let log = Arc::new(MemoryLog::new());
    let service = Service::new(log.clone());
    let mut slow = service.watch(&caller("bosh.read"), Some(Revision(0))).unwrap();
    for number in 0..state::CHANGES_KEPT + 100 {
        put(&log, &number.to_string());
    }
    assert!(log.revision().0 > state::CHANGES_KEPT);
    let Err(ServiceError::Compacted { oldest }) = slow.next().await else { panic!("it was not told") };
    let refused = service.watch(&caller("bosh.read"), Some(Revision(oldest - 2)));
    assert_eq!(refused.err(), Some(ServiceError::Compacted { oldest }));
    assert!(service.watch(&caller("bosh.read"), Some(Revision(oldest - 1))).is_ok());
}

#[test]
fn who_may_not_read_may_not_watch() {
    let service = Service::new(Arc::new(MemoryLog::new()));
    assert!(matches!(service.watch(&caller("none"), None).err(), Some(ServiceError::Forbidden { .. })));
}
