//! Readmitting a replica whose disk is damaged: it gets a token for a new place, and gives its old one up.
//!
//! It has promised things under its number (whom it voted for, which entries it has) that it no longer knows. So it never
//! takes part under that number again; its old certificate is good for this one request.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{NodeId, Timestamp, UserName};
use proto::peer::v1 as pb;
use state::State;
use state::command::Command;
use state::log::{CommandLog as _, FLEET_USER, Proposal};
use state::records::JoinToken;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};

use super::log::{RaftLog, now};
use super::membership::Membership;
use crate::error_map::{status, unavailable};
use crate::grpc::cluster::{TOKEN_PREFIX, authority_fingerprint};
use crate::identity::{IdentityFiles, NodeIdentity};
use crate::secrets::{Kek, Mint, hash_of_secret};

/// Life of the token: it is used at once.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// Pause between two looks at who the peers are: changes come in bursts.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Gives a replica a token for a new place, on the leader.
pub(super) async fn readmit(
    membership: &Membership,
    kek: &Kek,
    node: NodeId,
) -> Result<pb::ReadmitResponse, Status> {
    let leader = membership.node.status().leader;
    if leader != Some(membership.id.0) {
        return Err(unavailable(format!("replica {} does not lead, {leader:?} does", membership.id)));
    }
    let secret = Mint::new(kek).join_secret(&UserName::new(FLEET_USER), None);
    let expires_at = Timestamp(now().0 + TOKEN_TTL.as_millis() as i64);
    let token = JoinToken { hash: hash_of_secret(&secret), expires_at, used_by: None };
    let filed = membership.log.propose(Proposal::own(Command::TokenPut { token })).await;
    filed.map_err(|error| status(error.into()))?.outcome.accepted().map_err(|error| status(error.into()))?;
    let view = membership.log.view();
    let state = State::new(&*view);
    let cluster = state.cluster().ok_or_else(|| unavailable("the fleet is not initialised yet"))?;
    info!(%node, "a replica with a damaged disk gets a new place");
    Ok(pb::ReadmitResponse {
        token: format!("{TOKEN_PREFIX}.{secret}.{}", authority_fingerprint(&cluster.secrets.authority_pem)),
        endpoints: state.members().into_iter().filter(|m| m.node != node).map(|m| m.api_address).collect(),
    })
}

/// Keeps the peers' addresses beside the identity, for the life of the process: whoever has lost the state must still know
/// whom to ask.
pub async fn remember_peers(
    files: IdentityFiles,
    mut own: NodeIdentity,
    log: RaftLog,
    stop: CancellationToken,
) {
    let mut seen = log.revision();
    loop {
        let peers = peers(&log, own.node);
        let known: BTreeSet<_> = own.peers.iter().cloned().collect();
        if !peers.is_empty() && peers != known {
            own.peers = peers.into_iter().collect();
            if let Err(error) = files.store_node(&own) {
                warn!(%error, "the peers' addresses could not be kept");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_PAUSE) => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            now = log.changed(seen) => seen = now,
            () = stop.cancelled() => return,
        }
    }
}

fn peers(log: &RaftLog, own: NodeId) -> BTreeSet<(NodeId, String)> {
    let view = log.view();
    let members = State::new(&*view).members().into_iter();
    members.filter(|member| member.node != own).map(|member| (member.node, member.peer_address)).collect()
}
