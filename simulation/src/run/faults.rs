//! How what goes wrong is done to a world, and undone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::AgentId;

use super::Run;
use crate::agents::Stopped;
use crate::disk::Ailment;
use crate::nemesis::{self, Fault, Way, Whom};
use crate::net::Weather;
use crate::outside::{Mood, OUTSIDE};
use crate::world::End;

/// The end of a fault.
pub(super) enum Mend {
    /// Nothing is held up between these any more.
    Network(BTreeSet<(u64, u64)>),
    Storm,
    Disk(u64),
    Cloud,
    Vm(AgentId),
}

impl Run {
    fn whom(&mut self, whom: Whom) -> Vec<u64> {
        let on = || self.world.machines.values().filter(|machine| machine.is_on());
        match whom {
            Whom::All => on().map(|machine| machine.number).collect(),
            Whom::Any(number) => on().map(|machine| machine.number).filter(|n| *n == number).collect(),
            Whom::Leader => {
                on().filter(|machine| machine.leads()).map(|machine| machine.number).take(1).collect()
            }
            Whom::Follower => {
                let followers: Vec<u64> = on().filter(|m| !m.leads()).map(|m| m.number).collect();
                if followers.is_empty() { followers } else { vec![*self.chance.one_of(&followers)] }
            }
        }
    }

    pub(super) fn inject(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(whom) => self.end(*whom, End::Killed),
            Fault::Crash(whom) => self.end(*whom, End::Crashed),
            Fault::Pause(whom, ms) => {
                let until = self.world.now_ms + ms;
                for number in self.whom(*whom) {
                    self.world.machines.entry(number).and_modify(|machine| machine.paused_until = until);
                }
            }
            Fault::Storm(ms) => {
                self.world.net.change(|weather| nemesis::storm(weather, &mut self.chance));
                self.mend_in(*ms, Mend::Storm);
            }
            Fault::SlowDisk(whom, by_ms, ms) => {
                for number in self.whom(*whom) {
                    self.world.machines[&number].disk.ail(nemesis::slow(*by_ms));
                    self.mend_in(*ms, Mend::Disk(number));
                }
            }
            Fault::DeadDisk(whom) => {
                for number in self.whom(*whom) {
                    self.world.machines[&number].disk.ail(Ailment { slow_ms: 0, fails: true });
                    let ms = self.chance.between(200, 2000);
                    self.mend_in(ms, Mend::Disk(number));
                }
            }
            Fault::Restart(whom) => {
                for number in self.whom(*whom) {
                    self.restart(number);
                }
            }
            Fault::Transfer => self.transfer(),
            Fault::BadCloud(ms) => {
                self.world.cloud.set_mood(nemesis::mood(&mut self.chance));
                self.mend_in(*ms, Mend::Cloud);
            }
            Fault::CutOff(..) | Fault::AllApart(_) | Fault::Lost(..) => self.part(fault),
            // One that a task works with would keep the task waiting for as long as a script may take.
            Fault::DeadVm => {
                let agents = self.world.idle_agents();
                self.stop_one(&agents, Stopped::ForGood);
            }
            Fault::StoppedVm(ms) => {
                let agents = self.world.cloud.running();
                if let Some(agent) = self.stop_one(&agents, Stopped::ForAWhile) {
                    self.mend_in(*ms, Mend::Vm(agent));
                }
            }
        }
    }

    fn stop_one(&mut self, agents: &[AgentId], how: Stopped) -> Option<AgentId> {
        let agent = (!agents.is_empty()).then(|| self.chance.one_of(agents).clone())?;
        self.world.cloud.stop(&agent, how);
        Some(agent)
    }

    /// Has the network let nothing pass.
    fn part(&mut self, fault: &Fault) {
        let (whom, way, ms) = match fault {
            Fault::CutOff(whom, way, ms) => (self.whom(*whom), *way, *ms),
            Fault::AllApart(ms) => (self.world.machines.keys().copied().collect(), Way::Both, *ms),
            Fault::Lost(whom, ms) => (self.whom(*whom), Way::Both, *ms),
            _ => return,
        };
        let agents = whom.iter().flat_map(|number| [(*number, OUTSIDE), (OUTSIDE, *number)]);
        let agents = agents.filter(|_| matches!(fault, Fault::Lost(..)));
        let others = whom.iter().flat_map(|number| self.between(*number, way));
        let pairs: BTreeSet<(u64, u64)> = agents.chain(others).collect();
        self.world.net.change(|weather| weather.blocked.extend(&pairs));
        self.mend_in(ms, Mend::Network(pairs));
    }

    fn mend_in(&mut self, ms: u64, mend: Mend) {
        self.healing.push((self.world.now_ms + ms, mend));
    }

    pub(super) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Network(pairs) => {
                self.world.net.change(|weather| weather.blocked.retain(|pair| !pairs.contains(pair)));
            }
            Mend::Storm => {
                let delay_us = self.usual;
                self.world.net.change(|weather| {
                    let blocked = std::mem::take(&mut weather.blocked);
                    *weather = Weather { blocked, delay_us, ..Weather::fair() };
                });
            }
            Mend::Disk(number) => {
                self.world.machines[&number].disk.ail(Ailment::default());
                // Who ended because of it is started again.
                let now = self.world.now_ms;
                if let Some(machine) = self.world.machines.get_mut(&number).filter(|m| !m.is_on()) {
                    machine.starts_at = Some(now + 50);
                }
            }
            Mend::Cloud => self.world.cloud.set_mood(Mood::default()),
            Mend::Vm(agent) => self.world.cloud.go_on(&agent),
        }
    }

    fn end(&mut self, whom: Whom, how: End) {
        for number in self.whom(whom) {
            self.world.end(number, how);
            let at = self.world.now_ms + self.chance.between(20, 3000);
            self.world.machines.entry(number).and_modify(|machine| machine.starts_at = Some(at));
        }
    }

    /// Returns the ways between a replica and the others.
    fn between(&self, number: u64, way: Way) -> Vec<(u64, u64)> {
        let others = self.world.machines.keys().copied().filter(|other| *other != number);
        let ways = others.flat_map(|other| match way {
            Way::Both => vec![(other, number), (number, other)],
            Way::In => vec![(other, number)],
            Way::Out => vec![(number, other)],
        });
        ways.collect()
    }

    /// Has a replica stop in order; it is started again when it has, or when it takes too long.
    fn restart(&mut self, number: u64) {
        let Some(replica) = self.world.machines[&number].slot.replica() else { return };
        self.world.ask(
            number,
            Arc::new(move |_| {
                let node = replica.node.clone();
                Box::pin(async move { node.shutdown().await })
            }),
        );
        let end = self.world.now_ms + self.chance.between(300, 2000);
        self.world.machines.entry(number).and_modify(|machine| machine.ends_at = Some(end));
    }

    fn transfer(&mut self) {
        let Some(leader) = self.whom(Whom::Leader).first().copied() else { return };
        let Some(replica) = self.world.machines[&leader].slot.replica() else { return };
        self.world.ask(
            leader,
            Arc::new(move |_| {
                let node = replica.node.clone();
                Box::pin(async move {
                    // Who can't hand over goes on leading.
                    let _ = node.transfer_leader(None, Duration::from_secs(2)).await;
                })
            }),
        );
    }
}
