//! Between openraft's types and the messages that stand on the wire and on disk.
//!
//! Both use the messages of `proto::peer::v1`, so that neither depends on how a version of openraft happens to
//! serialize its types. What was written once is readable forever: the messages only gain fields.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, EntryPayload};
use prost::Message as _;
use proto::peer::v1 as wire;

use crate::type_config::{
    CommittedLeaderId, Entry, EntryBytes, LogId, Membership, Payload, StoredMembership, TypeConfig, Vote,
};

/// Why bytes or a message are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the message at all.
    #[error("malformed {what}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the decoder says.
        #[source]
        source: prost::DecodeError,
    },
    /// The message lacks a field.
    #[error("{what} lacks its {field}")]
    Missing {
        /// Which message.
        what: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// A membership that contradicts itself.
    #[error("the membership contradicts itself: {0}")]
    Membership(String),
}

pub(crate) fn vote_out(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote_in(vote: Option<wire::Vote>) -> Result<Vote, DecodeError> {
    let vote = vote.ok_or(DecodeError::Missing { what: "a consensus message", field: "vote" })?;
    Ok(match vote.committed {
        true => Vote::new_committed(vote.term, vote.node_id),
        false => Vote::new(vote.term, vote.node_id),
    })
}

pub(crate) fn log_id_out(id: &LogId) -> wire::LogId {
    wire::LogId { term: **id.committed_leader_id(), index: id.index }
}

pub(crate) fn log_id_in(id: wire::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term), id.index)
}

fn membership_out(membership: &Membership) -> wire::Membership {
    let voters = |ids: &BTreeSet<u64>| wire::membership::Voters { ids: ids.iter().copied().collect() };
    wire::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| wire::membership::Node { id: *id, address: node.addr.clone() })
            .collect(),
    }
}

fn membership_in(membership: wire::Membership) -> Result<Membership, DecodeError> {
    let configs = membership.configs.into_iter().map(|voters| voters.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, BasicNode> =
        membership.nodes.into_iter().map(|node| (node.id, BasicNode::new(node.address))).collect();
    Membership::new(configs, nodes).map_err(|error| DecodeError::Membership(error.to_string()))
}

pub(crate) fn stored_membership_out(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_out),
        membership: Some(membership_out(stored.membership())),
    }
}

pub(crate) fn stored_membership_in(stored: wire::StoredMembership) -> Result<StoredMembership, DecodeError> {
    let missing = DecodeError::Missing { what: "a stored membership", field: "membership" };
    let membership = membership_in(stored.membership.ok_or(missing)?)?;
    Ok(StoredMembership::new(stored.log_id.map(log_id_in), membership))
}

pub(crate) fn entry_out(entry: &Entry) -> wire::LogRecord {
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(EntryBytes(bytes)) => Some(wire::log_record::Payload::Normal(bytes.clone())),
        EntryPayload::Membership(membership) => {
            Some(wire::log_record::Payload::Membership(membership_out(membership)))
        }
    };
    wire::LogRecord { log_id: Some(log_id_out(&entry.log_id)), payload }
}

pub(crate) fn entry_in(record: wire::LogRecord) -> Result<Entry, DecodeError> {
    let log_id = record.log_id.ok_or(DecodeError::Missing { what: "a log record", field: "log id" })?;
    let payload: Payload = match record.payload {
        None => EntryPayload::Blank,
        Some(wire::log_record::Payload::Normal(bytes)) => EntryPayload::Normal(EntryBytes(bytes)),
        Some(wire::log_record::Payload::Membership(membership)) => {
            EntryPayload::Membership(membership_in(membership)?)
        }
    };
    Ok(Entry { log_id: log_id_in(log_id), payload })
}

pub(crate) fn append_request_out(request: AppendEntriesRequest<TypeConfig>) -> wire::AppendRequest {
    wire::AppendRequest {
        vote: Some(vote_out(&request.vote)),
        prev: request.prev_log_id.as_ref().map(log_id_out),
        committed: request.leader_commit.as_ref().map(log_id_out),
        entries: request.entries.iter().map(entry_out).collect(),
    }
}

