//! The cloud has a bad time: the simulated one only, real ones do not do it when told.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use cpi_sim::{Chances, Knobs, Span};

use super::{Field, Harm, Injected};
use crate::workload::Hello;

/// How many of the calls meet with it, if not all of them do.
const CHANCE: f64 = 0.4;

/// How many of the creations meet with it: there are far fewer of those.
const CREATION_CHANCE: f64 = 0.7;

/// A deployment that only gives the cloud something to do.
const ERRAND: &str = "errand";

/// How often it is deployed, now with one instance, now with two.
const ERRAND_EVERY: Duration = Duration::from_secs(4);

/// What happens to calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfortune {
    /// Nothing is done, and it is said.
    Refuses,
    /// Nothing is done, and nothing said; after a while the connection breaks.
    Hangs,
    /// Calls take seconds; the deed is done and answered at their end.
    IsLate,
    /// The deed is done twice, and the second answer is the one that is heard.
    AnswersTwice,
    /// The deed is done, and the answer is lost.
    LosesAnswers,
    /// The caller of what makes VMs and disks is told nothing; seconds later they are made, whoever has looked by then.
    GivesUp,
}

impl Misfortune {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Refuses, Self::Hangs, Self::IsLate, Self::AnswersTwice, Self::LosesAnswers, Self::GivesUp];

    /// Those that one draw decides between; the last one is drawn beside them.
    pub const DRAWN: [Self; 5] =
        [Self::Refuses, Self::Hangs, Self::IsLate, Self::AnswersTwice, Self::LosesAnswers];

    /// Returns the name under which the cloud counts it.
    fn fate(self) -> &'static str {
        match self {
            Self::Refuses => "failure",
            Self::Hangs => "hang",
            Self::IsLate => "answered",
            Self::AnswersTwice => "twice",
            Self::LosesAnswers => "lost_answer",
            Self::GivesUp => "late",
        }
    }

    fn knobs(self, calm: &Knobs) -> Knobs {
        let span = |min_ms, max_ms| Span { min_ms, max_ms };
        let calls = calm.calls;
        let calls = match self {
            Self::Refuses => Chances { failure: CHANCE, ..calls },
            Self::Hangs => Chances { hang: CHANCE, hang_lasts: Some(span(300, 3000)), ..calls },
            Self::IsLate => Chances { latency: span(1000, 5000), ..calls },
            Self::AnswersTwice => Chances { twice: CHANCE, ..calls },
            Self::LosesAnswers => Chances { lost_answer: CHANCE, ..calls },
            Self::GivesUp => {
                let late = Chances { late: CREATION_CHANCE, late_by: span(500, 6000), ..calls };
                let methods = ["create_vm", "create_disk"].map(|method| (method.to_owned(), late));
                return Knobs { methods: methods.into(), ..calm.clone() };
            }
        };
        Knobs { calls, ..calm.clone() }
    }
}

impl fmt::Display for Misfortune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuses => "refuses",
            Self::Hangs => "hangs",
            Self::IsLate => "answers late",
            Self::AnswersTwice => "answers twice",
            Self::LosesAnswers => "fails after it did the deed",
            Self::GivesUp => "makes what it has given up",
        })
    }
}

/// Turns the knobs; the proof is that calls met with it.
pub async fn inject(field: &mut Field, misfortune: Misfortune) -> Result<Injected> {
    let control = field.cluster.sim().control();
    let before = count(field, misfortune).await?;
    control.set_knobs(misfortune.knobs(&field.calm)).await?;
    let what = format!("the cloud {misfortune}");
    Ok(Injected { what, hits_leader: false, harm: Box::new(BadTime { misfortune, before }) })
}

async fn count(field: &Field, misfortune: Misfortune) -> Result<u64> {
    let fates = field.cluster.sim().control().statistics().await?.fates;
    Ok(fates.get(misfortune.fate()).copied().unwrap_or_default())
}

struct BadTime {
    misfortune: Misfortune,
    before: u64,
}

#[async_trait(?Send)]
impl Harm for BadTime {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let Self { misfortune, before } = *self;
        let client = field.cluster.client()?;
        let (mut asked, mut last) = (0, None);
        let was = async |field: &mut Field| {
            let is_felt = count(field, misfortune).await? > before;
            let is_time = last.is_none_or(|last: Instant| last.elapsed() > ERRAND_EVERY);
            if !is_felt && is_time {
                // Who waits for a dead agent asks nothing of the cloud. So something else is wanted of it.
                (asked, last) = (asked + 1, Some(Instant::now()));
                let hello = Hello { name: ERRAND.into(), instances: 1 + asked % 2, ..Hello::default() };
                client.deploy(&hello.manifest(), &dctl::client::request_id()).await?;
            }
            Ok(is_felt)
        };
        let felt = field.felt("a call of the cloud meets with it", was).await;
        let met = count(field, misfortune).await? - before;
        field.cluster.sim().control().set_knobs(field.calm.clone()).await?;
        felt.map(|()| format!("{met} calls met with it"))
    }
}
