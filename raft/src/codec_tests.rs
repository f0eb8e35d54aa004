//! What was written once must be readable forever: these bytes are never edited, newer formats add their own.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, EntryPayload};

use crate::codec::{decode_entry, decode_log_id, decode_stored_membership, decode_vote, encode_entry};
use crate::codec::{encode_log_id, encode_stored_membership, encode_vote};
use crate::type_config::{CommittedLeaderId, Entry, EntryBytes, LogId, Membership, StoredMembership, Vote};

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn membership() -> Membership {
    let nodes: BTreeMap<u64, BasicNode> = [1, 2].map(|id| (id, BasicNode::new(format!("h{id}:1")))).into();
    Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 2])], nodes).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn log_records_of_format_1() {
    let normal = Entry { log_id: id(3, 300), payload: EntryPayload::Normal(EntryBytes("hello".into())) };
    let blank = Entry { log_id: id(1, 0), payload: EntryPayload::Blank };
    let changed = Entry { log_id: id(2, 7), payload: EntryPayload::Membership(membership()) };
    let golden = [
        (normal, "0a05080310ac02120568656c6c6f"),
        (blank, "0a020801"),
        (changed, "0a04080210071a1f0a030a01010a040a02010212080801120468313a311208080212046832 3a31"),
    ];
    for (entry, expected) in golden {
        let raw = encode_entry(&entry);
        assert_eq!(hex(&raw), expected.replace(' ', ""));
        assert_eq!(decode_entry(raw.into()).unwrap(), entry);
    }
}

#[test]
fn positions_of_format_1() {
    for (vote, expected) in
        [(Vote::new(4, 2), "08041002"), (Vote::new_committed(4, 2), "080410021801"), (Vote::new(0, 0), "")]
    {
        assert_eq!(hex(&encode_vote(&vote)), expected);
        assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
    }
    assert_eq!(hex(&encode_log_id(&id(5, 1000))), "080510e807");
    assert_eq!(decode_log_id(&encode_log_id(&id(5, 1000))).unwrap(), id(5, 1000));
    let stored = StoredMembership::new(Some(id(2, 7)), membership());
    assert_eq!(decode_stored_membership(&encode_stored_membership(&stored)).unwrap(), stored);
}

#[test]
fn what_is_damaged_is_named() {
    let error = decode_entry(bytes::Bytes::from_static(b"\xff\xff\xff")).unwrap_err();
    assert_eq!(error.to_string(), "malformed log record");
    let error = decode_entry(bytes::Bytes::new()).unwrap_err();
    assert_eq!(error.to_string(), "a log record lacks its log id");
}