pub(crate) fn append_request_in(
    request: wire::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, DecodeError> {
    Ok(AppendEntriesRequest {
        vote: vote_in(request.vote)?,
        prev_log_id: request.prev.map(log_id_in),
        leader_commit: request.committed.map(log_id_in),
        entries: request.entries.into_iter().map(entry_in).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn append_response_out(result: &StreamAppendResult<TypeConfig>) -> wire::AppendResponse {
    use wire::append_response::{Matched, Outcome};
    let outcome = match result {
        Ok(last) => Outcome::Matched(Matched { last: last.as_ref().map(log_id_out) }),
        Err(StreamAppendError::Conflict(id)) => Outcome::Conflict(log_id_out(id)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(vote_out(vote)),
    };
    wire::AppendResponse { outcome: Some(outcome) }
}

pub(crate) fn append_response_in(
    response: wire::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, DecodeError> {
    use wire::append_response::Outcome;
    let missing = DecodeError::Missing { what: "an append response", field: "outcome" };
    Ok(match response.outcome.ok_or(missing)? {
        Outcome::Matched(matched) => Ok(matched.last.map(log_id_in)),
        Outcome::Conflict(id) => Err(StreamAppendError::Conflict(log_id_in(id))),
        Outcome::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_in(Some(vote))?)),
    })
}

/// Whether a vote counts, or is only asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ballot {
    Real,
    Trial,
}

pub(crate) fn vote_request_out(request: &VoteRequest<TypeConfig>, ballot: Ballot) -> wire::VoteRequest {
    wire::VoteRequest {
        vote: Some(vote_out(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_out),
        leadership_transfer: request.leadership_transfer,
        pre_vote: ballot == Ballot::Trial,
    }
}

pub(crate) fn vote_request_in(
    request: wire::VoteRequest,
) -> Result<(VoteRequest<TypeConfig>, Ballot), DecodeError> {
    let mut decoded = VoteRequest::new(vote_in(request.vote)?, request.last.map(log_id_in));
    decoded.leadership_transfer = request.leadership_transfer;
    Ok((decoded, if request.pre_vote { Ballot::Trial } else { Ballot::Real }))
}

pub(crate) fn vote_response_out(response: &VoteResponse<TypeConfig>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote_out(&response.vote)),
        last: response.last_log_id.as_ref().map(log_id_out),
        granted: response.vote_granted,
    }
}

pub(crate) fn vote_response_in(
    response: wire::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, DecodeError> {
    Ok(VoteResponse::new(vote_in(response.vote)?, response.last.map(log_id_in), response.granted))
}

/// Returns the consent to `request` of somebody who was not heard: what [`known_bugs::Bug::QuorumOffByOne`] counts.
pub(crate) fn consent(request: wire::VoteRequest) -> wire::VoteResponse {
    wire::VoteResponse { vote: request.vote, last: None, granted: true }
}

pub(crate) fn transfer_request_out(
    request: &TransferLeaderRequest<TypeConfig>,
) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        from: Some(vote_out(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_out),
    }
}

pub(crate) fn transfer_request_in(
    request: wire::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, DecodeError> {
    Ok(TransferLeaderRequest::new(vote_in(request.from)?, request.to, request.last.map(log_id_in)))
}

pub(crate) fn transfer_response_out(
    response: &TransferLeaderResponse<TypeConfig>,
) -> wire::TransferLeaderResponse {
    use wire::transfer_leader_response::{LogNotFlushed, Refusal, VoteChanged};
    let refusal = match response {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Some(Refusal::VoteChanged(VoteChanged {
                expected: Some(vote_out(expected)),
                actual: Some(vote_out(actual)),
            }))
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Some(Refusal::LogNotFlushed(LogNotFlushed {
                expected: expected.as_ref().map(log_id_out),
                actual: actual.as_ref().map(log_id_out),
            }))
        }
    };
    wire::TransferLeaderResponse { refusal }
}

pub(crate) fn transfer_response_in(
    response: wire::TransferLeaderResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, DecodeError> {
    use wire::transfer_leader_response::Refusal;
    Ok(match response.refusal {
        None => Ok(()),
        Some(Refusal::VoteChanged(changed)) => Err(TransferLeaderError::VoteChanged {
            expected: vote_in(changed.expected)?,
            actual: vote_in(changed.actual)?,
        }),
        Some(Refusal::LogNotFlushed(missing)) => Err(TransferLeaderError::LogNotFlushed {
            expected: missing.expected.map(log_id_in),
            actual: missing.actual.map(log_id_in),
        }),
    })
}

pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    entry_out(entry).encode_to_vec()
}

pub(crate) fn decode_entry(raw: Bytes) -> Result<Entry, DecodeError> {
    entry_in(decode("log record", raw)?)
}

/// What stands at a place in the log, as the bytes on the disk say: for whoever compares logs from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// Its position.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// The owner's bytes; none for entries of consensus itself.
    pub content: Option<Bytes>,
}

impl LogRow {
    /// Reads the value of a row of the log database.
    pub fn read(value: &[u8]) -> Result<Self, DecodeError> {
        let entry = decode_entry(Bytes::copy_from_slice(value))?;
        let content = match entry.payload {
            EntryPayload::Normal(EntryBytes(bytes)) => Some(bytes),
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        };
        Ok(Self { index: entry.log_id.index, term: **entry.log_id.committed_leader_id(), content })
    }
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    vote_out(vote).encode_to_vec()
}

pub(crate) fn decode_vote(raw: &[u8]) -> Result<Vote, DecodeError> {
    vote_in(Some(decode("vote", raw)?))
}

pub(crate) fn encode_log_id(id: &LogId) -> Vec<u8> {
    log_id_out(id).encode_to_vec()
}

pub(crate) fn decode_log_id(raw: &[u8]) -> Result<LogId, DecodeError> {
    Ok(log_id_in(decode("log id", raw)?))
}

pub(crate) fn encode_stored_membership(stored: &StoredMembership) -> Vec<u8> {
    stored_membership_out(stored).encode_to_vec()
}

pub(crate) fn decode_stored_membership(raw: &[u8]) -> Result<StoredMembership, DecodeError> {
    stored_membership_in(decode("membership", raw)?)
}

fn decode<M: prost::Message + Default>(what: &'static str, raw: impl bytes::Buf) -> Result<M, DecodeError> {
    M::decode(raw).map_err(|source| DecodeError::Malformed { what, source })
}
