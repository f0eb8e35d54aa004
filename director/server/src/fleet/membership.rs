//! Becoming and being a member: promotion, and what replicas tell each other of themselves. How one ceases to be is in
//! [`super::leaving`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_client_grpc::{AgentHub, PeerCertificates};
use async_trait::async_trait;
use model::{NodeId, RequestId, UserName};
use proto::peer::v1 as pb;
use proto::peer::v1::fleet_client::FleetClient;
use proto::peer::v1::fleet_server::Fleet;
use raft::{MemberError, Node, Role};
use retry::{Policy, Verdict};
use state::State;
use state::command::Command;
use state::log::{CommandLog, Proposal};
use state::records::Member;
use tonic::{Request, Response, Status};

use super::leaving::{HAND_OVER, Removal};
use super::log::RaftLog;
use super::peers::PeerChannels;
use super::readmitting::readmit;
use super::room;
use crate::clouds::probe::Prober;
use crate::error_map::{of_member, status, unavailable};
use crate::secrets::Kek;
use crate::tls::replica_named_in;

/// How long catching up may take: a state of gigabytes over a slow link.
const CATCH_UP: Duration = Duration::from_secs(600);

/// This replica's place in the fleet.
#[derive(Clone)]
pub struct Membership {
    /// This replica.
    pub id: NodeId,
    /// Consensus.
    pub node: Node,
    /// The log.
    pub log: RaftLog,
    /// Connections.
    pub peers: Arc<PeerChannels>,
    /// The agents' streams.
    pub hub: Arc<AgentHub>,
    /// Tries the clouds from here.
    pub prober: Prober,
}

impl Membership {
    /// Returns what this replica knows of itself.
    pub fn own_status(&self) -> pb::ReplicaStatusResponse {
        let status = self.node.status();
        pb::ReplicaStatusResponse {
            node_id: self.id.0,
            role: role_name(status.role).into(),
            term: status.term,
            last_log_index: status.last_log_index.unwrap_or_default(),
            applied_index: status.applied.unwrap_or_default(),
            snapshot_index: status.snapshot_index.unwrap_or_default(),
            rss_bytes: resident_bytes(),
            version: env!("CARGO_PKG_VERSION").into(),
            room: room::word(self.node.room()).into(),
        }
    }

    /// Returns the client for another replica's fleet service.
    pub fn client(&self, node: NodeId) -> Option<FleetClient<tonic::transport::Channel>> {
        let view = self.log.view();
        let address = State::new(&*view).member(node)?.peer_address;
        Some(FleetClient::new(self.peers.shared(node, &address).ok()?))
    }

    /// Returns the members' states, asked one by one; one that does not answer in time is none.
    pub async fn statuses(&self) -> Vec<(Member, Option<pb::ReplicaStatusResponse>)> {
        let members = {
            let view = self.log.view();
            State::new(&*view).members()
        };
        let ask = |member: Member| async move {
            if member.node == self.id {
                return (member, Some(self.own_status()));
            }
            let Some(mut client) = self.client(member.node) else { return (member, None) };
            let asked = client.status(pb::ReplicaStatusRequest {});
            let answer = tokio::time::timeout(Duration::from_secs(1), asked).await;
            (member, answer.ok().and_then(Result::ok).map(Response::into_inner))
        };
        futures::future::join_all(members.into_iter().map(ask)).await
    }

    /// Returns whether this replica's state says that another one, or itself, was removed for good.
    pub fn was_removed(&self, node: NodeId) -> bool {
        let view = self.log.view();
        State::new(&*view).is_removed_member(node)
    }

    /// Makes `member` a voter. On the leader.
    async fn promote_here(&self, member: Member) -> Result<(), MemberError> {
        self.node.add_member(member.node.0, &member.peer_address, CATCH_UP).await
    }

    /// Files this or a promoted replica's addresses and version.
    pub async fn file(&self, member: Member) -> Result<(), Status> {
        let committed = self.log.propose(Proposal::own(Command::MemberPut { member })).await;
        let committed = committed.map_err(|error| status(error.into()))?;
        committed.outcome.accepted().map(|_| ()).map_err(|refusal| status(refusal.into()))
    }
}

