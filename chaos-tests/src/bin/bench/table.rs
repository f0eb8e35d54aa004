//! The table of results.

use std::fmt;
use std::time::Duration;

/// Lines of a name and a value, in the order of measuring.
#[derive(Default)]
pub struct Table(Vec<(String, String)>);

impl Table {
    /// Adds a line, and shows it at once: a whole run takes minutes.
    pub fn line(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        println!("{name}: {value}");
        self.0.push((name, value));
    }

    /// Adds a line with a time.
    pub fn time(&mut self, name: impl Into<String>, time: Duration) {
        self.line(name, shown(time));
    }

    /// Adds a line with what is in the middle of some times, and at their end.
    pub fn times(&mut self, name: impl Into<String>, mut times: Vec<Duration>) {
        times.sort();
        let value = match times.last() {
            Some(max) => {
                format!("median {}, max {} of {}", shown(percentile(&times, 50)), shown(*max), times.len())
            }
            None => "nothing measured".into(),
        };
        self.line(name, value);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name:<width$}  {value}"))
    }
}

/// Returns a time as people read it.
pub fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1000.0),
    }
}

/// Returns a percentile of sorted times.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}
