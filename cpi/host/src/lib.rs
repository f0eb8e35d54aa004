//! What all clouds on this machine have in common, whatever their VMs are: several replicas act on one directory.
//!
//! A call of one replica must neither meet one of another half-way nor act after its leader has been replaced. That rests
//! on locks that die with their holder ([`NamedLock`]), on the highest epoch that any replica has heard from
//! ([`SharedDir`]), and on asking both again once a lock is held ([`Scope`]).

mod call;
mod dir;
mod error;
mod lock;
pub mod records;
mod scope;

pub use call::{CallError, LockWaits, carry_out};
pub use dir::SharedDir;
pub use error::{Chain, HostError};
pub use lock::NamedLock;
pub use scope::{Scope, Waiter};
