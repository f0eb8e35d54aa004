//! What the tests of this crate share.

pub mod people;
pub mod replica;
/// Builders of the state's nouns, as the state's own tests use them.
#[path = "../../state/tests/common/mod.rs"]
pub mod state;
