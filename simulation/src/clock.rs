//! The time of the simulated world, in milliseconds since it began.

use std::sync::atomic::{AtomicU64, Ordering};

use model::Timestamp;

/// A process simulates one world, and whatever stamps something reads its clock from here.
static NOW_MS: AtomicU64 = AtomicU64::new(0);

/// What people's clocks show when the world begins.
const BEGINNING_MS: i64 = 1_700_000_000_000;

/// Sets the world's time.
pub fn set(now_ms: u64) {
    NOW_MS.store(now_ms, Ordering::Relaxed);
}

/// Returns the world's time.
pub fn now_ms() -> u64 {
    NOW_MS.load(Ordering::Relaxed)
}

/// Returns what people's clocks show.
pub fn timestamp() -> Timestamp {
    Timestamp(BEGINNING_MS + now_ms() as i64)
}

/// Returns the world's time, in microseconds, at which people's clocks showed this.
pub fn since_beginning_us(shown: Timestamp) -> u64 {
    u64::try_from(shown.0 - BEGINNING_MS).unwrap_or_default() * 1000
}
