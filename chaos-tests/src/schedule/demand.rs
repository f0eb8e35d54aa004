//! What must hold once everything is healed: the fleet goes on by itself, and has lost, doubled and stranded nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Schedule;
use super::outcome::Outcome;
use crate::checks;
use crate::client::Client;
use crate::cluster::SETTLE;
use crate::nemesis::Field;
use crate::wait;
use crate::workload::Hello;
use crate::workloads::{Observed, deployment};

/// How soon a leader takes up what is open, counted from its being there.
const RESUMED_WITHIN: Duration = Duration::from_secs(2);

/// How long all that is open may take to end: silence until suspicion, the second look, a repair, and a queue of deploys.
const ENDED_WITHIN: Duration = Duration::from_secs(90);

/// Instances that each deployment has in the end.
const INSTANCES: usize = 2;

/// What is demanded of a fleet after a schedule.
pub struct Demands<'a> {
    /// What was played.
    pub schedule: &'a Schedule,
    /// What the fleet had answered meanwhile.
    pub observed: &'a Observed,
}

impl Demands<'_> {
    /// Errs with what does not hold.
    pub async fn check(&self, field: &mut Field, outcome: &mut Outcome) -> Result<()> {
        let client = field.cluster.client()?;
        self.resumed(field, &client, outcome).await?;
        // Tasks end, no lock is left, nothing is lost; what everybody saw fits together.
        let verdict = checks::all(&field.cluster, self.observed).await?;
        outcome.looked_at(&verdict);
        verdict.hold()?;
        self.equal(field, &client).await?;
        self.converges(&client).await?;
        self.mended(field, &client).await?;
        self.nothing_doubled(field, &client).await?;
        field.check_alive()
    }

    /// Every task that is being processed is so under the present leader.
    async fn resumed(&self, field: &Field, client: &Client, outcome: &mut Outcome) -> Result<()> {
        let leader = field.leader().await?;
        let seen = Instant::now();
        let what = "the leader has taken up every open task";
        let taken_up = async || {
            let term = field.numbers(leader).await?.term();
            let tasks = client.tasks().await?;
            Ok(tasks.iter().filter(|task| task.state == "processing").all(|task| task.epoch == term))
        };
        wait::until_true(what, SETTLE, taken_up).await?;
        outcome.resumed.push(seen.elapsed());
        ensure!(seen.elapsed() < RESUMED_WITHIN, "it took {:?} until {what}", seen.elapsed());
        Ok(())
    }

    /// All members vote and have applied the same.
    async fn equal(&self, field: &Field, client: &Client) -> Result<()> {
        let names: BTreeSet<String> = field.members().iter().map(|n| format!("director-{n}")).collect();
        wait::until_true("all replicas vote and are equal", SETTLE, async || {
            let members = client.status().await?.members;
            let votes = |role: &str| ["leader", "follower"].contains(&role);
            let found: BTreeSet<String> = members.iter().map(|m| m.name.clone()).collect();
            let applied: BTreeSet<_> = members.iter().map(|m| m.applied_index).collect();
            Ok(found == names
                && members.len() == names.len()
                && members.iter().all(|m| votes(&m.role) && m.lag == Some(0))
                && applied.len() == 1)
        })
        .await
    }

    /// Every deployment can still be deployed, and gets there.
    async fn converges(&self, client: &Client) -> Result<()> {
        for number in 0..self.schedule.mix.deployments {
            let name = deployment(number);
            let hello = Hello {
                name: name.clone(),
                instances: INSTANCES,
                greeting: "The End".into(),
                max_in_flight: 2,
                ..Hello::default()
            };
            let begun = Instant::now();
            let mut round = 0;
            loop {
                // What the cloud or a dead replica left half done may make the first one fail; it says so.
                round += 1;
                let task = client.deploy(&hello.manifest(), &format!("the end of {name}, {round}")).await?;
                let task = client.ended(task, ENDED_WITHIN).await?;
                if task.state == "done" {
                    break;
                }
                ensure!(begun.elapsed() < ENDED_WITHIN, "{name} does not converge: {}", task.error_message);
            }
            wait::until_true(&format!("all of {name} runs"), ENDED_WITHIN, async || {
                let instances = client.instances(&name).await?;
                let runs = |i: &proto::v1::Instance| i.process_state == "running" && i.update_completed;
                Ok(instances.len() == INSTANCES && instances.iter().all(runs))
            })
            .await?;
        }
        Ok(())
    }

    /// Who lost its agent while nobody deployed it runs again, in another VM, and nobody had to do anything.
    async fn mended(&self, field: &Field, client: &Client) -> Result<()> {
        let Some(bystander) = &field.bystander else { return Ok(()) };
        wait::until_true(&format!("{bystander} runs again"), ENDED_WITHIN, async || {
            let instances = client.instances(bystander).await?;
            let lives =
                |i: &proto::v1::Instance| i.process_state == "running" && !field.dead_vms.contains(&i.vm_cid);
            Ok(instances.len() == 1 && instances.iter().all(lives))
        })
        .await
    }

    /// What is in the cloud is what the fleet knows of, each thing once.
    async fn nothing_doubled(&self, field: &Field, client: &Client) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut vms = BTreeSet::new();
        for name in client.deployments().await? {
            for instance in client.instances(&name).await? {
                vms.extend(Some(instance.vm_cid.clone()).filter(|cid| !cid.is_empty()));
                let ids =
                    [vec![instance.vm_cid, instance.agent_id], instance.ips, instance.disk_cids].concat();
                // One whose last deploy failed may have no VM.
                for id in ids.into_iter().filter(|id| !id.is_empty()) {
                    ensure!(seen.insert(id.clone()), "`{id}` belongs to two instances");
                }
            }
        }
        let what = "the cloud has the VMs of the instances and no other that is not listed";
        let listed = async || -> Result<usize> {
            Ok(client.leaks().await?.len() + client.orphaned_vms().await?.len())
        };
        wait::until_true(what, SETTLE, async || {
            let count = match field.cluster.is_simulated() {
                true => field.cluster.sim().control().statistics().await?.vms as usize,
                false => std::fs::read_dir(field.cluster.cloud_root().join("vms"))?.count(),
            };
            Ok(count >= vms.len() && count <= vms.len() + listed().await?)
        })
        .await
        .with_context(|| format!("{} VMs are known", vms.len()))
    }
}
