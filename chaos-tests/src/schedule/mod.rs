//! A schedule: what is done to a fleet, and when, while it works. The same seed is the same schedule, to the letter.
//!
//! [`Schedule::draw`] makes one out of a number, [`run()`] plays it on a fleet of real processes, heals everything, and
//! demands that the fleet goes on and has lost nothing. Deliberately *not* here: how a fault is done ([`crate::nemesis`]).
//! The order in which real processes do things is not in the seed: a failure comes with its logs.

mod demand;
mod draw;
mod outcome;
mod run;

use std::fmt;
use std::time::Duration;

pub use self::outcome::{Outcome, Verdict};
pub use self::run::{Conditions, run};
use crate::nemesis::{Fault, Needs};
use crate::workloads::Mix;

/// One fault: when it comes after the load has begun, and when it is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// When it comes.
    pub at: Duration,
    /// When it is healed.
    pub until: Duration,
    /// What it is.
    pub fault: Fault,
}

/// A schedule, as drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Where all of it comes from.
    pub seed: u64,
    /// How many replicas.
    pub fleet: usize,
    /// The cloud is the simulated one; else processes on this machine are its VMs.
    pub simulated: bool,
    /// In a laboratory's network; else on loopback.
    pub in_lab: bool,
    /// What the fleet is asked to do.
    pub mix: Mix,
    /// What is done to it, in the order of coming.
    pub acts: Vec<Act>,
}

impl Schedule {
    /// Takes out what can't be done on this machine, and returns what that was and why.
    pub fn leave_out_impossible(&mut self) -> Vec<String> {
        let possible = Possible::look();
        let mut left_out = Vec::new();
        self.acts.retain(|act| match possible.why_not(act.fault.needs()) {
            Some(why) => {
                left_out.push(format!("{}: {why}", act.fault.kind()));
                false
            }
            None => true,
        });
        self.in_lab &= possible.lab.is_none();
        left_out
    }

    /// Returns whether some fault needs this.
    pub fn needs(&self, need: Needs) -> bool {
        self.acts.iter().any(|act| act.fault.needs() == need)
    }
}

/// What can be done on this machine, and why not.
struct Possible {
    lab: Option<String>,
    small_disk: bool,
    preload: bool,
}

impl Possible {
    fn look() -> Self {
        Self {
            lab: crate::lab::missing(),
            small_disk: crate::machine::SmallDisk::is_possible(),
            preload: crate::needs::Need::Gcc.is_met(),
        }
    }

    fn why_not(&self, needs: Needs) -> Option<String> {
        match needs {
            Needs::Lab => self.lab.clone(),
            Needs::SmallDisk => (!self.small_disk).then(|| "a disk of its own needs root".into()),
            Needs::Preload => (!self.preload).then(|| "there is no `gcc` here".into()),
            Needs::SimCloud | Needs::Nothing => None,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cloud = if self.simulated { "simulated cloud" } else { "local cloud" };
        let network = if self.in_lab { "laboratory network" } else { "loopback" };
        let Mix { register_clients, registers, writers, watchers, deployments, instances_max, uploaders } =
            self.mix;
        writeln!(f, "seed {}: a fleet of {}, {cloud}, {network}", self.seed, self.fleet)?;
        writeln!(
            f,
            "  load: {register_clients} clients of {registers} registers, {writers} writers, {watchers} watchers, \
             {uploaders} uploaders, {deployments} deployments of up to {instances_max} instances"
        )?;
        for Act { at, until, fault } in &self.acts {
            let (at, until) = (at.as_secs_f64(), until.as_secs_f64());
            writeln!(f, "  {at:6.2} s to {until:6.2} s  {fault}")?;
        }
        Ok(())
    }
}
