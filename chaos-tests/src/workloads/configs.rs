//! Writers of configs, each its own, counting: the smallest mutation there is, through a client as patient as an
//! operator's. What is acknowledged must be there; how long it took is what operators feel.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Ground;

/// Pause of a writer between writes: the machine has other things to do than to write.
const WRITE_EVERY: Duration = Duration::from_millis(20);

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Who wrote.
    pub writer: usize,
    /// What: each writer counts.
    pub number: u64,
    /// When it was sent first.
    pub asked: Instant,
    /// When it was acknowledged.
    pub done: Instant,
}

/// Returns the name of the config that a writer writes.
pub fn note(writer: usize) -> String {
    format!("writer-{writer}")
}

/// Writes one number after the other.
pub(super) async fn write(ground: &Ground, writer: usize) -> Result<()> {
    let client = ground.patient(writer)?;
    let mut number = 0;
    while !ground.is_over() {
        number += 1;
        let asked = Instant::now();
        match client.put_config(&note(writer), &format!("text: {number}")).await {
            Ok(_) => {
                let write = Write { writer, number, asked, done: Instant::now() };
                ground.notes().writes.push(write);
            }
            Err(error) => ground.notes().unanswered.push(format!("write {number} of {writer}: {error:#}")),
        }
        ground.pause(WRITE_EVERY).await;
    }
    Ok(())
}
