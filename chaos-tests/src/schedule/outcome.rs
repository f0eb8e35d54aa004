//! How a schedule ended, and what was measured.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::checks;

/// Whether what must hold did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it.
    Held,
    /// Not all of it.
    Broken(String),
    /// It can't be said: a fault did not reach its target.
    NotReached(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held"),
            Self::Broken(why) => write!(f, "BROKEN: {why}"),
            Self::NotReached(why) => write!(f, "DID NOT REACH ITS FAULTS: {why}"),
        }
    }
}

/// What was measured while a schedule was played, and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which schedule.
    pub seed: u64,
    /// How many replicas.
    pub fleet: usize,
    /// Over which cloud.
    pub cloud: &'static str,
    /// In which network.
    pub network: &'static str,
    /// The profile by which replicas elected.
    pub timing: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// Faults that were injected and felt, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults that can't be injected on this machine, and why.
    pub left_out: Vec<String>,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Writes per second, all faults included.
    pub writes_per_second: f64,
    /// What 99 of 100 writes took at most.
    pub p99: Duration,
    /// Deploys that were acknowledged.
    pub deploys: u64,
    /// How much each judge looked at.
    pub looked_at: BTreeMap<String, usize>,
    /// For each fault that took the leader away, its kind, and the time from it to the next accepted write. Where all
    /// are hit, the fault's own length is in it.
    pub failovers: Vec<(&'static str, Duration)>,
    /// For each such fault, and for the end: from a leader's being there to its taking up what was open.
    pub resumed: Vec<Duration>,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// Takes note of what was judged.
    pub fn looked_at(&mut self, verdict: &checks::Verdict) {
        for report in &verdict.reports {
            for (noun, count) in &report.looked_at {
                *self.looked_at.entry(format!("{}: {noun}", report.checker)).or_default() += count;
            }
        }
    }

    /// Returns the outcome as one line of JSON.
    pub fn line(&self) -> String {
        let millis = |times: &[Duration]| times.iter().map(|t| t.as_millis() as u64).collect::<Vec<_>>();
        let mut failovers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (kind, time) in &self.failovers {
            failovers.entry(kind).or_default().push(time.as_millis() as u64);
        }
        let value: Value = json!({
            "seed": self.seed,
            "fleet": self.fleet,
            "cloud": self.cloud,
            "network": self.network,
            "timing": self.timing,
            "verdict": self.verdict.to_string(),
            "faults": self.faults,
            "left_out": self.left_out,
            "writes": self.writes,
            "writes_per_second": self.writes_per_second.round(),
            "p99_ms": self.p99.as_millis() as u64,
            "deploys": self.deploys,
            "looked_at": self.looked_at,
            "failover_ms": failovers,
            "resumed_ms": millis(&self.resumed),
            "took_ms": self.took.as_millis() as u64,
        });
        value.to_string()
    }
}
