//! The replicated state (being built).
pub mod command;
pub mod kv;
pub mod records;
