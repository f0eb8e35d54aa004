//! The table at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chaos_tests::nemesis::KINDS;
use chaos_tests::schedule::{Outcome, Verdict};

/// What all schedules together showed.
pub struct Summary<'a>(pub &'a [Outcome]);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcomes = self.0;
        let count = |is: &dyn Fn(&Verdict) -> bool| outcomes.iter().filter(|o| is(&o.verdict)).count();
        let held = count(&|v| *v == Verdict::Held);
        let missed = count(&|v| matches!(v, Verdict::NotReached(_)));
        writeln!(f, "schedules: {}, held: {held}, faults not reached: {missed}", outcomes.len())?;
        let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, number) in outcomes.iter().flat_map(|o| &o.faults) {
            *faults.entry(kind).or_default() += number;
        }
        writeln!(f, "faults: {}", faults.values().sum::<u64>())?;
        for kind in KINDS {
            writeln!(f, "  {kind:<32} {:>5}", faults.get(kind).copied().unwrap_or_default())?;
        }
        let writes: u64 = outcomes.iter().map(|o| o.writes).sum();
        let deploys: u64 = outcomes.iter().map(|o| o.deploys).sum();
        writeln!(f, "acknowledged: {writes} writes, {deploys} deploys")?;
        for kind in KINDS {
            let of_kind = outcomes.iter().flat_map(|o| &o.failovers).filter(|(name, _)| *name == kind);
            let found: Vec<Duration> = of_kind.map(|(_, time)| *time).collect();
            if !found.is_empty() {
                times(f, &format!("{kind} -> next write"), found)?;
            }
        }
        let resumed = outcomes.iter().flat_map(|o| &o.resumed).copied().collect();
        times(f, "leader there -> open tasks taken up", resumed)?;
        for outcome in outcomes.iter().filter(|o| o.verdict != Verdict::Held) {
            writeln!(f, "seed {}: {}", outcome.seed, outcome.verdict)?;
        }
        Ok(())
    }
}

fn times(f: &mut fmt::Formatter<'_>, name: &str, mut times: Vec<Duration>) -> fmt::Result {
    times.sort();
    let Some(last) = times.last() else { return writeln!(f, "{name}: nothing measured") };
    let at = |percent: usize| times[((times.len() - 1) * percent).div_ceil(100)].as_secs_f64();
    let max = last.as_secs_f64();
    writeln!(f, "{name}: median {:.2} s, p90 {:.2} s, max {max:.2} s of {}", at(50), at(90), times.len())
}
