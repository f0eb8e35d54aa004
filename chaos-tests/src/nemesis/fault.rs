//! What can be drawn, and what each fault needs of the machine.

use std::fmt;

use anyhow::Result;

use super::cloud::Misfortune;
use super::network::{Cut, Reach};
use super::{
    Field, Injected, Whom, agents, clock, cloud, disk, kill, leadership, membership, network, pause,
};

/// A fault, as drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; started again when healed.
    Kill(Whom),
    /// SIGSTOP; SIGCONT when healed.
    Pause(Whom),
    /// Packets between some replicas vanish.
    Cut(Cut, Reach),
    /// So many packets of a hundred between replicas vanish.
    Loss(u8),
    /// The cable of a replica takes so many kilobits a second.
    Slow(Whom, u32),
    /// A replica's disk is full to the last byte.
    FullDisk,
    /// Each sync takes so many milliseconds longer.
    SlowSync(Whom, u32),
    /// Syncs fail.
    FailingSync(Whom),
    /// The clock jumps so many seconds, and back.
    Clock(Whom, i32),
    /// A follower loses its disk, and joins anew.
    Wipe,
    /// A member is removed, and another one joins.
    Replace(Whom),
    /// Leadership is moved.
    Transfer,
    /// An agent dies with everything in its VM.
    KillAgent,
    /// The replica at which agents are homed dies; started again when healed.
    KillHome,
    /// The cloud has a bad time.
    Cloud(Misfortune),
}

/// What of a machine a fault needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing that not everybody has.
    Nothing,
    /// A laboratory's network.
    Lab,
    /// A disk of its own for a replica.
    SmallDisk,
    /// Libraries of ours, loaded before the replica's: a C compiler.
    Preload,
    /// The simulated cloud.
    SimCloud,
}

/// Names of all kinds, for tables.
pub const KINDS: [&str; 20] = [
    "kill leader",
    "kill follower",
    "kill all",
    "pause",
    "partition, leader in minority",
    "partition, leader in majority",
    "partition, one-way",
    "partition, all from all",
    "packet loss",
    "slow link",
    "disk full",
    "slow fsync",
    "failing fsync",
    "clock jump",
    "wiped replica rejoins",
    "member replaced",
    "leadership moved",
    "agent killed",
    "agent's home killed",
    "cloud",
];

impl Fault {
    /// Returns the kind under which it is counted, one of [`KINDS`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(Whom::Leader) => "kill leader",
            Self::Kill(Whom::Follower) => "kill follower",
            Self::Kill(Whom::All) => "kill all",
            Self::Pause(_) => "pause",
            Self::Cut(Cut::LeaderInMinority, _) => "partition, leader in minority",
            Self::Cut(Cut::LeaderInMajority, _) => "partition, leader in majority",
            Self::Cut(Cut::FromLeader | Cut::ToLeader, _) => "partition, one-way",
            Self::Cut(Cut::AllFromAll, _) => "partition, all from all",
            Self::Loss(_) => "packet loss",
            Self::Slow(..) => "slow link",
            Self::FullDisk => "disk full",
            Self::SlowSync(..) => "slow fsync",
            Self::FailingSync(_) => "failing fsync",
            Self::Clock(..) => "clock jump",
            Self::Wipe => "wiped replica rejoins",
            Self::Replace(_) => "member replaced",
            Self::Transfer => "leadership moved",
            Self::KillAgent => "agent killed",
            Self::KillHome => "agent's home killed",
            Self::Cloud(_) => "cloud",
        }
    }

    /// Returns what it needs.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Cut(..) | Self::Loss(_) | Self::Slow(..) => Needs::Lab,
            Self::FullDisk => Needs::SmallDisk,
            Self::SlowSync(..) | Self::FailingSync(_) | Self::Clock(..) => Needs::Preload,
            Self::Cloud(_) => Needs::SimCloud,
            _ => Needs::Nothing,
        }
    }

    /// Returns whether it harms one replica and nothing else, so that a fleet of five bears another such at once.
    pub fn harms_one(&self) -> bool {
        match self {
            Self::Kill(whom) | Self::Pause(whom) => *whom != Whom::All,
            Self::SlowSync(..) | Self::FailingSync(_) | Self::Clock(..) => true,
            _ => false,
        }
    }

    /// Does it.
    pub async fn inject(&self, field: &mut Field) -> Result<Injected> {
        match *self {
            Self::Kill(whom) => kill::inject(field, whom).await,
            Self::Pause(whom) => pause::inject(field, whom).await,
            Self::Cut(cut, reach) => network::cut(field, cut, reach).await,
            Self::Loss(percent) => network::lose(field, percent).await,
            Self::Slow(whom, kilobits) => network::slow(field, whom, kilobits).await,
            Self::FullDisk => disk::fill(field).await,
            Self::SlowSync(whom, milliseconds) => disk::slow_sync(field, whom, milliseconds).await,
            Self::FailingSync(whom) => disk::fail_sync(field, whom).await,
            Self::Clock(whom, seconds) => clock::jump(field, whom, seconds).await,
            Self::Wipe => membership::wipe(field).await,
            Self::Replace(whom) => membership::replace(field, whom).await,
            Self::Transfer => leadership::transfer(field).await,
            Self::KillAgent => agents::kill(field).await,
            Self::KillHome => agents::kill_home(field).await,
            Self::Cloud(misfortune) => cloud::inject(field, misfortune).await,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(whom) => write!(f, "kill {whom}"),
            Self::Pause(whom) => write!(f, "pause {whom}"),
            Self::Cut(cut, reach) => write!(f, "partition: {cut}, {reach}"),
            Self::Loss(percent) => write!(f, "lose {percent} % of the packets between replicas"),
            Self::Slow(whom, kilobits) => write!(f, "slow cable ({kilobits} kbit/s) of {whom}"),
            Self::FullDisk => f.write_str("fill a disk"),
            Self::SlowSync(whom, milliseconds) => write!(f, "slow fsync (+{milliseconds} ms) of {whom}"),
            Self::FailingSync(whom) => write!(f, "failing fsync of {whom}"),
            Self::Clock(whom, seconds) => write!(f, "clock of {whom} jumps {seconds:+} s"),
            Self::Wipe => f.write_str("a follower loses its disk and joins anew"),
            Self::Replace(whom) => write!(f, "{whom} is removed, and a new member joins"),
            Self::Transfer => f.write_str("leadership is moved"),
            Self::KillAgent => f.write_str("an agent dies with its VM's processes"),
            Self::KillHome => f.write_str("the replica that agents are homed at dies"),
            Self::Cloud(misfortune) => write!(f, "the cloud {misfortune}"),
        }
    }
}
