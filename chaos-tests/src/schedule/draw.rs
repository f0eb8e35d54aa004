//! From a seed to a schedule. Pure.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::{Act, Schedule};
use crate::nemesis::cloud::Misfortune;
use crate::nemesis::network::{Cut, Reach};
use crate::nemesis::{Fault, Needs, Whom};
use crate::workloads::Mix;

/// Faults of a schedule.
const ACTS: std::ops::RangeInclusive<usize> = 4..=6;

/// Faults of a schedule begin before this; what is left of them has no room.
const PLAY_MAX: Duration = Duration::from_secs(11);

/// The clock's jumps, in seconds: less than a lease's worth, more than any deadline, a day.
const JUMPS: [i32; 8] = [-86_400, -3_600, -60, -5, 5, 60, 3_600, 86_400];

impl Schedule {
    /// Draws the schedule of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let fleet = if chance.random_bool(0.3) { 5 } else { 3 };
        let simulated = chance.random_bool(0.75);
        let in_lab = chance.random_bool(0.6);
        let mix = Mix {
            register_clients: chance.random_range(2..=5),
            registers: chance.random_range(1..=3),
            writers: chance.random_range(1..=3),
            watchers: chance.random_range(1..=2),
            deployments: chance.random_range(1..=2),
            instances_max: if simulated { chance.random_range(2..=5) } else { 2 },
            uploaders: chance.random_range(0..=1),
        };
        let mut schedule = Self { seed, fleet, simulated, in_lab, mix, acts: Vec::new() };
        let mut at = millis(&mut chance, 200, 1_000);
        for _ in 0..chance.random_range(ACTS) {
            let fault = schedule.fault(&mut chance);
            let until = at + lasts(&fault, &mut chance);
            schedule.acts.push(Act { at, until, fault });
            if fleet == 5 && fault.harms_one() && chance.random_bool(0.6) {
                schedule.second(Act { at, until, fault }, &mut chance);
            }
            at = until + millis(&mut chance, 200, 1_200);
            if at > PLAY_MAX {
                break;
            }
        }
        schedule.acts.sort_by_key(|act| act.at);
        schedule
    }

    /// Adds a fault that comes and goes during another: five replicas bear two.
    fn second(&mut self, first: Act, chance: &mut StdRng) {
        let fault = self.fault(chance);
        let length = (first.until - first.at).as_millis() as u64;
        let (from, to) = (length / 4, length * 3 / 4);
        if fault.harms_one() && !self.is_double(&fault) && to > from {
            let (at, until) = (millis(chance, from, (from + to) / 2), millis(chance, (from + to) / 2, to));
            self.acts.push(Act { at: first.at + at, until: first.at + until, fault });
        }
    }

    fn fault(&self, chance: &mut StdRng) -> Fault {
        loop {
            let fault = any(chance);
            let is_possible = match fault.needs() {
                Needs::Lab => self.in_lab,
                Needs::SimCloud => self.simulated,
                _ => true,
            };
            if is_possible && !self.is_double(&fault) {
                return fault;
            }
        }
    }

    /// Some faults come once: each costs a fleet seconds, or there is one disk only.
    fn is_double(&self, fault: &Fault) -> bool {
        let once = matches!(fault, Fault::FullDisk | Fault::Wipe | Fault::Replace(_) | Fault::KillAgent);
        once && self.acts.iter().any(|act| act.fault.kind() == fault.kind())
    }
}

fn millis(chance: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(chance.random_range(from..=to))
}

/// Draws a fault; those that hurt most, most often.
fn any(chance: &mut StdRng) -> Fault {
    let whom = if chance.random_bool(0.6) { Whom::Leader } else { Whom::Follower };
    let reach = if chance.random_bool(0.5) { Reach::Replicas } else { Reach::Everybody };
    match chance.random_range(0..34) {
        0..4 => Fault::Kill(whom),
        4 => Fault::Kill(Whom::All),
        5..8 => Fault::Pause(whom),
        8 => Fault::Pause(Whom::All),
        9..11 => Fault::Cut(Cut::LeaderInMinority, reach),
        11 => Fault::Cut(Cut::LeaderInMajority, reach),
        12 => Fault::Cut(Cut::FromLeader, reach),
        13 => Fault::Cut(Cut::ToLeader, reach),
        14 => Fault::Cut(Cut::AllFromAll, reach),
        15 => Fault::Loss(chance.random_range(5..=40)),
        16 => Fault::Slow(whom, chance.random_range(200..=1_000)),
        17..19 => Fault::FullDisk,
        19..21 => Fault::SlowSync(whom, chance.random_range(20..=500)),
        21..23 => Fault::FailingSync(whom),
        23..25 => Fault::Clock(whom, *JUMPS.choose(chance).unwrap_or(&60)),
        25 => Fault::Wipe,
        26 => Fault::Replace(whom),
        27..29 => Fault::Transfer,
        29 => Fault::KillAgent,
        30 => Fault::KillHome,
        _ => Fault::Cloud(misfortune(chance)),
    }
}

/// Draws what becomes of the cloud's calls. What came to the list later takes nothing from the dice: the rest of the seed's
/// schedule is what it was.
fn misfortune(chance: &mut StdRng) -> Misfortune {
    let mut beside = StdRng::seed_from_u64(chance.clone().random());
    let is_later = beside.random_bool(1.0 / Misfortune::ALL.len() as f64);
    let drawn = Misfortune::DRAWN.choose(chance).copied().unwrap_or(Misfortune::Refuses);
    if is_later { Misfortune::GivesUp } else { drawn }
}

/// Draws how long a fault lasts.
fn lasts(fault: &Fault, chance: &mut StdRng) -> Duration {
    match fault {
        // Mostly about as long as a lease and an election, now and then far longer.
        Fault::Pause(_) if chance.random_bool(0.15) => millis(chance, 3_000, 10_000),
        Fault::Pause(_) => millis(chance, 100, 3_000),
        Fault::Cut(..) => millis(chance, 1_000, 5_000),
        Fault::Transfer => Duration::ZERO,
        Fault::KillAgent => millis(chance, 100, 500),
        Fault::Cloud(_) => millis(chance, 1_500, 4_000),
        _ => millis(chance, 300, 2_500),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::nemesis::KINDS;

    #[test]
    fn a_seed_is_a_schedule() {
        for seed in 0..200 {
            assert_eq!(Schedule::draw(seed).to_string(), Schedule::draw(seed).to_string());
        }
        assert_ne!(Schedule::draw(1).acts, Schedule::draw(2).acts);
    }

    #[test]
    fn every_kind_comes_and_fits_its_fleet() {
        let mut kinds = BTreeSet::new();
        for schedule in (0..500).map(Schedule::draw) {
            assert!(schedule.acts.iter().all(|act| act.at <= act.until), "{schedule}");
            assert!(
                !schedule.acts.is_empty() && (schedule.in_lab || !schedule.needs(Needs::Lab)),
                "{schedule}"
            );
            assert!(schedule.simulated || !schedule.needs(Needs::SimCloud), "{schedule}");
            for (at, act) in schedule.acts.iter().enumerate() {
                let together = schedule.acts[..at].iter().filter(|other| other.until > act.at);
                for other in together {
                    let both = other.fault.harms_one() && act.fault.harms_one();
                    assert!(schedule.fleet == 5 && both, "{schedule}");
                }
            }
            kinds.extend(schedule.acts.iter().map(|act| act.fault.kind()));
        }
        assert_eq!(kinds, BTreeSet::from(KINDS));
    }
}
