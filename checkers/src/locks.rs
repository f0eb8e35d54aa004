//! A lock has one holder, and nothing is done under it by one whose successor has begun.
//!
//! A holder is a task, under the epoch of the leader that works on it: the two are its [`Token`]. A leader follows one of
//! a lower epoch. Where tasks stand in line from the beginning, a lock goes from lower to higher ones as well; where they
//! ask for it on their way, any order is fine ([`Order`]). A token that comes back after a greater one is a holder from
//! the past, which no fence has stopped.
//!
//! The events are taken in the order in which they happened. Who holds a lock may be told by the moment it was taken
//! ([`What::Taken`]) or by somebody who looked ([`What::Seen`]), as often as he likes.

use std::collections::BTreeMap;
use std::fmt;

use crate::Findings;

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// The task.
    pub task: u64,
    /// The epoch of the leader that works on it; zero where nobody knows it.
    pub epoch: u64,
}

/// In which order tasks get a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// They stand in line from the moment they exist: a lower one is never after a higher.
    InLine,
    /// They ask for it on their way.
    AsTheyCome,
}

/// Something that concerns a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When; for people.
    pub at_us: u64,
    /// Its name.
    pub lock: String,
    /// Who.
    pub by: Token,
    /// What.
    pub what: What,
}

/// What can concern a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The holder got it, or its next leader went on with it.
    Taken,
    /// Somebody looked and saw this holder.
    Seen,
    /// The holder gave it back.
    Released,
    /// Something was done that only the holder may do.
    Deed(String),
}

/// What is wrong about a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The number of the event with which it went wrong.
    pub event: usize,
    /// When that was.
    pub at_us: u64,
    /// The lock.
    pub lock: String,
    /// Who did it.
    pub by: Token,
    /// What is wrong.
    pub what: Wrong,
}

/// The ways to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It was taken while another task held it.
    TwoHolders {
        /// The one that held it.
        holder: Token,
    },
    /// It was held by one that comes before one that had held it.
    WentBack {
        /// The greatest one that had held it.
        after: Token,
    },
    /// Something was done by one whose successor had begun.
    DeedAfterSuccessor {
        /// What was done.
        deed: String,
        /// The successor.
        successor: Token,
    },
    /// Something was done by one that did not hold it.
    DeedWithoutLock {
        /// What was done.
        deed: String,
    },
    /// It was given back by one that did not hold it.
    ReleasedByAnother {
        /// The one that held it, if any did.
        holder: Option<Token>,
    },
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} (epoch {})", self.task, self.epoch)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, at_us, lock, by, what } = self;
        write!(f, "lock `{lock}`, event {event} at {at_us} µs: {by} ")?;
        match what {
            Wrong::TwoHolders { holder } => write!(f, "has it while {holder} holds it"),
            Wrong::WentBack { after } => write!(f, "has it after {after} had it"),
            Wrong::DeedAfterSuccessor { deed, successor } => {
                write!(f, "did `{deed}` after {successor} had begun")
            }
            Wrong::DeedWithoutLock { deed } => write!(f, "did `{deed}` without holding it"),
            Wrong::ReleasedByAnother { holder: Some(holder) } => {
                write!(f, "gave it back while {holder} held it")
            }
            Wrong::ReleasedByAnother { holder: None } => write!(f, "gave it back, but nobody held it"),
        }
    }
}

/// What is known of a lock at a moment.
#[derive(Default)]
struct Lock {
    holder: Option<Token>,
    greatest: Option<Token>,
}

/// Judges events in the order in which they happened; `order` tells it of a lock by its name.
pub fn check(events: &[Event], order: impl Fn(&str) -> Order) -> Findings<Violation> {
    let mut findings = Findings::default();
    let mut locks: BTreeMap<&str, Lock> = BTreeMap::new();
    let mut deeds = 0;
    for (number, event) in events.iter().enumerate() {
        deeds += usize::from(matches!(event.what, What::Deed(_)));
        let wrong = locks.entry(&event.lock).or_default().next(event, order(&event.lock));
        findings.violations.extend(wrong.map(|what| Violation {
            event: number,
            at_us: event.at_us,
            lock: event.lock.clone(),
            by: event.by,
            what,
        }));
    }
    findings.looked_at = vec![("locks", locks.len()), ("events", events.len()), ("deeds", deeds)];
    findings
}