/// Asks known replicas to make this one a voter, until it is.
pub async fn ask_for_promotion(
    peers: &PeerChannels,
    known: &[(NodeId, String)],
    request: &pb::PromoteRequest,
) -> Result<(), Status> {
    let policy = Policy { initial: Duration::from_millis(100), max: Duration::from_secs(2), total: None };
    let turn = AtomicUsize::new(0);
    retry::with_backoff(policy, || async {
        let (node, address) = &known[turn.fetch_add(1, Ordering::Relaxed) % known.len()];
        let channel = peers.shared(*node, address);
        let channel = channel.map_err(|e| Verdict::Again(unavailable(e.to_string())))?;
        match FleetClient::new(channel).promote(request.clone()).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::PermissionDenied => Err(Verdict::Fatal(status)),
            Err(status) => Err(Verdict::Again(status)),
        }
    })
    .await
}

/// Returns a role in the words of the API.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}

/// Returns the process's resident memory.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

/// The fleet service on the peer port.
#[derive(Clone)]
pub struct FleetService(pub Membership, pub Kek);

fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let certificates = request.extensions().get::<PeerCertificates>();
    let leaf = certificates.and_then(|c| c.0.first());
    leaf.and_then(replica_named_in).ok_or_else(|| Status::permission_denied("only replicas may ask this"))
}

#[async_trait]
impl Fleet for FleetService {
    async fn status(
        &self,
        _request: Request<pb::ReplicaStatusRequest>,
    ) -> Result<Response<pb::ReplicaStatusResponse>, Status> {
        Ok(Response::new(self.0.own_status()))
    }

    async fn promote(
        &self,
        request: Request<pb::PromoteRequest>,
    ) -> Result<Response<pb::PromoteResponse>, Status> {
        let node = caller(&request)?;
        let wish = request.into_inner();
        let member = Member {
            node,
            name: wish.name.clone(),
            api_address: wish.api_address.clone(),
            peer_address: wish.peer_address.clone(),
            agent_address: wish.agent_address.clone(),
            version: wish.version.clone(),
            feature_level: wish.feature_level,
        };
        if self.0.node.status().leader != Some(self.0.id.0) {
            // The caller's name is in its certificate, so it asks the leader itself.
            let leader = self.0.node.status().leader;
            return Err(unavailable(format!("replica {} does not lead, {leader:?} does", self.0.id)));
        }
        // Before it becomes a voter, not after: nobody would make it a learner again.
        if self.0.was_removed(node) {
            return Err(Status::permission_denied(format!(
                "replica {node} was removed from the fleet: join it anew"
            )));
        }
        self.0.promote_here(member.clone()).await.map_err(|error| of_member(&error))?;
        self.0.file(member).await?;
        Ok(Response::new(pb::PromoteResponse {}))
    }

    async fn readmit(
        &self,
        request: Request<pb::ReadmitRequest>,
    ) -> Result<Response<pb::ReadmitResponse>, Status> {
        let node = caller(&request)?;
        readmit(&self.0, &self.1, node).await.map(Response::new)
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveRequest>,
    ) -> Result<Response<pb::RemoveResponse>, Status> {
        let wish = request.into_inner();
        let removal = Removal {
            node: NodeId(wish.node_id),
            user: UserName::new(wish.user),
            request_id: Some(wish.request_id).filter(|id| !id.is_empty()).map(RequestId::from),
        };
        self.0.remove_here(&removal).await?;
        Ok(Response::new(pb::RemoveResponse {}))
    }

    async fn transfer(
        &self,
        request: Request<pb::TransferRequest>,
    ) -> Result<Response<pb::TransferResponse>, Status> {
        let to = Some(request.into_inner().node_id).filter(|n| *n != 0);
        let leader = self.0.node.transfer_leader(to, HAND_OVER).await.map_err(|e| of_member(&e))?;
        Ok(Response::new(pb::TransferResponse { leader }))
    }

    async fn watching(
        &self,
        _request: Request<pb::WatchingRequest>,
    ) -> Result<Response<pb::WatchingResponse>, Status> {
        Ok(Response::new(pb::WatchingResponse { connected: self.0.hub.stream_count() as u32 }))
    }

    async fn probe_clouds(
        &self,
        _request: Request<pb::ProbeOwnCloudsRequest>,
    ) -> Result<Response<pb::ProbeOwnCloudsResponse>, Status> {
        Ok(Response::new(pb::ProbeOwnCloudsResponse { probes: self.0.probe_own_clouds().await }))
    }
}
