//! Variables: resolving `((references))` at the moment of use, and generating values.
//!
//! A resolved value lives in a request or a rendered file, never in the state, a plan, an event or a log.

mod generate;
mod placeholder;
mod resolve;

pub use generate::{generate_missing, stand_ins};
pub use resolve::{Resolver, StandIns};

/// Returns the names of all variables that a text refers to.
pub fn references(text: &str) -> Vec<String> {
    let names = placeholder::pieces(text).into_iter().filter_map(|piece| match piece {
        placeholder::Piece::Reference(reference) => Some(reference.name),
        placeholder::Piece::Text(_) => None,
    });
    names.collect()
}
