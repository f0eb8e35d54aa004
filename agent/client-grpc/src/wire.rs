//! Between typed requests and wire messages.

use agent_api::{AgentError, Mode, Reply, Request};
use bytes::Bytes;
use model::{AgentId, Epoch, RequestId};
use proto::agent::v1 as agent_pb;
use proto::agent::v1::agent_fault::Kind as AgentKind;
use proto::peer::v1 as peer_pb;
use proto::peer::v1::relay_fault::Kind as RelayKind;

/// A request as it travels. Its arguments and content may hold secrets: it has no `Debug`.
#[derive(Clone)]
pub(crate) struct Call {
    pub agent: AgentId,
    pub id: RequestId,
    pub epoch: Epoch,
    pub method: String,
    pub arguments_json: Bytes,
    pub content: Bytes,
    pub mode: Mode,
}

/// What an agent answered when it did not give a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Failed(String),
    UnknownMethod,
    UnknownRequest,
    StaleEpoch(Epoch),
    Cancelled,
}

/// An agent's final answer.
pub(crate) type Answer = Result<Bytes, Fault>;

/// Whether the agent may have received the request before its stream broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Yes,
    No,
}

impl Sent {
    fn from_wire(sent: bool) -> Self {
        if sent { Self::Yes } else { Self::No }
    }
}

/// How one try on one stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    Answered(Answer),
    /// The stream is not here, or broke.
    StreamLost(Sent),
    TimedOut(Sent),
}

/// How a cancellation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    WasRunning,
    NotRunning,
    RefusedEpoch(Epoch),
    StreamLost,
}

impl Call {
    pub(crate) fn new(agent: &AgentId, request: &Request) -> Self {
        let content = match &request.method {
            agent_api::Method::UploadBlob { content, .. } => Bytes::copy_from_slice(content),
            _ => Bytes::new(),
        };
        let arguments = serde_json::Value::Array(request.method.arguments());
        Self {
            agent: agent.clone(),
            id: request.id.clone(),
            epoch: request.epoch,
            method: request.method.name().to_owned(),
            arguments_json: arguments.to_string().into(),
            content,
            mode: request.mode,
        }
    }

    pub(crate) fn to_agent(&self, sending: u64) -> agent_pb::AgentRequest {
        agent_pb::AgentRequest {
            request_id: self.id.to_string(),
            epoch: self.epoch.0,
            method: self.method.clone(),
            arguments_json: self.arguments_json.clone(),
            content: self.content.clone(),
            attach_only: self.mode == Mode::Attach,
            sending,
        }
    }

