//! A replica's first minutes: it asks for its place in the fleet if it has none yet, and files its addresses where they
//! have changed.

use std::time::Duration;

use model::NodeId;
use proto::peer::v1 as pb;
use retry::Policy;
use state::State;
use state::log::CommandLog as _;
use state::records::Member;
use tonic::Code;
use tracing::{error, info, warn};

use super::membership::{Membership, ask_for_promotion};

/// Pauses between attempts to file the addresses: as long as the fleet has no leader, there is no other way.
const FILE_AGAIN: Policy =
    Policy { initial: Duration::from_millis(500), max: Duration::from_secs(30), total: None };

/// Runs until the replica is a voter and its addresses are filed, or it is known that neither will be.
pub async fn settle(membership: Membership, known: Vec<(NodeId, String)>, own: Member) {
    let is_voter = || membership.node.status().members.iter().any(|m| m.id == own.node.0 && m.voter);
    if !is_voter() && !known.is_empty() {
        let request = pb::PromoteRequest {
            name: own.name.clone(),
            api_address: own.api_address.clone(),
            peer_address: own.peer_address.clone(),
            agent_address: own.agent_address.clone(),
            version: own.version.clone(),
            feature_level: own.feature_level,
        };
        match ask_for_promotion(&membership.peers, &known, &request).await {
            Ok(()) => info!(node = %own.node, "joined the fleet"),
            Err(status) => {
                return error!(node = %own.node, error = %status, "the fleet did not take this replica");
            }
        }
    }
    file(&membership, own).await;
}

async fn file(membership: &Membership, own: Member) {
    let filed = || {
        let view = membership.log.view();
        State::new(&*view).member(own.node)
    };
    let mut waits = FILE_AGAIN.waits();
    while filed().as_ref() != Some(&own) {
        if membership.was_removed(own.node) {
            return removed(&own);
        }
        match membership.file(own.clone()).await {
            // The state has it; here it is about to arrive.
            Ok(()) => return,
            Err(status) if status.code() == Code::NotFound => return removed(&own),
            Err(status) => warn!(error = %status, "this replica's addresses are not filed yet"),
        }
        // The policy has no end; a stop ends all of this.
        tokio::time::sleep(waits.next().unwrap_or(FILE_AGAIN.max)).await;
    }
}

fn removed(own: &Member) {
    error!(node = %own.node, "this replica was removed from the fleet: stop it, or join it anew with an empty folder");
}
