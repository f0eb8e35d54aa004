//! The lead moves, because somebody asks for it.

use anyhow::Result;
use dctl::call;
use proto::v1::TransferLeaderRequest;
use proto::v1::cluster_client::ClusterClient;

use super::{Done, Field, Injected, NotReached};
use crate::cluster::SETTLE;
use crate::wait;

/// Moves the lead to whomever the fleet chooses; the proof is who leads afterwards.
pub async fn transfer(field: &mut Field) -> Result<Injected> {
    let before = field.leader().await?;
    let client = field.cluster.client()?;
    let old = field.node_id(before).await?;
    // A fleet in which nobody has caught up refuses, and says so.
    let new = wait::until("somebody can take the lead", SETTLE, async || {
        let request = TransferLeaderRequest { node_id: 0, request_id: dctl::client::request_id() };
        Ok(Some(call!(client.fleet, ClusterClient.transfer_leader(request)).await?.leader))
    })
    .await?;
    if new == old {
        return Err(NotReached(format!("director-{before} leads as before")).into());
    }
    let what = format!("the lead moved from director-{before} to node {new}");
    let proof = format!("the fleet names node {new} its leader");
    Ok(Injected { what, hits_leader: false, harm: Box::new(Done { proof }) })
}
