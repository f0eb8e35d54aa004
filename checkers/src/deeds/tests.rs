//! What a cloud may have done, and what may be there at the end.

use super::*;

fn vm(id: &str) -> Thing {
    Thing { kind: Kind::Vm, id: id.to_owned() }
}

fn disk(id: &str) -> Thing {
    Thing { kind: Kind::Disk, id: id.to_owned() }
}

/// A call every millisecond.
fn calls(list: &[(&str, &str, Effect)]) -> Vec<Call> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let call = |(number, (request_id, intent, effect)): (usize, &(&str, &str, Effect))| Call {
        at_us: number as u64 * 1000,
        method: "call".into(),
        request_id: some(request_id),
        intent: some(intent),
        is_late: false,
        effect: effect.clone(),
    };
    list.iter().enumerate().map(call).collect()
}

fn claim(thing: Thing, by: &str, intent: &str) -> Claim {
    Claim { thing, by: by.to_owned(), intent: Some(intent.to_owned()) }
}

/// Two VMs and a disk, all claimed.
fn healthy() -> (Vec<Call>, Final) {
    let calls = calls(&[
        ("r1", "agent-1", Effect::Made(vm("vm-1"))),
        ("r1", "agent-1", Effect::None),
        ("r2", "agent-2", Effect::Made(vm("vm-2"))),
        ("r3", "", Effect::Made(disk("d-1"))),
        ("r4", "agent-3", Effect::Made(vm("vm-3"))),
        ("r5", "", Effect::Deleted(vm("vm-3"))),
    ]);
    let end = Final {
        present: [
            (vm("vm-1"), Some("agent-1".into())),
            (vm("vm-2"), Some("agent-2".into())),
            (disk("d-1"), None),
        ]
        .into(),
        claims: vec![
            claim(vm("vm-1"), "web/0", "agent-1"),
            claim(vm("vm-2"), "web/1", "agent-2"),
            claim(disk("d-1"), "web/0", "d"),
        ],
        ..Final::default()
    };
    (calls, end)
}

#[test]
fn a_cloud_in_which_everything_has_its_owner_is_fine() {
    let (calls, end) = healthy();
    let found = check(&calls, &end);
    assert!(found.holds(), "{}", found.report("deeds"));
    let looked_at =
        [("calls", 6), ("things made", 4), ("things there", 3), ("claims", 3), ("leaks listed", 0)];
    assert_eq!(found.looked_at, looked_at);
}

#[test]
fn a_second_vm_for_one_agent_id_is_a_double_also_when_the_first_is_deleted_later() {
    let record = calls(&[
        ("r1", "agent-1", Effect::Made(vm("vm-1"))),
        ("r2", "agent-1", Effect::Made(vm("vm-2"))),
        ("r3", "", Effect::Deleted(vm("vm-1"))),
    ]);
    let end = Final {
        present: [(vm("vm-2"), Some("agent-1".into()))].into(),
        claims: vec![claim(vm("vm-2"), "web/0", "agent-1")],
        ..Final::default()
    };
    let doubled =
        Violation::Doubled { intent: "agent-1".into(), first: vm("vm-1"), second: vm("vm-2"), at_us: 1000 };
    assert_eq!(
        doubled.to_string(),
        "VM `vm-2` was made for `agent-1` at 1000 µs, which already had VM `vm-1`"
    );
    assert_eq!(check(&record, &end).violations, [doubled]);
}

#[test]
fn what_the_cloud_makes_late_is_no_double_but_must_be_known() {
    let mut record =
        calls(&[("r1", "agent-1", Effect::Made(vm("vm-1"))), ("", "agent-1", Effect::Made(vm("vm-2")))]);
    record[1].is_late = true;
    let agent = || Some("agent-1".to_owned());
    let mut end = Final {
        present: [(vm("vm-1"), agent()), (vm("vm-2"), agent())].into(),
        claims: vec![claim(vm("vm-1"), "web/0", "agent-1")],
        ..Final::default()
    };
    let leaked = Violation::Leaked { thing: vm("vm-2"), intent: agent() };
    assert_eq!(check(&record, &end).violations, [leaked]);
    end.leaks = vec!["VM with agent id agent-1 may still appear".into()];
    assert_eq!(check(&record, &end).violations, []);
    end.leaks.clear();
    end.orphans = [vm("vm-2")].into();
    assert_eq!(check(&record, &end).violations, []);
    // One that is made for a call that somebody waits for is a double, late or not the one before.
    record.reverse();
    assert!(matches!(check(&record, &end).violations[..], [Violation::Doubled { .. }]));
}

