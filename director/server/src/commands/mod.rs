//! What the program does besides running.

mod alone;
pub mod init;
pub mod join;
pub mod recover;
pub mod repair;
pub mod restore;

pub use alone::{member_of, own_names};
