//! Clients that each wait for their answer before they ask again.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use crate::table::{percentile, shown};

/// Time before the measuring begins: connections are made, logins checked, caches filled.
const WARM_UP: Duration = Duration::from_secs(1);

/// Bytes of each value that is written.
pub const VALUE_BYTES: usize = 256;

/// One client: writes a value that it has not written before, or reads.
pub trait Writer {
    /// Asks and waits for the answer.
    async fn write(&mut self, number: u64) -> Result<()>;
}

/// What a load gave.
pub struct Load {
    /// Answers per second.
    pub rate: f64,
    middle: Duration,
    end: Duration,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (middle, end) = (shown(self.middle), shown(self.end));
        write!(f, "{:>7.0}/s   p50 {middle:>9}   p99 {end:>9}", self.rate)
    }
}

/// Lets all clients write for so long.
pub async fn run(writers: Vec<impl Writer>, seconds: u64) -> Result<Load> {
    let begun = Instant::now();
    let (from, to) = (begun + WARM_UP, begun + WARM_UP + Duration::from_secs(seconds));
    let clients = writers.into_iter().map(|writer| client(writer, from, to));
    let mut times: Vec<Duration> = try_join_all(clients).await?.into_iter().flatten().collect();
    times.sort();
    let rate = times.len() as f64 / seconds as f64;
    Ok(Load { rate, middle: percentile(&times, 50), end: percentile(&times, 99) })
}

async fn client(mut writer: impl Writer, from: Instant, to: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 0.. {
        let asked = Instant::now();
        if asked >= to {
            break;
        }
        writer.write(number).await?;
        if asked >= from {
            times.push(asked.elapsed());
        }
    }
    Ok(times)
}

/// Returns a value that no other client writes, nor this one again.
pub fn value(client: usize, number: u64) -> String {
    let mut text = format!("text: {client}-{number}-");
    text.push_str(&"x".repeat(VALUE_BYTES - text.len()));
    text
}
