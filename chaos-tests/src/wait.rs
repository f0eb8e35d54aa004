//! Waiting for conditions.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something to see, and returns it; says what it waited for, and what it saw last, if `limit` is over.
///
/// An error counts as "not yet": a fleet that has just lost its leader answers with errors for a while.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let mut last = None;
    while begun.elapsed() < limit {
        match tokio::time::timeout(limit.saturating_sub(begun.elapsed()), look()).await {
            Ok(Ok(Some(seen))) => return Ok(seen),
            Ok(Ok(None)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_) => break,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let complaint = format!("waited {} s in vain until {what}", limit.as_secs());
    match last {
        Some(error) => Err(error).context(complaint),
        None => anyhow::bail!(complaint),
    }
}

/// Waits until a condition holds.
pub async fn until_true(
    what: &str,
    limit: Duration,
    mut holds: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    until(what, limit, async || Ok(holds().await?.then_some(()))).await
}
