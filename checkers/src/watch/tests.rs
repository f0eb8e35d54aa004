//! What watchers may and may not see.

use proptest::prelude::*;

use super::*;

fn change(revision: u64, what: &str) -> Change {
    Change { revision, what: what.to_owned() }
}

/// `@7` opens after 7, `@` anywhere; `9:5a,9b` is a message that reaches 9; `C` compacted, `B` broke, `S` silent.
fn watcher(name: &str, script: &str) -> Watcher {
    let seen = script.split_whitespace().map(|word| match word {
        "C" => Seen::Compacted,
        "B" => Seen::Broke,
        "S" => Seen::Silent,
        word => match word.strip_prefix('@') {
            Some(after) => Seen::Opened { after: after.parse().ok() },
            None => {
                let (complete_to, changes) = word.split_once(':').unwrap();
                let changes = changes.split(',').filter(|text| !text.is_empty()).map(|text| {
                    let digits = text.trim_end_matches(char::is_alphabetic);
                    change(digits.parse().unwrap(), &text[digits.len()..])
                });
                Seen::Message { complete_to: complete_to.parse().unwrap(), changes: changes.collect() }
            }
        },
    });
    Watcher { name: name.to_owned(), seen: seen.collect() }
}

/// One that saw everything there is: 1a, 2a and 2b, 5a, 9c.
const ALL: &str = "@0 1:1a 2:2a,2b 5:5a 9:9c";

/// Judges a watcher beside one that saw everything.
fn found(script: &str) -> Vec<(usize, Wrong)> {
    let watchers = [watcher("all", ALL), watcher("one", script)];
    let found = check(&watchers, &Reference::union_of(&watchers), None);
    assert!(found.violations.iter().all(|violation| violation.watcher == "one"), "{found:?}");
    found.violations.into_iter().map(|violation| (violation.seen, violation.what)).collect()
}

#[test]
fn what_happened_in_whatever_portions_is_fine() {
    assert_eq!(found(ALL), []);
    assert_eq!(found("@0 9:1a,2a,2b,5a,9c 9: 12:"), []);
    assert_eq!(found("@ 4: 6:5a"), []);
    assert_eq!(found("@2 4: 9:5a,9c"), []);
    assert_eq!(found("@0 2:1a,2b,2a B @2 5:5a B @5 B @5 9:9c"), []);
}

#[test]
fn a_watcher_that_was_told_of_compaction_begins_anew() {
    assert_eq!(found("@0 1:1a B @1 C @5 9:9c"), []);
    assert_eq!(found("@0 C @ 9:"), []);
}

#[test]
fn a_change_that_is_left_out_is_a_gap_once_the_bookmark_is_past_it() {
    assert_eq!(found("@0 1:1a 2:2a,2b"), []);
    let gap = Wrong::Gap { missing: change(5, "a"), count: 1, after: 2, complete_to: 9 };
    assert_eq!(found("@0 2:1a,2a,2b 9:9c"), [(2, gap)]);
    let half = Wrong::Gap { missing: change(2, "b"), count: 1, after: 1, complete_to: 2 };
    assert_eq!(found("@0 1:1a 2:2a"), [(2, half)]);
    let bookmark = Wrong::Gap { missing: change(5, "a"), count: 2, after: 2, complete_to: 9 };
    assert_eq!(found("@0 2:1a,2a,2b 9:"), [(2, bookmark)]);
}

#[test]
fn a_session_that_begins_late_in_silence_should_have_been_refused() {
    let skipped = Wrong::SkippedInSilence { missing: change(1, "a"), count: 3, after: 0 };
    assert_eq!(found("@0 5:5a 9:9c"), [(1, skipped)]);
    let resumed = Wrong::SkippedInSilence { missing: change(2, "a"), count: 2, after: 1 };
    assert_eq!(found("@0 1:1a B @1 5:5a"), [(4, resumed)]);
}

#[test]
fn nothing_comes_below_a_bookmark() {
    let late = Wrong::FalseBookmark { change: change(5, "a"), complete_to: 6 };
    let gap = Wrong::Gap { missing: change(5, "a"), count: 1, after: 2, complete_to: 6 };
    assert_eq!(found("@0 2:1a,2a,2b 6: 9:5a,9c"), [(2, gap), (3, late)]);
    let back = Wrong::BookmarkWentBack { complete_to: 1, before: 2 };
    assert_eq!(found("@0 2:1a,2a,2b 1:"), [(2, back)]);
}

#[test]
fn a_change_that_comes_again_is_told_as_that() {
    let twice = Wrong::Twice { change: change(2, "b") };
    assert_eq!(found("@0 2:1a,2a,2b 9:2b,5a,9c"), [(2, twice.clone())]);
    assert_eq!(found("@0 2:1a,2a,2b,2b"), [(1, twice)]);
    let resumed = Wrong::FalseBookmark { change: change(2, "b"), complete_to: 2 };
    assert_eq!(found("@0 2:1a,2a,2b B @2 9:2b,5a,9c"), [(4, resumed)]);
}

