//! Histories with and without an order, what is said about the latter, and what a search costs.

mod brute_force;
mod large;
mod script;

use expect_test::{Expect, expect};

use super::*;
use crate::history::edn;
use register::{Elle, Knossos};
use script::history;

#[track_caller]
fn good(script: &str) {
    let found = check(&history(script), Limits::default());
    assert!(found.holds(), "{}", found.report("linearizable"));
}

#[track_caller]
fn bad(script: &str, expected: Expect) {
    let found = check(&history(script), Limits::default());
    expected.assert_eq(&found.report("linearizable").to_string());
}

#[test]
fn what_one_client_does_alone_is_in_its_own_order() {
    good(
        "0 read x | 0 ok nil | 0 write x 1 | 0 ok | 0 read x | 0 ok 1 | 0 cas x 1 2 | 0 ok | 0 read x | 0 ok 2",
    );
}

#[test]
fn a_read_beside_a_write_may_see_it_or_not_but_not_go_back() {
    good("0 write x 1 | 0 ok | 0 write x 2 | 1 read x | 1 ok 1 | 1 read x | 1 ok 2 | 0 ok");
    bad(
        "0 write x 1 | 0 ok | 0 write x 2 | 1 read x | 1 ok 2 | 1 read x | 1 ok 1 | 0 ok",
        expect![[r#"
            linearizable: violated (1 registers, 4 answered operations, 0 unknown outcomes)
              - register `x`: no order explains its first 7 events (up to number 6 of the history), without the last of them one does:
                process 1 read 1 [events 5 at 0.005000 s to 6 at 0.006000 s]
                but the register cannot hold 1 then
                | process 0 wrote 1 [events 0 at 0.000000 s to 1 at 0.001000 s]
                | process 0 wrote 2 [events 2 at 0.002000 s to 7 at 0.007000 s]
                | process 1 read 2 [events 3 at 0.003000 s to 4 at 0.004000 s]"#]],
    );
}

#[test]
fn a_stale_read_names_who_overwrote_the_value() {
    bad(
        "0 write x 1 | 0 ok | 1 write x 2 | 1 ok | 2 read y | 2 ok nil | 2 read x | 2 ok 1",
        expect![[r#"
            linearizable: violated (2 registers, 4 answered operations, 0 unknown outcomes)
              - register `x`: no order explains its first 6 events (up to number 7 of the history), without the last of them one does:
                process 2 read 1 [events 6 at 0.006000 s to 7 at 0.007000 s]
                but 1 was overwritten before it began, for good: process 1 was told so at event 3
                | process 0 wrote 1 [events 0 at 0.000000 s to 1 at 0.001000 s]
                | process 1 wrote 2 [events 2 at 0.002000 s to 3 at 0.003000 s]"#]],
    );
}

#[test]
fn an_acknowledged_write_that_is_gone_is_seen_by_the_next_read() {
    bad(
        "0 write x 1 | 0 ok | 1 read x | 1 ok nil",
        expect![[r#"
            linearizable: violated (1 registers, 2 answered operations, 0 unknown outcomes)
              - register `x`: no order explains its first 4 events (up to number 3 of the history), without the last of them one does:
                process 1 read nothing [events 2 at 0.002000 s to 3 at 0.003000 s]
                but the empty register was overwritten before it began, for good: process 0 was told so at event 1
                | process 0 wrote 1 [events 0 at 0.000000 s to 1 at 0.001000 s]"#]],
    );
}

#[test]
fn a_failed_write_must_not_have_happened() {
    good("0 write x 1 | 0 fail | 1 read x | 1 ok nil");
    bad(
        "0 write x 1 | 0 fail | 1 read x | 1 ok 1",
        expect![[r#"
            linearizable: violated (1 registers, 1 answered operations, 0 unknown outcomes)
              - register `x`: no order explains its first 3 events (up to number 3 of the history), without the last of them one does:
                process 1 read 1 [events 2 at 0.002000 s to 3 at 0.003000 s]
                but 1 was written only by an operation that failed and must not have happened
                | process 0 wrote 1, which failed [events 0 at 0.000000 s to its failure]"#]],
    );
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_once() {
    good("0 write x 1 | 0 info | 1 read x | 1 ok nil | 1 read x | 1 ok 1");
    good("0 write x 1 | 0 info | 1 read x | 1 ok nil | 1 read x | 1 ok nil");
    bad(
        "0 write x 1 | 0 info | 1 read x | 1 ok 1 | 1 write x 2 | 1 ok | 1 read x | 1 ok 1",
        expect![[r#"
            linearizable: violated (1 registers, 3 answered operations, 1 unknown outcomes)
              - register `x`: no order explains its first 7 events (up to number 7 of the history), without the last of them one does:
                process 1 read 1 [events 6 at 0.006000 s to 7 at 0.007000 s]
                but the register cannot hold 1 then
                | process 0 wrote 1, outcome unknown [events 0 at 0.000000 s to no known end]
                | process 1 read 1 [events 2 at 0.002000 s to 3 at 0.003000 s]
                | process 1 wrote 2 [events 4 at 0.004000 s to 5 at 0.005000 s]"#]],
    );
}

#[test]
fn an_unknown_write_does_not_happen_before_it_begins() {
    bad(
        "1 read x | 1 ok 1 | 0 write x 1 | 0 info",
        expect![[r#"
            linearizable: violated (1 registers, 1 answered operations, 1 unknown outcomes)
              - register `x`: no order explains its first 2 events (up to number 1 of the history), without the last of them one does:
                process 1 read 1 [events 0 at 0.000000 s to 1 at 0.001000 s]
                but 1 was written only after that"#]],
    );
}

#[test]
fn a_value_that_nobody_wrote_is_called_that() {
    bad(
        "0 write x 1 | 0 ok | 1 read x | 1 ok 7",
        expect![[r#"
            linearizable: violated (1 registers, 2 answered operations, 0 unknown outcomes)
              - register `x`: no order explains its first 4 events (up to number 3 of the history), without the last of them one does:
                process 1 read 7 [events 2 at 0.002000 s to 3 at 0.003000 s]
                but nobody ever wrote 7
                | process 0 wrote 1 [events 0 at 0.000000 s to 1 at 0.001000 s]"#]],
    );
}

#[test]
fn only_one_of_two_who_expect_the_same_swaps() {
    good("0 cas x nil 1 | 1 cas x nil 2 | 0 ok | 1 no");
    bad(
        "0 cas x nil 1 | 1 cas x nil 2 | 0 ok | 1 ok",
        expect![[r#"
            linearizable: violated (1 registers, 2 answered operations, 0 unknown outcomes)
              - register `x`: no order explains its first 4 events (up to number 3 of the history), without the last of them one does:
                process 1 set 2 where nothing was expected [events 1 at 0.001000 s to 3 at 0.003000 s]
                but the register cannot hold nothing then
                | process 0 set 1 where nothing was expected [events 0 at 0.000000 s to 2 at 0.002000 s]"#]],
    );
}

#[test]
fn a_refusal_is_an_answer_too() {
    good("0 write x 1 | 0 ok | 1 cas x 2 3 | 1 no");
    bad(
        "0 write x 1 | 0 ok | 1 cas x 1 3 | 1 no",
        expect![[r#"
            linearizable: violated (1 registers, 2 answered operations, 0 unknown outcomes)
              - register `x`: no order explains its first 4 events (up to number 3 of the history), without the last of them one does:
                process 1 set 3 where 1 was expected, refused: it held something else [events 2 at 0.002000 s to 3 at 0.003000 s]
                and nothing that could have come before it leads there
                | process 0 wrote 1 [events 0 at 0.000000 s to 1 at 0.001000 s]"#]],
    );
}

#[test]
fn keys_are_judged_alone_and_each_bad_one_is_named() {
    let script = "0 write x 1 | 0 ok | 0 write y 2 | 0 ok | 0 write z 3 | 0 ok | \
                  1 read x | 1 ok nil | 1 read y | 1 ok 2 | 1 read z | 1 ok nil";
    let found = check(&history(script), Limits::default());
    let keys: Vec<&str> = found.violations.iter().map(|violation| &*violation.key).collect();
    assert_eq!(keys, ["x", "z"]);
}

#[test]
fn a_search_that_is_cut_off_is_undecided_and_no_pass() {
    let script = "0 write x 1 | 1 write x 2 | 2 read x | 2 ok 1 | 2 read x | 2 ok 2 | 0 ok | 1 ok";
    let found = check(&history(script), Limits { configurations_max: 1 });
    assert!(!found.holds() && found.violations.is_empty());
    let said = "register `x`: no answer after 1 configurations of 4 operations";
    assert_eq!(found.undecided, [said]);
    good(script);
}

#[test]
fn the_smallest_prefix_ends_with_the_first_answer_that_cannot_be() {
    // Writing 2 is doomed by the read at the end, yet the prefix without that read has an order.
    let script = "0 write x 1 | 0 ok | 0 write x 2 | 0 ok | 1 read y | 1 ok nil | 0 write x 3 | 0 ok | \
                  1 read x | 1 ok 1 | 1 read x | 1 ok 2";
    let found = check(&history(script), Limits::default());
    let at: Vec<_> = found.violations.iter().map(|v| (v.prefix_end, v.prefix_events)).collect();
    assert_eq!(at, [(9, 8)]);
}

#[test]
fn is_written_for_knossos() {
    let script = "0 write x 1 | 1 cas x 1 2 | 0 ok | 1 no | 2 read x | 2 ok 1 | 2 read x | 2 fail | 0 write x 3 | 0 info";
    let mut bytes = Vec::new();
    edn::write(&history(script), &Knossos, &mut bytes).unwrap();
    expect![[r#"
        {:process 0, :type :invoke, :f :write, :value ["x" 1], :time 0, :index 0}
        {:process 1, :type :invoke, :f :cas, :value ["x" [1 2]], :time 1000000, :index 1}
        {:process 0, :type :ok, :f :write, :value ["x" 1], :time 2000000, :index 2}
        {:process 1, :type :fail, :f :cas, :value ["x" [1 2]], :time 3000000, :index 3}
        {:process 2, :type :invoke, :f :read, :value ["x" nil], :time 4000000, :index 4}
        {:process 2, :type :ok, :f :read, :value ["x" 1], :time 5000000, :index 5}
        {:process 2, :type :invoke, :f :read, :value ["x" nil], :time 6000000, :index 6}
        {:process 2, :type :fail, :f :read, :value ["x" nil], :time 7000000, :index 7, :error "refused"}
        {:process 0, :type :invoke, :f :write, :value ["x" 3], :time 8000000, :index 8}
        {:process 0, :type :info, :f :write, :value ["x" 3], :time 9000000, :index 9, :error "cut"}
    "#]]
    .assert_eq(&String::from_utf8(bytes).unwrap());
}

#[test]
fn is_written_for_elle() {
    let script = "0 write x 1 | 0 ok | 1 cas x 1 2 | 1 ok | 2 read x | 2 ok 2";
    let mut bytes = Vec::new();
    edn::write(&history(script), &Elle, &mut bytes).unwrap();
    expect![[r#"
        {:process 0, :type :invoke, :f :txn, :value [[:w "x" 1]], :time 0, :index 0}
        {:process 0, :type :ok, :f :txn, :value [[:w "x" 1]], :time 1000000, :index 1}
        {:process 1, :type :invoke, :f :txn, :value [[:r "x" nil] [:w "x" 2]], :time 2000000, :index 2}
        {:process 1, :type :ok, :f :txn, :value [[:r "x" 1] [:w "x" 2]], :time 3000000, :index 3}
        {:process 2, :type :invoke, :f :txn, :value [[:r "x" nil]], :time 4000000, :index 4}
        {:process 2, :type :ok, :f :txn, :value [[:r "x" 2]], :time 5000000, :index 5}
    "#]]
    .assert_eq(&String::from_utf8(bytes).unwrap());
}
