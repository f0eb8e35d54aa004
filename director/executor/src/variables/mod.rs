//! Variables: resolving `((references))` at the moment of use, generating values, and pinning versions.
//!
//! A resolved value lives in a request or a rendered file, never in the state, a plan, an event or a log.
//!
//! Read next: `resolve` (which version is seen), `pins` (how it comes to be that one), `generate`, [`values`].

mod generate;
mod pins;
mod resolve;
mod rotation;
pub mod values;

pub use generate::{generate_missing, stand_ins};
pub use pins::{open_set, pin};
pub use resolve::{Resolver, Sight, StandIns};
pub use rotation::rotated;

/// Returns the names of all variables that a text refers to, as written.
pub fn references(text: &str) -> impl Iterator<Item = &str> {
    model::interpolate::placeholders(text).map(|placeholder| model::interpolate::split_keys(placeholder).0)
}
