//! What agents of BOSH's prove with on their bus who they are: offered before it is handed over, theirs once it has been.
//!
//! Between the two nobody can tell which one an agent has, and both are good: it is the older one that counts.

use model::*;

use super::task;
use super::tx::Tx;
use crate::command::{Outcome, Refusal};
use crate::records::{AgentRecord, BusCertificate, OfferedCertificate};
use crate::tables::*;

/// `CertificateOffer`. A step that is repeated offers what it has offered before: the agent may have that already.
pub(super) fn offer(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    step: StepNo,
    what: (&AgentId, &BusCertificate),
) -> Result<Outcome, Refusal> {
    let task = task::working(tx, by)?.id;
    let (agent, certificate) = what;
    let record = tx.need(&AGENTS, agent, "agent")?;
    if record.offered.as_ref().is_some_and(|offered| (offered.task, offered.step) == (task, step)) {
        return Ok(Outcome::Done);
    }
    let offered = Some(OfferedCertificate { task, step, certificate: certificate.clone() });
    tx.put(&AGENTS, agent, &AgentRecord { offered, ..record });
    Ok(Outcome::Done)
}

/// A step is done that may have handed a certificate over. What another step has offered is not what the agent has got.
pub(super) fn handed_over(tx: &mut Tx<'_>, by: (TaskId, StepNo), agent: &AgentId) {
    let Some(record) = tx.get(&AGENTS, agent) else { return };
    let Some(offered) = record.offered.clone().filter(|offered| (offered.task, offered.step) == by) else {
        return;
    };
    let certificate = Some(offered.certificate);
    tx.put(&AGENTS, agent, &AgentRecord { certificate, offered: None, ..record });
}
