//! The network: partitions, loss, slow cables. Only in a laboratory's network.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use async_trait::async_trait;

use super::{Field, Harm, Injected, Whom};
use crate::lab::Lab;

/// Where a fleet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The leader, with as many others as are no majority, from the rest.
    LeaderInMinority,
    /// As many followers as are no majority from the rest.
    LeaderInMajority,
    /// What the leader sends to other replicas vanishes; it hears them.
    FromLeader,
    /// What is sent to the leader by other replicas vanishes; they hear it.
    ToLeader,
    /// Every replica from every other.
    AllFromAll,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeaderInMinority => "the leader in the minority",
            Self::LeaderInMajority => "followers in the minority",
            Self::FromLeader => "the others do not hear the leader",
            Self::ToLeader => "the leader does not hear the others",
            Self::AllFromAll => "all from all",
        })
    }
}

/// Who is cut off from those who are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Replicas only: clients and agents reach everybody.
    Replicas,
    /// Clients and agents, too.
    Everybody,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replicas => "clients and agents reach all",
            Self::Everybody => "clients and agents see one side",
        })
    }
}

/// Cuts the fleet; the proof is that packets were dropped.
pub async fn cut(field: &mut Field, cut: Cut, reach: Reach) -> Result<Injected> {
    let leader = field.leader().await?;
    let members = field.members();
    let minority = minority(cut, leader, &members);
    let (forward, outside) = rules(cut, reach, leader, &members, &minority);
    let (input, output) = outside;
    lab(field)?.filter(&forward, &input, &output)?;
    minority.iter().for_each(|number| field.harm_this(*number));
    let what = format!("director-{leader} leads; {minority:?} cut off ({cut}, {reach})");
    let hits_leader = cut != Cut::LeaderInMajority;
    Ok(Injected { what, hits_leader, harm: Box::new(Filtered(minority)) })
}

/// Returns who is on the lesser side: all, where there are no sides.
fn minority(cut: Cut, leader: usize, members: &[usize]) -> Vec<usize> {
    let most = (members.len() - 1) / 2;
    let others = members.iter().copied().filter(|number| *number != leader);
    match cut {
        Cut::LeaderInMinority => [leader].into_iter().chain(others.take(most - 1)).collect(),
        Cut::LeaderInMajority => others.take(most).collect(),
        Cut::FromLeader | Cut::ToLeader => vec![leader],
        Cut::AllFromAll => members.to_vec(),
    }
}

type Rules = Vec<String>;

/// Returns the rules between replicas, and those to and from everybody else.
fn rules(
    cut: Cut,
    reach: Reach,
    leader: usize,
    members: &[usize],
    minority: &[usize],
) -> (Rules, (Rules, Rules)) {
    let is_in = |number: usize| minority.contains(&number);
    let vanishes = |from: usize, to: usize| match cut {
        Cut::LeaderInMinority | Cut::LeaderInMajority => is_in(from) != is_in(to),
        Cut::FromLeader => from == leader,
        Cut::ToLeader => to == leader,
        Cut::AllFromAll => true,
    };
    let pairs = members.iter().flat_map(|from| members.iter().map(move |to| (*from, *to)));
    let pairs = pairs.filter(|(from, to)| from != to && vanishes(*from, *to));
    let forward = pairs.map(|(from, to)| drop_between(Lab::address(from), Lab::address(to)));
    let outside = match (reach, cut) {
        // One way, or with no sides: nobody else has one.
        (Reach::Replicas, _) | (_, Cut::FromLeader | Cut::ToLeader | Cut::AllFromAll) => Default::default(),
        (Reach::Everybody, _) => {
            let addresses = || minority.iter().map(|number| Lab::address(*number));
            let input = addresses().map(|address| drop_between(address, Lab::host()));
            let output = addresses().map(|address| drop_between(Lab::host(), address));
            (input.collect(), output.collect())
        }
    };
    (forward.collect(), outside)
}

fn drop_between(from: Ipv4Addr, to: Ipv4Addr) -> String {
    format!("ip saddr {from} ip daddr {to} counter drop")
}

/// Loses some of all packets between replicas; the proof is that packets were dropped.
pub async fn lose(field: &mut Field, percent: u8) -> Result<Injected> {
    let rule = format!("meta protocol ip numgen random mod 100 < {percent} counter drop");
    lab(field)?.filter(&[rule], &[], &[])?;
    let what = format!("{percent} % of the packets between replicas are lost");
    Ok(Injected { what, hits_leader: false, harm: Box::new(Filtered(Vec::new())) })
}

fn lab(field: &Field) -> Result<&Lab> {
    field.cluster.lab().context("this fleet is on loopback")
}

struct Filtered(Vec<usize>);

#[async_trait(?Send)]
impl Harm for Filtered {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let was = async |field: &mut Field| Ok(lab(field)?.dropped()? > 0);
        let felt = field.felt("a packet is dropped", was).await;
        let dropped = lab(field)?.dropped()?;
        lab(field)?.filter(&[], &[], &[])?;
        self.0.iter().for_each(|number| field.spare(*number));
        felt.map(|()| format!("{dropped} packets dropped"))
    }
}

/// Makes the cable of a replica slow; the proof is that packets had to wait.
pub async fn slow(field: &mut Field, whom: Whom, kilobits: u32) -> Result<Injected> {
    let (number, hits_leader) = field.harm_one(whom).await?;
    field.cluster.port(number)?.slow(kilobits)?;
    let what = format!("cable of director-{number} ({whom}) takes {kilobits} kbit/s");
    // It may go on leading.
    let _ = hits_leader;
    Ok(Injected { what, hits_leader: false, harm: Box::new(Slow(number)) })
}

struct Slow(usize);

#[async_trait(?Send)]
impl Harm for Slow {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let number = self.0;
        let was = async |field: &mut Field| Ok(field.cluster.port(number)?.slowed()? > 0);
        let felt = field.felt("a packet has to wait", was).await;
        let slowed = field.cluster.port(number)?.slowed()?;
        field.cluster.port(number)?.quicken()?;
        field.spare(number);
        felt.map(|()| format!("{slowed} packets had to wait"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cut: Cut, size: usize, wanted: &str) {
        let members: Vec<usize> = (1..=size).collect();
        let minority = minority(cut, 2, &members);
        let (forward, (input, output)) = rules(cut, Reach::Everybody, 2, &members, &minority);
        let last = |address: &str| address.rsplit('.').next().unwrap_or_default().to_owned();
        let pair = |rule: &String| {
            let words: Vec<&str> = rule.split(' ').collect();
            format!("{}>{}", last(words[2]), last(words[5]))
        };
        let shown: Vec<String> = forward.iter().chain(&input).chain(&output).map(pair).collect();
        assert_eq!(format!("{minority:?} {}", shown.join(" ")), wanted);
    }

    #[test]
    fn each_cut_separates_whom_it_says() {
        check(Cut::LeaderInMinority, 3, "[2] 1>2 2>1 2>3 3>2 2>254 254>2");
        check(Cut::LeaderInMajority, 3, "[1] 1>2 1>3 2>1 3>1 1>254 254>1");
        check(Cut::FromLeader, 3, "[2] 2>1 2>3");
        check(Cut::ToLeader, 3, "[2] 1>2 3>2");
        check(Cut::AllFromAll, 3, "[1, 2, 3] 1>2 1>3 2>1 2>3 3>1 3>2");
        check(
            Cut::LeaderInMinority,
            5,
            "[2, 1] 1>3 1>4 1>5 2>3 2>4 2>5 3>1 3>2 4>1 4>2 5>1 5>2 2>254 1>254 254>2 254>1",
        );
    }
}
