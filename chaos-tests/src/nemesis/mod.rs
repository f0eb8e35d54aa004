//! The nemesis: everything that is done to a fleet, one family of faults per file.
//!
//! A [`Fault`] is a value, drawn beforehand; [`Fault::inject`] does it and gives back a [`Harm`], whose healing also
//! proves that it was felt. What was not felt is an error of its own ([`NotReached`]): a schedule whose faults missed has
//! shown nothing. Deliberately *not* here: when which fault comes ([`crate::schedule`]), and what must hold afterwards.
//!
//! Invariants: one fault leaves a majority of unharmed replicas, unless it is said to be about all of them; whatever is
//! harmed belongs to the story ([`crate::lab`], [`crate::machine`]), never to the host.

pub mod agents;
pub mod clock;
pub mod cloud;
pub mod disk;
mod fault;
mod field;
pub mod kill;
pub mod leadership;
pub mod membership;
pub mod network;
pub mod pause;

use std::fmt;

use anyhow::Result;
use async_trait::async_trait;

pub use self::fault::{Fault, KINDS, Needs};
pub use self::field::Field;

/// To whom something is done. Roles are looked up when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Who leads at that moment.
    Leader,
    /// Some other one.
    Follower,
    /// Every replica.
    All,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "the leader",
            Self::Follower => "a follower",
            Self::All => "all",
        })
    }
}

/// A fault that was injected.
pub struct Injected {
    /// What was done, and to whom.
    pub what: String,
    /// The fleet is to lose its leader by it: it is timed how long nobody can write.
    pub hits_leader: bool,
    /// How to end it.
    pub harm: Box<dyn Harm>,
}

/// A fault that lasts.
#[async_trait(?Send)]
pub trait Harm {
    /// Waits until it was felt, ends it, and tells by what one knows that it was felt. Does not wait until the fleet has
    /// recovered.
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String>;
}

/// A fault did not do what it was meant to.
#[derive(Debug)]
pub struct NotReached(pub String);

impl fmt::Display for NotReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the fault did not reach its target: {}", self.0)
    }
}

impl std::error::Error for NotReached {}

/// A fault that was over as soon as it was done, or that the fleet must mend by itself.
pub(crate) struct Done {
    pub proof: String,
}

#[async_trait(?Send)]
impl Harm for Done {
    async fn heal(self: Box<Self>, _: &mut Field) -> Result<String> {
        Ok(self.proof)
    }
}
