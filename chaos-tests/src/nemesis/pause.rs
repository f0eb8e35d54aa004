//! Sleep: SIGSTOP, and SIGCONT after a while.

use anyhow::Result;
use async_trait::async_trait;

use super::{Field, Harm, Injected, Whom};
use crate::processes::is_stopped;

/// Stops; the proof is what the system says of the process.
pub async fn inject(field: &mut Field, whom: Whom) -> Result<Injected> {
    let (victims, hits_leader) = field.harm(whom).await?;
    for number in &victims {
        field.cluster.pause(*number)?;
    }
    let what = format!("SIGSTOP of {victims:?} ({whom})");
    Ok(Injected { what, hits_leader, harm: Box::new(Paused(victims)) })
}

struct Paused(Vec<usize>);

#[async_trait(?Send)]
impl Harm for Paused {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        // A busy machine stops a process when it gets round to it.
        let sleeps = async |field: &mut Field| {
            let pids = self.0.iter().map(|number| field.cluster.pid(*number));
            Ok(pids.collect::<Result<Vec<_>>>()?.into_iter().all(is_stopped))
        };
        let felt = field.felt(&format!("{:?} sleep", self.0), sleeps).await;
        for number in &self.0 {
            field.cluster.resume(*number)?;
            field.spare(*number);
        }
        felt.map(|()| format!("{:?} in state T until SIGCONT", self.0))
    }
}
