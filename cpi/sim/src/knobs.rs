//! What may happen to calls and VMs. Times are in milliseconds, chances between 0 and 1.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Between these two, evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// At least this.
    pub min_ms: u64,
    /// At most this.
    pub max_ms: u64,
}

impl Span {
    /// Returns a moment within the span.
    pub(crate) fn pick(&self, chance: &mut impl Rng) -> Duration {
        Duration::from_millis(chance.random_range(self.min_ms..=self.max_ms.max(self.min_ms)))
    }
}

/// What may happen to one call. The chances are looked at in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chances {
    /// How long the call takes.
    pub latency: Span,
    /// It fails, and nothing is done; another try may help.
    pub failure: f64,
    /// Nothing is done, and no answer comes before the caller's timeout, or before the connection breaks.
    pub hang: f64,
    /// How long a connection that hangs lasts; as long as its caller, if not said.
    pub hang_lasts: Option<Span>,
    /// The deed is done, and the answer is lost.
    pub lost_answer: f64,
    /// The caller gets no answer, and the deed is done later: maybe when the caller has long looked for it.
    pub late: f64,
    /// How much later.
    pub late_by: Span,
    /// The question arrives twice: the deed is done twice, and the second answer is the one that is heard.
    pub twice: f64,
}

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Knobs {
    /// Calls whose method has no chances of its own.
    pub calls: Chances,
    /// Calls of certain methods, by name (`create_vm`).
    pub methods: BTreeMap<String, Chances>,
    /// How long a new VM's agent takes to come up.
    pub boot: Span,
    /// How long each action of an agent takes that does something.
    pub action: Span,
    /// A script (`pre-start`) that ends in no VM for as long as it stands here: so nobody has to be quick to find a deploy under way.
    pub held_script: Option<String>,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    Fails,
    /// For so long at most.
    Hangs(Option<Duration>),
    AnswerLost,
    /// The deed comes so much later.
    Late(Duration),
    Twice,
}

impl Fate {
    /// Returns the name under which it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Fails => "failure",
            Self::Hangs(_) => "hang",
            Self::AnswerLost => "lost_answer",
            Self::Late(_) => "late",
            Self::Twice => "twice",
        }
    }
}

impl Knobs {
    /// Decides a call's fate and its latency.
    pub(crate) fn decide(&self, method: &str, chance: &mut impl Rng) -> (Fate, Duration) {
        let chances = self.methods.get(method).unwrap_or(&self.calls);
        let latency = chances.latency.pick(chance);
        // One draw for all: the same seed gives the same fates whichever chances are zero.
        let mut draw: f64 = chance.random_range(0.0..1.0);
        let mut span = |span: &Span| span.pick(chance);
        let (lasts, late_by) = (chances.hang_lasts.as_ref().map(&mut span), span(&chances.late_by));
        let fates = [
            (chances.failure, Fate::Fails),
            (chances.hang, Fate::Hangs(lasts)),
            (chances.lost_answer, Fate::AnswerLost),
            (chances.late, Fate::Late(late_by)),
            (chances.twice, Fate::Twice),
        ];
        for (probability, fate) in fates {
            if draw < probability {
                return (fate, latency);
            }
            draw -= probability;
        }
        (Fate::Answered, latency)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn one_seed_gives_one_history_with_the_wanted_rates() {
        let chances = Chances {
            failure: 0.1,
            hang: 0.05,
            lost_answer: 0.2,
            late: 0.1,
            late_by: Span { min_ms: 5, max_ms: 9 },
            twice: 0.05,
            ..Chances::default()
        };
        let knobs = Knobs { methods: [("create_vm".to_owned(), chances)].into(), ..Knobs::default() };
        let history = |seed| {
            let mut chance = StdRng::seed_from_u64(seed);
            (0..10_000).map(|_| knobs.decide("create_vm", &mut chance).0).collect::<Vec<_>>()
        };
        assert_eq!(history(7), history(7));
        assert_ne!(history(7), history(8));
        let count = |fate: Fate| history(7).iter().filter(|f| f.name() == fate.name()).count();
        assert!((900..1100).contains(&count(Fate::Fails)), "{}", count(Fate::Fails));
        assert!((400..600).contains(&count(Fate::Hangs(None))), "{}", count(Fate::Hangs(None)));
        assert!((1850..2150).contains(&count(Fate::AnswerLost)), "{}", count(Fate::AnswerLost));
        assert!(
            (900..1100).contains(&count(Fate::Late(Duration::ZERO))),
            "{}",
            count(Fate::Late(Duration::ZERO))
        );
        assert!((400..600).contains(&count(Fate::Twice)), "{}", count(Fate::Twice));
        let mut chance = StdRng::seed_from_u64(7);
        assert!((0..1000).all(|_| knobs.decide("delete_vm", &mut chance).0 == Fate::Answered));
    }
}
