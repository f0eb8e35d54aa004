//! Agents, and the replicas that they are homed at.

use anyhow::{Context as _, Result};

use super::kill::Killed;
use super::{Done, Field, Injected, NotReached};
use crate::processes::{all_of, end_all_of};

/// Ends everything in the VM of an instance that nobody deploys; the proof is that it was there. Nobody heals it but the
/// fleet itself.
pub async fn kill(field: &mut Field) -> Result<Injected> {
    let client = field.cluster.client()?;
    let bystander = field.bystander.clone().context("a schedule that kills agents has a bystander")?;
    let instances = client.instances(&bystander).await?;
    let mut running = instances.into_iter().filter(|i| i.process_state == "running" && !i.vm_cid.is_empty());
    let Some(victim) = running.next() else {
        return Err(NotReached(format!("{bystander} does not run")).into());
    };
    let name = format!("{}/{} of {}", victim.group, victim.index, victim.deployment);
    let proof = match field.cluster.is_simulated() {
        true => {
            let control = field.cluster.sim().control();
            control.crash_vm(victim.vm_cid.as_str().into()).await?;
            format!("the agent in {}, which had sent that it runs, was stopped", victim.vm_cid)
        }
        false => {
            let folder = field.cluster.cloud_root().join("vms").join(&victim.vm_cid);
            let count = all_of(&folder).len();
            end_all_of(&folder);
            if count == 0 {
                return Err(NotReached(format!("nothing ran in {}", victim.vm_cid)).into());
            }
            format!("{count} processes of {} ended", victim.vm_cid)
        }
    };
    field.dead_vms.insert(victim.vm_cid.clone());
    let what = format!("agent of {name} ({}) killed", victim.vm_cid);
    Ok(Injected { what, hits_leader: false, harm: Box::new(Done { proof }) })
}

/// Kills the replica to which most agents are connected; the proof is that there were some.
pub async fn kill_home(field: &mut Field) -> Result<Injected> {
    let mut home = None;
    field
        .felt("agents are connected", async |field| {
            let mut most = 0;
            for number in field.unharmed() {
                let streams = field.numbers(number).await.map(|n| n.agent_streams()).unwrap_or_default();
                if streams > most {
                    most = streams;
                    home = Some((number, streams));
                }
            }
            Ok(home.is_some())
        })
        .await?;
    let Some((number, streams)) = home else { return Err(NotReached("no agent is connected".into()).into()) };
    let hits_leader = field.leader().await? == number;
    field.harm_this(number);
    field.cluster.kill(number)?;
    let what = format!("SIGKILL of director-{number}, to which {streams} agents are connected");
    Ok(Injected { what, hits_leader, harm: Box::new(Killed(vec![number])) })
}
