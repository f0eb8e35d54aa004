//! What an agent does with a request, given what it remembers: the rule alone, as values. Whoever is an agent asks here, the
//! program in the VMs as well as those that tests and simulations have.
//!
//! Not here: where it is remembered, and doing what was asked.

use known_bugs::Bug;
use model::Epoch;

use crate::Mode;

/// The request or cancellation is an older leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The newest epoch that the agent has heard of.
    pub current: Epoch,
}

/// Returns the epoch that the agent knows after it has heard `asked`. It must be remembered, for good, before anything is
/// done: an older leader must not get through after a restart of the agent.
pub fn admit(known: Epoch, asked: Epoch) -> Result<Epoch, Stale> {
    if asked < known && !known_bugs::is(Bug::AgentForgetsEpoch) {
        return Err(Stale { current: known });
    }
    Ok(known.max(asked))
}

/// What an agent knows of a request's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<W, E> {
    /// Nothing.
    Nothing,
    /// It is under way, as this work.
    Running(W),
    /// It began, and the agent was restarted before it ended; it may not be done again.
    Interrupted,
    /// It ended like this.
    Ended(E),
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<W, E> {
    /// It begins.
    New,
    /// It is under way already: whoever asks waits for that.
    Running(W),
    /// It is answered from the record.
    Ended(E),
    /// It may be done, in part or not at all, and is not done again.
    Interrupted,
    /// Only its result was wanted, and there is none.
    Unknown,
}

/// Decides what is done with a request whose epoch was admitted.
pub fn standing<W, E>(known: Known<W, E>, mode: Mode) -> Standing<W, E> {
    match (known, mode) {
        (Known::Running(work), _) => Standing::Running(work),
        (Known::Ended(ending), _) => Standing::Ended(ending),
        (Known::Interrupted, Mode::Submit) => Standing::Interrupted,
        (Known::Interrupted | Known::Nothing, Mode::Attach) => Standing::Unknown,
        (Known::Nothing, Mode::Submit) => Standing::New,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_epoch_is_remembered_and_older_ones_are_refused() {
        assert_eq!(admit(Epoch(3), Epoch(3)), Ok(Epoch(3)));
        assert_eq!(admit(Epoch(3), Epoch(5)), Ok(Epoch(5)));
        assert_eq!(admit(Epoch(5), Epoch(3)), Err(Stale { current: Epoch(5) }));
    }

    #[test]
    fn only_what_is_unknown_begins_and_what_is_attached_to_never_does() {
        let of = |known: Known<u8, &'static str>| {
            [Mode::Submit, Mode::Attach].map(|mode| standing(known.clone(), mode))
        };
        assert_eq!(of(Known::Nothing), [Standing::New, Standing::Unknown]);
        assert_eq!(of(Known::Running(7)), [Standing::Running(7), Standing::Running(7)]);
        assert_eq!(of(Known::Ended("done")), [Standing::Ended("done"), Standing::Ended("done")]);
        assert_eq!(of(Known::Interrupted), [Standing::Interrupted, Standing::Unknown]);
    }
}
