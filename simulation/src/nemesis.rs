//! What goes wrong, and when: drawn from the seed before anything begins.

use std::fmt;

use crate::chance::Chance;
use crate::disk::Ailment;
use crate::net::Weather;
use crate::outside::Mood;

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process is killed; what it wrote is written.
    Kill(Whom),
    /// A machine crashes; what was not synced may be lost.
    Crash(Whom),
    /// A process does not run, and does not know it, for so many milliseconds.
    Pause(Whom, u64),
    /// A replica is cut off, for so many milliseconds.
    CutOff(Whom, Way, u64),
    /// Nobody hears anybody, for so many milliseconds.
    AllApart(u64),
    /// The network is bad, for so many milliseconds.
    Storm(u64),
    /// A disk is slow by so much, for so many milliseconds.
    SlowDisk(Whom, u64, u64),
    /// A disk syncs no more; whoever uses it has to end.
    DeadDisk(Whom),
    /// A replica stops in order, and starts again.
    Restart(Whom),
    /// Leadership is moved.
    Transfer,
    /// The cloud and the agents misbehave, for so many milliseconds.
    BadCloud(u64),
    /// Neither the other replicas nor the agents hear of a replica, nor it of them, for so many milliseconds.
    Lost(Whom, u64),
    /// A VM stops for good, and its agent with it.
    DeadVm,
    /// A VM stops for so many milliseconds.
    StoppedVm(u64),
}

/// Which replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The one that leads.
    Leader,
    /// One that does not.
    Follower,
    /// Any one, by number.
    Any(u64),
    /// All of them.
    All,
}

/// Which way does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Neither.
    Both,
    /// It hears nobody.
    In,
    /// Nobody hears it.
    Out,
}

/// Faults, by the time at which they happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many replicas there are.
    pub replicas: u64,
    /// How long nothing goes wrong at first, in milliseconds.
    pub quiet_ms: u64,
    /// How long things go wrong, in milliseconds.
    pub length_ms: u64,
    /// What goes wrong, with its time.
    pub faults: Vec<(u64, Fault)>,
    /// The network when nothing in particular is wrong.
    pub usual: (u64, u64),
}

impl Plan {
    /// Draws what goes wrong under a seed.
    pub fn draw(chance: &mut Chance) -> Self {
        let replicas = if chance.in_thousand(750) { 3 } else { 5 };
        let (quiet_ms, length_ms) = (chance.between(0, 12_000), chance.between(6_000, 20_000));
        // Some worlds are busy breaking, in others one thing goes wrong at a time.
        let pause_ms = *chance.one_of(&[300, 1000, 2500]);
        let kinds = kinds(chance);
        let mut faults = Vec::new();
        let mut at = chance.between(0, pause_ms);
        while at < length_ms {
            let kind = *chance.one_of(&kinds);
            faults.push((at, fault(kind, replicas, chance)));
            at += chance.between(pause_ms / 4, pause_ms * 2);
        }
        let usual = *chance.one_of(&[(100, 900), (100, 900), (500, 4000), (2000, 20_000)]);
        Self { replicas, quiet_ms, length_ms, faults, usual }
    }
}

/// Draws the kinds of faults of a world: with fewer kinds, each happens in more different moments.
fn kinds(chance: &mut Chance) -> Vec<u64> {
    let kinds: Vec<u64> = (0..KINDS).filter(|_| chance.in_thousand(450)).collect();
    if kinds.is_empty() { vec![chance.between(0, KINDS - 1)] } else { kinds }
}

const KINDS: u64 = 14;

fn whom(replicas: u64, chance: &mut Chance) -> Whom {
    match chance.between(0, 9) {
        0..5 => Whom::Leader,
        5..8 => Whom::Follower,
        _ => Whom::Any(chance.between(1, replicas)),
    }
}

fn fault(kind: u64, replicas: u64, chance: &mut Chance) -> Fault {
    let whom = if chance.in_thousand(60) { Whom::All } else { whom(replicas, chance) };
    let way = *chance.one_of(&[Way::Both, Way::In, Way::Out]);
    let short = chance.between(100, 1500);
    let long = chance.between(500, 6000);
    let longer = chance.between(2_000, 14_000);
    match kind {
        0 => Fault::Kill(whom),
        1 => Fault::Crash(whom),
        2 => Fault::Pause(whom, chance.between(50, 4000)),
        3 => Fault::CutOff(whom, way, long),
        4 => Fault::AllApart(short),
        5 => Fault::Storm(long),
        6 => Fault::SlowDisk(whom, chance.between(5, 700), long),
        7 => Fault::DeadDisk(whom),
        8 => Fault::Restart(whom),
        9 => Fault::Transfer,
        10 => Fault::BadCloud(long),
        // Mostly one that watches agents.
        11 => Fault::Lost(if chance.in_thousand(700) { Whom::Follower } else { whom }, longer),
        12 => Fault::DeadVm,
        _ => Fault::StoppedVm(chance.between(1_000, 20_000)),
    }
}

impl Fault {
    /// Returns what it is called where faults are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Crash(_) => "crash",
            Self::Pause(..) => "pause",
            Self::CutOff(_, Way::Both, _) => "cut off",
            Self::CutOff(..) => "cut off one way",
            Self::AllApart(_) => "all apart",
            Self::Storm(_) => "storm",
            Self::SlowDisk(..) => "slow disk",
            Self::DeadDisk(_) => "dead disk",
            Self::Restart(_) => "restart",
            Self::Transfer => "transfer",
            Self::BadCloud(_) => "bad cloud",
            Self::Lost(..) => "lost",
            Self::DeadVm => "dead VM",
            Self::StoppedVm(_) => "stopped VM",
        }
    }
}

/// Returns a bad network.
pub fn storm(weather: &mut Weather, chance: &mut Chance) {
    weather.delay_us = (100, chance.between(5_000, 150_000));
    weather.lost = chance.between(0, 150) as u32;
    weather.stuck = chance.between(0, 60) as u32;
    weather.doubled = chance.between(0, 200) as u32;
}

/// Returns a bad cloud.
pub fn mood(chance: &mut Chance) -> Mood {
    let mut often = || chance.between(0, 150) as u32;
    let (fails, answer_lost, hangs, late) = (often(), often(), often() / 3, often());
    // Of few calls many. Not drawn by itself: a world of before is the same but for these.
    let given_up = fails + late;
    Mood { fails, answer_lost, hangs, late, agents: often(), given_up }
}

/// Returns what ails a disk.
pub fn slow(by_ms: u64) -> Ailment {
    Ailment { slow_ms: by_ms, fails: false }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = self.usual;
        let Self { replicas, quiet_ms, length_ms, .. } = self;
        writeln!(
            f,
            "{replicas} replicas, {quiet_ms} ms without faults, {length_ms} ms with, messages take {min}–{max} µs"
        )?;
        self.faults.iter().try_for_each(|(at, fault)| writeln!(f, "{at:>7} ms  {fault:?}"))
    }
}
