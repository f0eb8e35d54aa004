//! Wrong time: one process's clock jumps while it runs.

use anyhow::Result;
use async_trait::async_trait;

use super::{Field, Harm, Injected, Whom};
use crate::machine::Wrong;

/// Moves one replica's clock; the proof is that it has looked at it since.
pub async fn jump(field: &mut Field, whom: Whom, seconds: i32) -> Result<Injected> {
    let (number, _) = field.harm_one(whom).await?;
    field.cluster.machine(number).harm(Wrong::Clock, i64::from(seconds))?;
    let what = format!("clock of director-{number} ({whom}) {seconds:+} s");
    // A clock is no reason to lose the lead.
    Ok(Injected { what, hits_leader: false, harm: Box::new(Jumped(number)) })
}

struct Jumped(usize);

#[async_trait(?Send)]
impl Harm for Jumped {
    async fn heal(self: Box<Self>, field: &mut Field) -> Result<String> {
        let number = self.0;
        let was = async |field: &mut Field| Ok(field.cluster.machine(number).was_felt(Wrong::Clock));
        let felt = field.felt(&format!("director-{number} looks at its clock"), was).await;
        field.cluster.machine(number).heal(Wrong::Clock)?;
        field.spare(number);
        felt.map(|()| format!("director-{number} read the wrong time"))
    }
}
