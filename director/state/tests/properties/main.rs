//! What holds for every sequence of commands: replicas agree byte for byte, whatever way they came by the state;
//! an address has one holder; a lock has one; nothing makes `apply` panic.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod any;
#[path = "../common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};

use any::log;
use model::task::{OutputKind, TaskState};
use model::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use state::State;
use state::command::*;
use state::kv::{Direction, Kv as _, KvRead as _, MemoryKv, Span};

fn replay(kv: &mut MemoryKv, log: &[Entry], from: usize) -> Vec<Outcome> {
    let entries = log.iter().enumerate().skip(from);
    entries.map(|(index, entry)| state::apply(kv, Revision(index as u64 + 1), entry).outcome).collect()
}

fn check_invariants(kv: &MemoryKv) {
    let state = State::new(kv);
    // Who holds what by the two indexes is the same.
    let mut by_holder = BTreeSet::new();
    for deployment in state.deployments() {
        for instance in state.instances(&deployment.name) {
            for held in state.instance_addresses(&instance.spec.id) {
                assert!(by_holder.insert(held.ip), "{} is held twice", held.ip);
                assert_eq!(held.instance, instance.spec.id);
            }
            let vms = state.vms(&instance.spec.id);
            assert!(vms.iter().filter(|vm| vm.active).count() <= 1);
            assert!(vms.iter().all(|vm| state.agent(&vm.agent).is_some()));
            assert!(state.disks(&instance.spec.id).iter().filter(|disk| disk.active).count() <= 1);
        }
    }
    // What an orphaned VM has until it is deleted is no instance's any more.
    let held = state.addresses().into_iter().filter(|held| held.orphan.is_none());
    let by_address: BTreeSet<_> = held.map(|held| held.ip).collect();
    assert_eq!(by_address, by_holder);

    let tasks = state.tasks(&Default::default());
    let mut locked = BTreeMap::new();
    for task in
        tasks.iter().filter(|task| matches!(task.state, TaskState::Processing | TaskState::Cancelling))
    {
        for lock in &task.locks {
            assert_eq!(locked.insert(lock.clone(), task.id), None, "{lock} is held twice");
            assert_eq!(state.lock(lock).unwrap().holder, task.id);
        }
    }
    for view in state.locks() {
        for waiting in view.waiters.iter().chain([&view.holder]) {
            assert!(!state.task(*waiting).unwrap().state.is_final());
        }
        assert!(
            view.waiters.iter().chain([&view.holder]).collect::<BTreeSet<_>>().len()
                == view.waiters.len() + 1
        );
    }
    for task in &tasks {
        for kind in [OutputKind::Event, OutputKind::Result] {
            let text = state.output(task.id, kind, 0, usize::MAX);
            assert_eq!(text.len() as u64, state.output_len(task.id, kind));
            let lines = String::from_utf8(text).unwrap();
            assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        }
    }
}

proptest! {
    // A quarter of the usual 256 takes long enough in a debug build; PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn one_log_gives_one_store(log in log()) {
        let (mut left, mut right) = (MemoryKv::new(), MemoryKv::new());
        let outcomes = replay(&mut left, &log, 0);
        // The other replica reads its entries from bytes.
        for (index, entry) in log.iter().enumerate() {
            let (outcome, _) = state::apply_bytes(&mut right, Revision(index as u64 + 1), &entry.encode(), state::CHANGES_KEPT);
            prop_assert_eq!(&Outcome::decode(&outcome).unwrap(), &outcomes[index]);
        }
        prop_assert!(left == right);
        check_invariants(&left);
    }

    #[test]
    fn snapshot_and_tail_are_the_whole_log(log in log(), cut in 0..120usize) {
        let cut = cut.min(log.len());
        let mut whole = MemoryKv::new();
        replay(&mut whole, &log, 0);
        let mut head = MemoryKv::new();
        replay(&mut head, &log[..cut], 0);
        let mut restored = MemoryKv::new();
        let all = Span { start: Vec::new(), end: None };
        head.scan(all, Direction::Forward).for_each(|(key, value)| restored.put(key, value));
        replay(&mut restored, &log, cut);
        prop_assert!(whole == restored);
    }

    #[test]
    fn a_refusal_changes_nothing_but_its_remembered_answer(log in log()) {
        let mut kv = MemoryKv::new();
        for (index, entry) in log.iter().enumerate() {
            let before = kv.clone();
            let applied = state::apply(&mut kv, Revision(index as u64 + 1), entry);
            if matches!(applied.outcome, Outcome::Refused(_)) && entry.request_id.is_none() {
                prop_assert!(kv == before);
                prop_assert!(applied.changes.is_empty());
            }
        }
    }

    #[test]
    fn watchers_learn_of_every_change(log in log()) {
        let mut kv = MemoryKv::new();
        let mut told = Vec::new();
        for (index, entry) in log.iter().enumerate() {
            told.extend(state::apply(&mut kv, Revision(index as u64 + 1), entry).changes);
        }
        prop_assert_eq!(State::new(&kv).changes_since(Revision(0), usize::MAX).unwrap(), told);
    }

    #[test]
    fn no_bytes_are_fatal(log in log(), bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
        let mut kv = MemoryKv::new();
        replay(&mut kv, &log, 0);
        state::apply_bytes(&mut kv, Revision(999), &bytes, state::CHANGES_KEPT);
        // And bytes that are almost right.
        let mut almost = log[at.index(log.len())].encode();
        let place = at.index(almost.len());
        almost[place] ^= bytes.first().copied().unwrap_or(1);
        state::apply_bytes(&mut kv, Revision(1000), &almost, state::CHANGES_KEPT);
        almost.truncate(place);
        state::apply_bytes(&mut kv, Revision(1001), &almost, state::CHANGES_KEPT);
        check_invariants(&kv);
    }
}

/// The properties say something only about logs that get past the first refusals.
#[test]
fn random_logs_get_somewhere() {
    let mut runner = TestRunner::deterministic();
    let mut accepted: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..90 {
        let log = log().new_tree(&mut runner).unwrap().current();
        let outcomes = replay(&mut MemoryKv::new(), &log, 0);
        for (entry, outcome) in log.iter().zip(outcomes) {
            let what = match &entry.command {
                Command::PlanCommit { .. } => "plans",
                Command::StepRecords { records, .. } if !records.is_empty() => "steps",
                Command::TaskFinish { .. } => "ends",
                _ => "others",
            };
            *accepted.entry(what).or_default() += u32::from(!matches!(outcome, Outcome::Refused(_)));
        }
    }
    let enough = accepted["plans"] >= 50 && accepted["steps"] >= 100 && accepted["ends"] >= 15;
    assert!(enough, "accepted: {accepted:?}");
}
