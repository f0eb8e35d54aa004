//! Which sequences of events are histories, and what a recorder makes of what happens to its processes.

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ping(u32);

impl Call for Ping {
    type Answer = u32;
}

fn event(process: u64, at_us: u64, what: What<Ping>) -> Event<Ping> {
    Event { process, at_us, what }
}

fn invoke(process: u64, at_us: u64) -> Event<Ping> {
    event(process, at_us, What::Invoke(Ping(1)))
}

#[test]
fn a_process_does_one_thing_at_a_time() {
    let events = vec![invoke(3, 0), invoke(4, 0), invoke(3, 1)];
    assert_eq!(History::new(events), Err(Malformed::Overlap { event: 2, process: 3 }));
}

#[test]
fn an_end_needs_a_beginning() {
    let events = vec![invoke(1, 0), event(1, 1, What::Ok(1)), event(1, 2, What::Fail("no".into()))];
    assert_eq!(History::new(events), Err(Malformed::NotBegun { event: 2, process: 1 }));
}

#[test]
fn a_process_is_not_heard_after_an_unknown_outcome() {
    let events = vec![invoke(1, 0), event(1, 1, What::Unknown("cut".into())), invoke(1, 2)];
    assert_eq!(History::new(events), Err(Malformed::Retired { event: 2, process: 1 }));
}

#[test]
fn a_process_has_one_clock_that_does_not_go_back_and_two_may_differ() {
    let good = vec![invoke(1, 10), invoke(2, 5), event(1, 10, What::Ok(1))];
    assert!(History::new(good).is_ok());
    let bad = vec![invoke(1, 10), event(1, 9, What::Ok(1))];
    let complaint = Malformed::TimeGoesBack { event: 1, process: 1, before_us: 10, at_us: 9 };
    assert_eq!(History::new(bad), Err(complaint));
}

#[test]
fn operations_are_invocations_with_their_ends() {
    let recorder = Recorder::new();
    let (mut a, mut b) = (recorder.process(), recorder.process());
    let first = a.invoke(1, Ping(10));
    b.invoke(2, Ping(20)).fail(3, "refused");
    first.ok(4, 11);
    a.invoke(5, Ping(30)).unknown(6, "cut");
    // The same client, and another process.
    a.invoke(7, Ping(40)).ok(8, 41);
    drop(a.invoke(9, Ping(50)));
    a.invoke(10, Ping(60)).ok(11, 61);
    let operations = recorder.history().unwrap().operations();
    let told: Vec<_> = operations.iter().map(|o| (o.process, o.call.0, o.begun, o.end.clone())).collect();
    let ok = |event, at_us, answer| End::Ok { event, at_us, answer };
    assert_eq!(
        told,
        [
            (0, 10, 0, ok(3, 4, 11)),
            (1, 20, 1, End::Failed),
            (0, 30, 4, End::Unknown),
            (2, 40, 6, ok(7, 8, 41)),
            (2, 50, 8, End::Unknown),
            (3, 60, 9, ok(10, 11, 61)),
        ]
    );
}

#[test]
fn many_threads_record_into_one_history() {
    let recorder = Recorder::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let mut process = recorder.process();
            scope.spawn(move || {
                for n in 0..500 {
                    process.invoke(u64::from(n), Ping(n)).ok(u64::from(n), n);
                }
            });
        }
    });
    let operations = recorder.history().unwrap().operations();
    assert_eq!(operations.len(), 4000);
    let of_its_own = |o: &Operation<Ping>| matches!(o.end, End::Ok { event, answer, .. } if event > o.begun && answer == o.call.0);
    assert!(operations.iter().all(of_its_own));
}

#[test]
fn strings_are_escaped_for_edn() {
    assert_eq!(edn::string("a \"b\" \\ \n\u{7}"), "\"a \\\"b\\\" \\\\ \\n\u{fffd}\"");
}
