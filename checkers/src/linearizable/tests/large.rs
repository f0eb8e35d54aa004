//! What a search costs, in configurations: the machine's speed is no part of the test.

use crate::history::{Event, History, What as Said};
use crate::linearizable::register::{Answer, Call, Value, What};
use crate::linearizable::{Limits, check};

const CLIENTS: u64 = 10;

/// Chance from a seed (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// What the clients meet.
struct World {
    operations: u64,
    /// How many of a thousand operations have no known outcome.
    unknown: u64,
    /// The first read that ends after so many operations have begun answers with the very first value.
    stale_from: Option<u64>,
}

/// A register that keeps the order, and what it held first.
#[derive(Default)]
struct Register {
    now: Value,
    first: Value,
}

impl Register {
    fn perform(&mut self, what: What) -> Answer {
        let (new, answer) = match what {
            What::Read => return Answer::Read(self.now),
            What::CompareAndSet { expected, .. } if expected != self.now => return Answer::Mismatch,
            What::CompareAndSet { new, .. } => (new, Answer::Swapped),
            What::Write(new) => (new, Answer::Written),
        };
        self.now = Some(new);
        answer
    }
}

/// One client: its process's number and what it is in the middle of.
struct Client {
    process: u64,
    running: Option<(What, Option<Answer>)>,
}

/// Ten clients on one key, nearly all in the middle of an operation at any time.
fn play(seed: u64, world: &World) -> History<Call> {
    let mut chance = Chance(seed);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|process| Client { process, running: None }).collect();
    let (mut register, mut events, mut begun, mut lied) = (Register::default(), Vec::new(), 0, false);
    while begun < world.operations {
        let client = &mut clients[chance.below(CLIENTS) as usize];
        let process = client.process;
        let said = match client.running.take() {
            None => {
                begun += 1;
                let what = match chance.below(10) {
                    0..4 => What::Read,
                    4..8 => What::Write(begun),
                    _ => What::CompareAndSet { expected: register.now, new: begun },
                };
                client.running = Some((what, None));
                Said::Invoke(Call { key: "k".into(), what })
            }
            Some((what, None)) => {
                client.running = Some((what, Some(register.perform(what))));
                continue;
            }
            Some(_) if chance.below(1000) < world.unknown => {
                client.process += CLIENTS;
                Said::Unknown(String::new())
            }
            Some((What::Read, Some(_))) if world.stale_from.is_some_and(|from| begun >= from) && !lied => {
                lied = true;
                Said::Ok(Answer::Read(register.first))
            }
            Some((_, Some(answer))) => Said::Ok(answer),
        };
        register.first = register.first.or(register.now);
        events.push(Event { process, at_us: events.len() as u64, what: said });
    }
    History::new(events).unwrap()
}

/// Enough for each of these histories, and a small part of the default.
const LIMITS: Limits = Limits { configurations_max: 50_000 };

#[test]
fn thousands_of_operations_of_ten_clients_on_one_key_take_few_configurations() {
    for seed in 1..=5 {
        let history = play(seed, &World { operations: 5000, unknown: 0, stale_from: None });
        let found = check(&history, LIMITS);
        assert!(found.holds(), "seed {seed}: {}", found.report("linearizable"));
    }
}

#[test]
fn two_hundred_unknown_outcomes_are_no_hindrance() {
    for seed in 1..=5 {
        let history = play(seed, &World { operations: 4000, unknown: 50, stale_from: None });
        let found = check(&history, LIMITS);
        assert!(found.holds(), "seed {seed}: {}", found.report("linearizable"));
        assert!(found.looked_at[2].1 > 100, "{:?}", found.looked_at);
    }
}

#[test]
fn one_stale_read_among_thousands_is_found_and_named() {
    for seed in 1..=5 {
        let history = play(seed, &World { operations: 4000, unknown: 10, stale_from: Some(3000) });
        let found = check(&history, LIMITS);
        assert_eq!(found.undecided, [""; 0], "seed {seed}");
        let [violation] = found.violations.as_slice() else { panic!("seed {seed}: {found:?}") };
        assert_eq!(violation.operation.call.what, What::Read, "seed {seed}: {violation}");
        assert!(violation.prefix_end > 5000, "seed {seed}: {violation}");
    }
}
