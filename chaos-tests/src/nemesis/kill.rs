//! Sudden death: SIGKILL.

use anyhow::Result;
use async_trait::async_trait;

use super::{Field, Harm, Injected, Whom};

/// Kills; the proof is the signal that the process ended by.
pub async fn inject(field: &mut Field, whom: Whom) -> Result<Injected> {
    let (victims, hits_leader) = field.harm(whom).await?;
    for number in &victims {
        field.cluster.kill(*number)?;
    }
    let what = format!("SIGKILL of {victims:?} ({whom})");
    Ok(Injected { what, hits_leader, harm: Box::new(Killed(victims)) })
}

/// Who is dead.
pub(super) struct Killed(pub Vec<usize>);

#[async_trait(?Send)]
impl Harm for Killed {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        for number in &self.0 {
            field.cluster.run(*number)?;
            field.spare(*number);
        }
        Ok(format!("{:?} ended by SIGKILL and started again", self.0))
    }
}
