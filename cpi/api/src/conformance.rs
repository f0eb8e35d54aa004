//! Promises that every [`crate::Cpi`] keeps.
