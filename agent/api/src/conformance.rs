//! Promises that every implementation of [`crate::Agents`] keeps.