impl Lock {
    /// Takes an event in; returns what is wrong with it.
    fn next(&mut self, event: &Event, order: Order) -> Option<Wrong> {
        let by = event.by;
        let past = self.greatest.filter(|greatest| match order {
            Order::InLine => by < *greatest,
            Order::AsTheyCome => by.epoch < greatest.epoch,
        });
        match &event.what {
            What::Taken | What::Seen => {
                // One who looks may have missed that the one before gave it back.
                let other = self.holder.filter(|holder| holder.task != by.task && event.what == What::Taken);
                self.holder = Some(by);
                // Of those that come as they like, the newest is the one to compare with, unless it is from the past.
                self.greatest = if past.is_some() { self.greatest } else { Some(by) };
                past.map(|after| Wrong::WentBack { after })
                    .or(other.map(|holder| Wrong::TwoHolders { holder }))
            }
            What::Released => {
                let holder = self.holder;
                self.holder = self.holder.filter(|holder| holder.task != by.task);
                let is_holder = holder.is_some_and(|holder| holder.task == by.task);
                (!is_holder).then_some(Wrong::ReleasedByAnother { holder })
            }
            What::Deed(deed) => {
                let deed = deed.clone();
                match (past, self.holder) {
                    (Some(successor), _) => Some(Wrong::DeedAfterSuccessor { deed, successor }),
                    (None, Some(holder)) if holder == by => None,
                    (None, Some(successor)) => Some(Wrong::DeedAfterSuccessor { deed, successor }),
                    (None, None) => Some(Wrong::DeedWithoutLock { deed }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TASK.EPOCH take|see|free|do`, all on one lock.
    fn found(script: &str) -> Vec<(usize, Wrong)> {
        found_in(Order::InLine, script)
    }

    fn found_in(order: Order, script: &str) -> Vec<(usize, Wrong)> {
        check(&events("l", script), |_| order)
            .violations
            .into_iter()
            .map(|found| (found.event, found.what))
            .collect()
    }

    fn events(lock: &str, script: &str) -> Vec<Event> {
        let event = |(number, text): (usize, &str)| {
            let (by, what) = text.trim().split_once(' ').unwrap();
            let (task, epoch) = by.split_once('.').unwrap();
            let what = match what {
                "take" => What::Taken,
                "see" => What::Seen,
                "free" => What::Released,
                deed => What::Deed(deed.to_owned()),
            };
            Event { at_us: number as u64, lock: lock.to_owned(), by: token(task, epoch), what }
        };
        script.split('|').enumerate().map(event).collect()
    }

    fn token(task: &str, epoch: &str) -> Token {
        Token { task: task.parse().unwrap(), epoch: epoch.parse().unwrap() }
    }

    const ONE: Token = Token { task: 1, epoch: 7 };
    const TWO: Token = Token { task: 2, epoch: 7 };

    #[test]
    fn holders_one_after_the_other_are_fine_and_so_is_a_task_that_a_new_leader_goes_on_with() {
        assert_eq!(found("1.7 take | 1.7 boil | 1.7 free | 2.7 take | 2.7 boil | 2.7 free"), []);
        assert_eq!(found("1.7 take | 1.7 boil | 1.9 take | 1.9 boil | 1.9 free | 2.9 take"), []);
        assert_eq!(found("1.7 see | 1.7 see | 3.7 see | 3.9 see"), []);
    }

    #[test]
    fn two_holders_at_once_are_named() {
        assert_eq!(found("1.7 take | 2.7 take"), [(1, Wrong::TwoHolders { holder: ONE })]);
        // In the wrong order, that is the first thing to say.
        assert_eq!(found("2.7 take | 1.7 take"), [(1, Wrong::WentBack { after: TWO })]);
    }

    #[test]
    fn a_token_does_not_come_back() {
        let back = Wrong::WentBack { after: TWO };
        assert_eq!(found("1.7 take | 1.7 free | 2.7 take | 2.7 free | 1.7 take"), [(4, back.clone())]);
        assert_eq!(found("1.7 see | 2.7 see | 1.7 see"), [(2, back)]);
        let older_epoch = Wrong::WentBack { after: Token { task: 1, epoch: 9 } };
        assert_eq!(found("1.9 take | 1.7 take"), [(1, older_epoch)]);
    }

    #[test]
    fn nothing_is_done_after_a_successor_has_begun() {
        let deed = "boil".to_owned();
        let late = Wrong::DeedAfterSuccessor { deed: deed.clone(), successor: TWO };
        assert_eq!(found("1.7 take | 1.7 free | 2.7 take | 1.7 boil"), [(3, late)]);
        let successor = Token { task: 1, epoch: 9 };
        let paused = Wrong::DeedAfterSuccessor { deed: deed.clone(), successor };
        assert_eq!(found("1.7 take | 1.9 take | 1.7 boil | 1.9 boil"), [(2, paused)]);
        let without = Wrong::DeedWithoutLock { deed };
        assert_eq!(found("1.7 take | 1.7 free | 1.7 boil"), [(2, without.clone())]);
        assert_eq!(found("1.7 boil"), [(0, without)]);
    }

    #[test]
    fn where_tasks_come_as_they_like_a_lower_one_may_follow_but_not_a_leader_of_the_past() {
        let found = |script| found_in(Order::AsTheyCome, script);
        assert_eq!(found("2.7 take | 2.7 free | 1.7 take | 1.7 boil | 1.7 free | 3.9 take"), []);
        assert_eq!(found("2.7 see | 1.7 see | 2.7 see"), []);
        assert_eq!(found("2.7 take | 1.7 take"), [(1, Wrong::TwoHolders { holder: TWO })]);
        let after = Token { task: 1, epoch: 9 };
        assert_eq!(
            found("2.7 take | 2.7 free | 1.9 take | 1.9 free | 2.7 take"),
            [(4, Wrong::WentBack { after })]
        );
        let late = Wrong::DeedAfterSuccessor { deed: "boil".into(), successor: ONE };
        assert_eq!(found("2.7 take | 2.7 free | 1.7 take | 2.7 boil"), [(3, late)]);
    }

    #[test]
    fn only_the_holder_gives_it_back() {
        assert_eq!(found("1.7 free"), [(0, Wrong::ReleasedByAnother { holder: None })]);
        let holder = Some(ONE);
        assert_eq!(found("1.7 take | 2.7 free | 1.7 boil"), [(1, Wrong::ReleasedByAnother { holder })]);
    }

    #[test]
    fn locks_are_judged_apart() {
        let mut both = events("a", "2.7 take");
        both.extend(events("b", "1.7 take"));
        let found = check(&both, |_| Order::InLine);
        assert!(found.holds());
        assert_eq!(found.looked_at, [("locks", 2), ("events", 2), ("deeds", 0)]);
    }

    #[test]
    fn is_told_to_people() {
        let events = events("deployment/web", "2.7 take | 1.7 delete_vm");
        assert_eq!(
            check(&events, |_| Order::InLine).violations[0].to_string(),
            "lock `deployment/web`, event 1 at 1 µs: task 1 (epoch 7) did `delete_vm` after task 2 (epoch 7) had begun"
        );
    }
}
