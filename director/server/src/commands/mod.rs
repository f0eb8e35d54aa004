//! What the program does besides running.

pub mod init;
pub mod join;
