//! Bugs that this program does not have, one of which a test can give it: a proof that finds nothing is worth something
//! only if it would have found these (`docs/chaos.md`).
//!
//! Each place that would be wrong asks [`is`]. Without the feature `armed`, which only the simulation turns on, that is
//! `false` when the program is compiled, and nothing of this is left in it. Cargo gives a feature to everything that is
//! built together, so `make demo` and `make install` build the programs by themselves.

/// A bug that somebody's consensus, or somebody's director, has really had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The log acknowledges what it has not synced.
    AckBeforeFsync,
    /// A vote, and a copy of an entry, counts although its replica did not answer: the quorum is one too small.
    QuorumOffByOne,
    /// The state and its position are two writes.
    StateAndPositionApart,
    /// An agent takes requests of leaders that are over.
    AgentForgetsEpoch,
    /// A step is recorded as begun after it is done.
    IntentAfterDeed,
    /// A VM whose creation was broken off is asked for again without looking.
    CreateVmBlindly,
    /// Whether it still leads, a leader looks up once in a while.
    StaleLease,
    /// A replica that gets a snapshot knows no request that was answered before.
    AnswersForgottenAtSnapshot,
    /// A watcher whose revision is compacted is not told so: it gets the oldest changes that there are.
    WatchSkipsCompaction,
    /// Who takes agents over does not listen first: how long it has known of them counts as silence.
    ShardWithoutGrace,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::AckBeforeFsync,
        Self::QuorumOffByOne,
        Self::StateAndPositionApart,
        Self::AgentForgetsEpoch,
        Self::IntentAfterDeed,
        Self::CreateVmBlindly,
        Self::StaleLease,
        Self::AnswersForgottenAtSnapshot,
        Self::WatchSkipsCompaction,
        Self::ShardWithoutGrace,
    ];

    /// Returns what it is called on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::QuorumOffByOne => "quorum-off-by-one",
            Self::StateAndPositionApart => "state-and-position-apart",
            Self::AgentForgetsEpoch => "agent-forgets-epoch",
            Self::IntentAfterDeed => "intent-after-deed",
            Self::CreateVmBlindly => "create-vm-blindly",
            Self::StaleLease => "stale-lease",
            Self::AnswersForgottenAtSnapshot => "answers-forgotten-at-snapshot",
            Self::WatchSkipsCompaction => "watch-skips-compaction",
            Self::ShardWithoutGrace => "shard-without-grace",
        }
    }

    /// Returns the bug of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

/// Names the bug that this process is to have. Read once.
pub const VARIABLE: &str = "DIRECTORATE_KNOWN_BUG";

/// Returns whether this process has `bug`.
#[cfg(feature = "armed")]
pub fn is(bug: Bug) -> bool {
    static HAS: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *HAS.get_or_init(|| Bug::named(&std::env::var(VARIABLE).ok()?)) == Some(bug)
}

/// Returns whether this process has `bug`: it has none.
#[cfg(not(feature = "armed"))]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_found_by_its_name() {
        for bug in Bug::ALL {
            assert_eq!(Bug::named(bug.name()), Some(bug));
        }
        assert_eq!(Bug::named("none"), None);
    }
}
