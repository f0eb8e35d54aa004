//! Where it happens: the fleet, and who of it is harmed at the moment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cpi_sim::Knobs;

use super::{NotReached, Whom};
use crate::cluster::{Cluster, SETTLE};
use crate::probes::Numbers;
use crate::wait;

/// How long a fault may take to be felt: a heartbeat, a write, a call of the cloud, on a machine that is busy.
const FELT_WITHIN: Duration = Duration::from_secs(30);

/// The fleet, and who of it is harmed.
pub struct Field {
    /// The fleet.
    pub cluster: Cluster,
    /// The cloud's knobs while it is well.
    pub calm: Knobs,
    /// A deployment that nobody deploys meanwhile: its agents can be killed, and nobody but the fleet mends that.
    pub bystander: Option<String>,
    /// VMs whose agents were killed: no instance is to have one of them in the end.
    pub dead_vms: BTreeSet<String>,
    harmed: BTreeSet<usize>,
    /// No members any more.
    gone: BTreeSet<usize>,
}

impl Field {
    /// Takes a fleet that is well.
    pub fn new(cluster: Cluster, calm: Knobs) -> Self {
        Self {
            cluster,
            calm,
            bystander: None,
            dead_vms: BTreeSet::new(),
            harmed: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Returns the members, harmed or not.
    pub fn members(&self) -> Vec<usize> {
        (1..=self.cluster.size()).filter(|number| !self.gone.contains(number)).collect()
    }

    /// Returns those to whom nothing is being done.
    pub fn unharmed(&self) -> Vec<usize> {
        self.members().into_iter().filter(|number| !self.harmed.contains(number)).collect()
    }

    /// Chooses who is harmed, and takes note of it. Returns them and whether the leader is among them. A leader to whom
    /// something is being done already, and who leads all the same, is left alone: then it is a follower's turn.
    pub async fn harm(&mut self, whom: Whom) -> Result<(Vec<usize>, bool)> {
        let leads = async || self.leads_of(&self.members()).await;
        let leader = wait::until("some replica leads", SETTLE, leads).await?;
        let chosen = match whom {
            Whom::All => self.unharmed(),
            Whom::Leader if !self.harmed.contains(&leader) => vec![leader],
            Whom::Leader | Whom::Follower => vec![self.follower(leader)?],
        };
        self.harmed.extend(&chosen);
        let hits_leader = chosen.contains(&leader);
        Ok((chosen, hits_leader))
    }

    /// As [`Field::harm`], for one.
    pub async fn harm_one(&mut self, whom: Whom) -> Result<(usize, bool)> {
        ensure!(whom != Whom::All, "this is done to one replica only");
        let (chosen, hits_leader) = self.harm(whom).await?;
        Ok((*chosen.first().context("somebody was chosen")?, hits_leader))
    }

    /// Takes note that somebody who was chosen otherwise is harmed.
    pub fn harm_this(&mut self, number: usize) {
        self.harmed.insert(number);
    }

    /// Takes note that nothing is being done to somebody any more.
    pub fn spare(&mut self, number: usize) {
        self.harmed.remove(&number);
    }

    /// Takes note that somebody is no member any more.
    pub fn forget(&mut self, number: usize) {
        self.harmed.remove(&number);
        self.gone.insert(number);
    }

    /// Returns an unharmed replica that does not lead.
    pub fn follower(&self, leader: usize) -> Result<usize> {
        let mut others = self.unharmed().into_iter().filter(|number| *number != leader);
        others.next_back().context("there is no unharmed follower")
    }

    /// Waits until an unharmed replica leads, and returns it. One that was asleep may believe that it still does: the
    /// highest term counts.
    pub async fn leader(&self) -> Result<usize> {
        let leads = async || self.leads_of(&self.unharmed()).await;
        wait::until("an unharmed replica leads", SETTLE, leads).await
    }

    async fn leads_of(&self, numbers: &[usize]) -> Result<Option<usize>> {
        let ask = async |number: usize| (number, self.numbers(number).await);
        let told = futures::future::join_all(numbers.iter().map(|number| ask(*number))).await;
        let leading = told.into_iter().filter_map(|(number, numbers)| Some((numbers.ok()?, number)));
        let leader = leading.filter(|(numbers, _)| numbers.leads()).max_by_key(|(numbers, _)| numbers.term());
        Ok(leader.map(|(_, number)| number))
    }

    /// Returns what a replica says of itself.
    pub async fn numbers(&self, number: usize) -> Result<Numbers> {
        let [.., probes] = self.cluster.other_ports(number);
        Numbers::of(&probes).await
    }

    /// Returns the fleet's number for a replica.
    pub async fn node_id(&self, number: usize) -> Result<u64> {
        let name = format!("director-{number}");
        let members = self.cluster.client()?.status().await?.members;
        Ok(members.iter().find(|m| m.name == name).with_context(|| format!("{name} is no member"))?.id)
    }

    /// Errs if a replica to which nothing was done has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        for number in self.unharmed() {
            if self.cluster.has_ended(number) {
                bail!("director-{number} has ended by itself, and nothing was done to it");
            }
        }
        Ok(())
    }

    /// Waits until a fault was felt.
    pub async fn felt(
        &mut self,
        what: &str,
        mut was: impl AsyncFnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < FELT_WITHIN {
            if was(self).await? {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(NotReached(format!("waited {} s in vain until {what}", FELT_WITHIN.as_secs())).into())
    }
}