    pub(crate) fn to_peer(&self, timeout: std::time::Duration) -> peer_pb::RelayCallRequest {
        peer_pb::RelayCallRequest {
            agent_id: self.agent.to_string(),
            request_id: self.id.to_string(),
            epoch: self.epoch.0,
            method: self.method.clone(),
            arguments_json: self.arguments_json.clone(),
            content: self.content.clone(),
            attach_only: self.mode == Mode::Attach,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn from_peer(request: peer_pb::RelayCallRequest) -> Self {
        Self {
            agent: request.agent_id.into(),
            id: request.request_id.into(),
            epoch: Epoch(request.epoch),
            method: request.method,
            arguments_json: request.arguments_json,
            content: request.content,
            mode: if request.attach_only { Mode::Attach } else { Mode::Submit },
        }
    }
}

impl From<agent_pb::AgentFault> for Fault {
    fn from(fault: agent_pb::AgentFault) -> Self {
        match fault.kind() {
            AgentKind::UnknownMethod => Self::UnknownMethod,
            AgentKind::UnknownRequest => Self::UnknownRequest,
            AgentKind::StaleEpoch => Self::StaleEpoch(Epoch(fault.current_epoch)),
            AgentKind::Cancelled => Self::Cancelled,
            AgentKind::Failed | AgentKind::Unspecified => Self::Failed(fault.message),
        }
    }
}

impl Fault {
    fn to_peer(&self) -> peer_pb::RelayFault {
        let (kind, message, current_epoch) = match self {
            Self::Failed(message) => (RelayKind::Failed, message.clone(), 0),
            Self::UnknownMethod => (RelayKind::UnknownMethod, String::new(), 0),
            Self::UnknownRequest => (RelayKind::UnknownRequest, String::new(), 0),
            Self::StaleEpoch(current) => (RelayKind::StaleEpoch, String::new(), current.0),
            Self::Cancelled => (RelayKind::Cancelled, String::new(), 0),
        };
        peer_pb::RelayFault { kind: kind.into(), message, current_epoch }
    }

    fn from_peer(fault: peer_pb::RelayFault) -> Self {
        match fault.kind() {
            RelayKind::UnknownMethod => Self::UnknownMethod,
            RelayKind::UnknownRequest => Self::UnknownRequest,
            RelayKind::StaleEpoch => Self::StaleEpoch(Epoch(fault.current_epoch)),
            RelayKind::Cancelled => Self::Cancelled,
            RelayKind::Failed | RelayKind::Unspecified => Self::Failed(fault.message),
        }
    }

    fn into_error(self, agent: &AgentId, request: &Request) -> AgentError {
        let (agent, method) = (agent.clone(), request.method.name());
        match self {
            Self::Failed(message) => AgentError::Failed { method, message },
            Self::UnknownMethod => AgentError::UnknownMethod { method: method.to_owned() },
            Self::UnknownRequest => AgentError::UnknownRequest { agent, request: request.id.clone() },
            Self::StaleEpoch(current) => AgentError::StaleEpoch { agent, current },
            Self::Cancelled => AgentError::Cancelled { agent, method },
        }
    }
}

/// Turns an agent's final answer into what callers of [`agent_api::Agents`] get.
pub(crate) fn reply(agent: &AgentId, request: &Request, answer: Answer) -> Result<Reply, AgentError> {
    let value = answer.map_err(|fault| fault.into_error(agent, request))?;
    serde_json::from_slice(&value).map(Reply).map_err(|error| AgentError::Failed {
        method: request.method.name(),
        message: format!("the answer is not JSON: {error}"),
    })
}

/// Returns a response's final answer; `None` while the agent is still working.
pub(crate) fn answer_in(response: agent_pb::Response) -> Option<Answer> {
    use agent_pb::response::Result as Body;
    match response.result? {
        Body::Value(value) => Some(Ok(value)),
        Body::Fault(fault) => Some(Err(fault.into())),
        Body::Running(_) => None,
    }
}

impl Try {
    pub(crate) fn to_peer(&self) -> peer_pb::relay_call_event::Event {
        use peer_pb::relay_call_event::Event;
        match self {
            Self::Answered(Ok(value)) => Event::Value(value.clone()),
            Self::Answered(Err(fault)) => Event::Fault(fault.to_peer()),
            Self::StreamLost(sent) => {
                Event::StreamLost(peer_pb::RelayStreamLost { sent: *sent == Sent::Yes })
            }
            Self::TimedOut(sent) => Event::TimedOut(peer_pb::RelayTimedOut { sent: *sent == Sent::Yes }),
        }
    }

    /// Returns how a relayed try ended; `None` while the other replica is still waiting.
    pub(crate) fn from_peer(event: peer_pb::RelayCallEvent) -> Option<Self> {
        use peer_pb::relay_call_event::Event;
        Some(match event.event? {
            Event::Waiting(_) => return None,
            Event::Value(value) => Self::Answered(Ok(value)),
            Event::Fault(fault) => Self::Answered(Err(Fault::from_peer(fault))),
            Event::StreamLost(lost) => Self::StreamLost(Sent::from_wire(lost.sent)),
            Event::TimedOut(timed_out) => Self::TimedOut(Sent::from_wire(timed_out.sent)),
        })
    }
}

impl Cancelled {
    pub(crate) fn from_agent(result: &agent_pb::CancelResult) -> Self {
        use agent_pb::cancel_result::Outcome;
        match result.outcome() {
            Outcome::WasRunning => Self::WasRunning,
            Outcome::NotRunning | Outcome::Unspecified => Self::NotRunning,
            Outcome::RefusedEpoch => Self::RefusedEpoch(Epoch(result.current_epoch)),
        }
    }

    pub(crate) fn to_peer(self) -> peer_pb::RelayCancelResponse {
        use peer_pb::relay_cancel_response::Outcome;
        let (outcome, current_epoch) = match self {
            Self::WasRunning => (Outcome::WasRunning, 0),
            Self::NotRunning => (Outcome::NotRunning, 0),
            Self::RefusedEpoch(current) => (Outcome::RefusedEpoch, current.0),
            Self::StreamLost => (Outcome::StreamLost, 0),
        };
        peer_pb::RelayCancelResponse { outcome: outcome.into(), current_epoch }
    }

    pub(crate) fn from_peer(response: &peer_pb::RelayCancelResponse) -> Self {
        use peer_pb::relay_cancel_response::Outcome;
        match response.outcome() {
            Outcome::WasRunning => Self::WasRunning,
            Outcome::NotRunning => Self::NotRunning,
            Outcome::RefusedEpoch => Self::RefusedEpoch(Epoch(response.current_epoch)),
            Outcome::StreamLost | Outcome::Unspecified => Self::StreamLost,
        }
    }
}