#[test]
fn revisions_ascend() {
    let wrong = Wrong::OutOfOrder { change: change(2, "a"), after: 5 };
    let other = Wrong::OutOfOrder { change: change(2, "b"), after: 5 };
    assert_eq!(found("@0 1:1a 5:5a,2a,2b 9:9c"), [(2, wrong), (2, other)]);
}

#[test]
fn a_message_does_not_hold_more_than_it_says() {
    let beyond = Wrong::BeyondItsMessage { change: change(5, "a"), complete_to: 4 };
    let found = found("@2 4:5a");
    assert_eq!(found, [(1, beyond)]);
}

#[test]
fn a_session_begins_where_the_one_before_ended() {
    let skipped = Wrong::NotResumed { opened_after: Some(5), had: 2 };
    assert_eq!(found("@0 2:1a,2a,2b B @5 9:9c"), [(3, skipped)]);
    let anywhere = Wrong::NotResumed { opened_after: None, had: 2 };
    assert_eq!(found("@0 2:1a,2a,2b B @ 9:"), [(3, anywhere)]);
}

#[test]
fn silence_is_no_answer() {
    assert_eq!(found("@0 S"), [(1, Wrong::Silent)]);
}

#[test]
fn all_must_get_to_the_end_where_that_is_asked() {
    let watchers = [watcher("all", ALL), watcher("slow", "@0 5:1a,2a,2b,5a")];
    let found = check(&watchers, &Reference::union_of(&watchers), Some(9));
    let what = Wrong::CameShort { reached: 5, expected: 9 };
    assert_eq!(found.violations, [Violation { watcher: "slow".into(), seen: 2, what }]);
    assert_eq!(found.violations[0].to_string(), "watcher `slow`, message 2: ended at 5 instead of 9");
    assert_eq!(
        found.looked_at,
        [("watchers", 2), ("sessions", 2), ("changes received", 9), ("changes known", 5)]
    );
}

#[test]
fn a_full_reading_shows_what_was_kept_from_everybody() {
    let watchers = [watcher("one", "@0 9:1a,9c")];
    let mut reference = Reference::union_of(&watchers);
    assert!(check(&watchers, &reference, None).holds());
    reference.add([change(4, "d")]);
    let found = check(&watchers, &reference, None).violations;
    let what = Wrong::SkippedInSilence { missing: change(4, "d"), count: 1, after: 0 };
    assert_eq!(found, [Violation { watcher: "one".into(), seen: 1, what }]);
}

/// A true stream, cut into messages and sessions at will.
fn stream() -> impl Strategy<Value = (Vec<Change>, Vec<(u64, bool)>)> {
    let changes = prop::collection::btree_set((1..30_u64, "[a-c]"), 1..25);
    let ends = prop::collection::btree_map(1..35_u64, any::<bool>(), 1..10);
    (changes, ends).prop_map(|(changes, ends)| {
        let changes = changes.into_iter().map(|(revision, what)| Change { revision, what }).collect();
        (changes, ends.into_iter().chain([(35, false)]).collect())
    })
}

fn play(changes: &[Change], ends: &[(u64, bool)]) -> Watcher {
    let (mut seen, mut from) = (vec![Seen::Opened { after: Some(0) }], 0);
    for (complete_to, breaks) in ends {
        let within = |change: &&Change| change.revision > from && change.revision <= *complete_to;
        let changes = changes.iter().filter(within).cloned().collect();
        seen.push(Seen::Message { complete_to: *complete_to, changes });
        from = *complete_to;
        if *breaks {
            seen.extend([Seen::Broke, Seen::Opened { after: Some(from) }]);
        }
    }
    Watcher { name: "one".into(), seen }
}

proptest! {
    #[test]
    fn a_true_stream_passes_and_one_change_lost_doubled_or_late_does_not(
        (changes, ends) in stream(),
        victim in 0..25_usize,
    ) {
        let mut reference = Reference::default();
        reference.add(changes.iter().cloned());
        let good = play(&changes, &ends);
        prop_assert!(check(std::slice::from_ref(&good), &reference, Some(35)).holds());

        let victim = &changes[victim % changes.len()];
        let of_victim = |seen: &Seen| matches!(seen, Seen::Message { changes, .. } if changes.contains(victim));
        let place = good.seen.iter().position(of_victim).unwrap();
        let with = |place: usize, edit: &dyn Fn(&mut Vec<Change>)| {
            let mut bad = good.clone();
            if let Seen::Message { changes, .. } = &mut bad.seen[place] {
                edit(changes);
            }
            bad
        };
        let lost = with(place, &|changes| changes.retain(|change| change != victim));
        prop_assert!(!check(std::slice::from_ref(&lost), &reference, None).holds());
        let doubled = with(place, &|changes| changes.push(victim.clone()));
        prop_assert!(!check(&[doubled], &reference, None).holds());
        if let Some(Seen::Message { changes, .. }) = lost.seen.get(place + 1) {
            let mut late = lost.clone();
            let changes = changes.iter().cloned().chain([victim.clone()]).collect();
            late.seen[place + 1] = Seen::Message { complete_to: 35, changes };
            prop_assert!(!check(&[late], &reference, None).holds());
        }
    }
}
