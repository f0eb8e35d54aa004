//! The nouns of Directorate: what the other crates speak about.
//!
//! Deliberately *not* here: how anything is stored, decided, sent or done. No clock, no chance, no I/O: a value of this
//! crate means the same on every replica. What is written into the log only ever gains optional fields and new
//! variants at the end.
//!
//! Read next: [`instance`] (what a deployment consists of), [`plan`] and [`step`] (what a task does), [`task`].

pub mod agent_settings;
pub mod cloud_config;
pub mod config;
pub mod cpi_config;
pub mod dns;
pub mod dynamic_disk;
pub mod error_code;
pub mod export;
pub mod fields;
pub mod ids;
pub mod instance;
pub mod interpolate;
pub mod ip;
pub mod link;
pub mod managed_network;
pub mod manifest;
pub mod plan;
pub mod problem;
pub mod release;
pub mod runtime_config;
pub mod sealed;
pub mod snapshot;
mod ssh;
pub mod stemcell;
pub mod step;
pub mod task;
pub mod version;
pub mod yaml;

pub use error_code::ErrorCode;
pub use ids::*;