#[test]
fn a_vm_may_be_made_again_once_the_first_is_gone_for_certain() {
    let record = calls(&[
        ("r1", "agent-1", Effect::Made(vm("vm-1"))),
        ("r2", "", Effect::Deleted(vm("vm-1"))),
        ("r1", "agent-1", Effect::Made(vm("vm-2"))),
    ]);
    let end = Final {
        present: [(vm("vm-2"), Some("agent-1".into()))].into(),
        claims: vec![claim(vm("vm-2"), "web/0", "agent-1")],
        ..Final::default()
    };
    assert_eq!(check(&record, &end).violations, []);
}

#[test]
fn a_request_that_is_repeated_blindly_is_named_where_the_cloud_knows_no_intent() {
    let record = calls(&[("r1", "", Effect::Made(disk("d-1"))), ("r1", "", Effect::Made(disk("d-2")))]);
    let end = Final {
        present: [(disk("d-1"), None), (disk("d-2"), None)].into(),
        claims: vec![claim(disk("d-2"), "web/0", "d")],
        leaks: vec!["disk d-1 of web/0".into()],
        ..Final::default()
    };
    let repeated = Violation::RequestRepeated {
        request_id: "r1".into(),
        first: disk("d-1"),
        second: disk("d-2"),
        at_us: 1000,
    };
    assert_eq!(check(&record, &end).violations, [repeated]);
}

#[test]
fn a_vm_and_a_disk_may_be_made_for_the_same_name() {
    let record = calls(&[("r1", "a", Effect::Made(vm("1"))), ("r2", "a", Effect::Made(disk("1")))]);
    let end = Final {
        present: [(vm("1"), None), (disk("1"), None)].into(),
        orphans: [vm("1"), disk("1")].into(),
        ..Final::default()
    };
    assert_eq!(check(&record, &end).violations, []);
}

#[test]
fn what_nobody_claims_is_an_orphan_or_on_the_list_or_a_leak() {
    let (calls, mut end) = healthy();
    let claims = end.claims.clone();
    end.claims.retain(|claim| claim.thing != vm("vm-2"));
    let leaked = Violation::Leaked { thing: vm("vm-2"), intent: Some("agent-2".into()) };
    assert_eq!(check(&calls, &end).violations, std::slice::from_ref(&leaked));
    // A line that names something similar does not help.
    end.leaks = vec!["VM vm-22 may exist".into(), "agent-2b was asked".into()];
    assert_eq!(check(&calls, &end).violations, [leaked]);
    for line in ["VM vm-2 may exist", "create_vm for agent `agent-2`: no answer", "vm-2"] {
        end.leaks = vec![line.into()];
        assert_eq!(check(&calls, &end).violations, [], "{line}");
    }
    end.leaks.clear();
    end.orphans = [vm("vm-2")].into();
    assert_eq!(check(&calls, &end).violations, []);
    end.claims = claims;
    assert_eq!(check(&calls, &end).violations, []);
}

#[test]
fn what_is_claimed_is_there_once_and_the_claimants_own() {
    let (calls, mut end) = healthy();
    let missing = claim(vm("vm-9"), "web/2", "agent-9");
    let stranger = claim(vm("vm-2"), "web/3", "agent-4");
    end.claims.extend([missing.clone(), stranger.clone()]);
    let by = ["web/1".to_owned(), "web/3".to_owned()];
    assert_eq!(
        check(&calls, &end).violations,
        [
            Violation::Missing { claim: missing },
            Violation::ClaimedTwice { thing: vm("vm-2"), by },
            Violation::ClaimedByAnother { claim: stranger, intent: "agent-2".into() },
        ]
    );
}

#[test]
fn a_record_that_does_not_explain_the_cloud_proves_nothing() {
    let (mut calls, mut end) = healthy();
    calls.remove(0);
    end.present.remove(&disk("d-1"));
    end.claims.retain(|claim| claim.thing.kind == Kind::Vm);
    end.present.insert(vm("vm-3"), None);
    end.orphans = [vm("vm-3")].into();
    let said: Vec<String> = check(&calls, &end).violations.iter().map(Violation::to_string).collect();
    assert_eq!(
        said,
        [
            "VM `vm-1` is there, although no call made it: the record is not whole",
            "VM `vm-3` is there, although it was deleted: the record is not whole",
            "disk `d-1` is not there, although no call deleted it: the record is not whole",
        ]
    );
}
