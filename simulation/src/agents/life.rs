//! The life of an agent, as far as directors hear of it: it dials one, goes where it is sent, says that it is alive, and
//! leaves who does not answer. What it is asked to do over its stream, to answer a ping, the fake agent does.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{AgentError, Agents, Method, Mode, Request};
use agent_client_grpc::PeerAgent;
use dagent::{DIAL_AGAIN, Directory, acknowledged_within, moment_after_loss};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::{AgentId, Epoch};
use owned_tasks::{OnExit, OwnedTasks};
use proto::agent::v1::{
    AgentFault, AgentMessage, AgentRequest, DirectorMessage, Heartbeat, Hello, Response, Welcome,
    agent_fault, agent_message, director_message, response,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::chance::Chance;
use crate::net::{Net, Place};
use crate::outside::OUTSIDE;
use crate::services::{Replica, Services};
use crate::streams::Opener;

/// How long a director may take to accept an agent: what the real one gives a connection.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(5);

/// Messages on their way up.
const OUTBOUND_MAX: usize = 32;

/// How long the fake agent may take for a ping; who asks gives up before.
const PING_WITHIN: Duration = Duration::from_secs(5);

/// Returns the address at which a replica awaits agents.
pub fn address(replica: u64) -> String {
    format!("replica-{replica}")
}

fn replica_at(address: &str) -> Option<u64> {
    address.strip_prefix("replica-")?.parse().ok()
}

/// An agent that lives.
pub struct Life {
    /// Who it is.
    pub agent: AgentId,
    /// The key that it has enrolled with.
    pub key: String,
    /// What answers for it.
    pub answers: Arc<dyn Agents>,
    /// Its network.
    pub net: Net,
    /// What its streams run in.
    pub tasks: OwnedTasks,
    /// Chance of its own.
    pub chance: Chance,
    /// Whom to dial.
    pub directory: Directory,
    /// Whether its VM runs. One that does not hears nothing and says nothing, and whoever has its stream is not told.
    pub runs: watch::Receiver<bool>,
}

/// A stream to a director.
struct Session {
    inbound: BoxStream<'static, Result<DirectorMessage, Status>>,
    outbound: mpsc::Sender<AgentMessage>,
    interval: Duration,
    sequence: u64,
    next_heartbeat: Instant,
    unacknowledged_since: Option<Instant>,
}

/// What a director answered to a hello.
enum Opened {
    Welcome(Session, Vec<String>),
    Redirect(String, Vec<String>),
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Life {
    /// Lives.
    pub async fn run(mut self) {
        let mut waits = DIAL_AGAIN.waits();
        loop {
            self.running().await;
            match self.attach().await {
                Some((session, address)) => {
                    waits.reset();
                    self.stay(session, &address).await;
                }
                // The policy has no end.
                None => tokio::time::sleep(waits.next().unwrap_or(DIAL_AGAIN.max)).await,
            }
        }
    }

    /// Waits until the VM runs.
    async fn running(&mut self) {
        if self.runs.wait_for(|runs| *runs).await.is_err() {
            // Who could let it run again is gone.
            std::future::pending().await
        }
    }

    async fn attach(&mut self) -> Option<(Session, String)> {
        loop {
            let address = self.directory.next(now(), self.chance.numbers())?;
            match tokio::time::timeout(ACCEPTED_WITHIN, self.open(&address)).await.ok().flatten() {
                Some(Opened::Welcome(session, known)) => {
                    self.directory.learn(known);
                    self.directory.served(&address, now());
                    return Some((session, address));
                }
                Some(Opened::Redirect(home, known)) => {
                    self.directory.learn(known);
                    self.directory.redirected(home, now());
                }
                None => {
                    self.directory.failed(&address, now());
                    return None;
                }
            }
        }
    }

    async fn open(&self, address: &str) -> Option<Opened> {
        let hello = Hello {
            agent_id: self.agent.to_string(),
            unreachable_home: self.directory.unreachable_home(now()).unwrap_or_default().to_owned(),
            ..Hello::default()
        };
        let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
        let hello = AgentMessage { body: Some(agent_message::Body::Hello(hello)) };
        outbound.try_send(hello).ok()?;
        let me = Place { process: OUTSIDE, life: 1 };
        let opener = Opener { net: &self.net, me, tasks: &self.tasks };
        let peer = PeerAgent { agent: self.agent.clone(), public_key: self.key.clone().into_bytes() };
        let serve = move |services: Services, messages: BoxStream<'static, AgentMessage>| {
            let Services::Replica(Replica { hub, .. }) = services else { return None };
            let peer = peer.clone();
            Some(async move { hub.attach(peer, messages.map(Ok).boxed()).await.ok() })
        };
        let mut inbound = opener.open(replica_at(address)?, ReceiverStream::new(messages).boxed(), serve);
        let known = |list: Option<proto::agent::v1::Endpoints>| list.unwrap_or_default().endpoints;
        Some(match inbound.next().await?.ok()?.body? {
            director_message::Body::Welcome(Welcome { heartbeat_interval_ms, endpoints, .. }) => {
                let session = Session {
                    inbound,
                    outbound,
                    interval: Duration::from_millis(heartbeat_interval_ms.into()),
                    sequence: 0,
                    next_heartbeat: Instant::now(),
                    unacknowledged_since: None,
                };
                Opened::Welcome(session, known(endpoints))
            }
            director_message::Body::Redirect(to) => Opened::Redirect(to.endpoint, known(to.endpoints)),
            _ => return None,
        })
    }

    /// Stays with a director until it is lost or sends the agent away.
    async fn stay(&mut self, mut session: Session, address: &str) {
        loop {
            self.running().await;
            let silence =
                session.unacknowledged_since.map(|since| since + acknowledged_within(session.interval));
            let next = tokio::select! {
                biased;
                Ok(()) = self.runs.changed() => continue,
                message = session.inbound.next() => message,
                () = tokio::time::sleep_until(session.next_heartbeat) => {
                    self.heartbeat(&mut session);
                    continue;
                }
                () = at(silence) => None,
            };
            match next.and_then(|message| message.ok()?.body) {
                Some(director_message::Body::HeartbeatAck(ack)) => {
                    if ack.sequence >= session.sequence {
                        session.unacknowledged_since = None;
                    }
                }
                Some(director_message::Body::Request(request)) => self.answer(&session, request),
                Some(director_message::Body::Endpoints(known)) => {
                    self.directory.learn(known.endpoints);
                }
                Some(director_message::Body::Redirect(to)) => {
                    self.directory.learn(to.endpoints.unwrap_or_default().endpoints);
                    return self.directory.redirected(to.endpoint, now());
                }
                Some(director_message::Body::Welcome(_) | director_message::Body::Cancel(_)) => {}
                None => {
                    self.directory.failed(address, now());
                    let moment = moment_after_loss(self.chance.numbers());
                    return tokio::time::sleep(moment).await;
                }
            }
        }
    }

    fn heartbeat(&mut self, session: &mut Session) {
        session.sequence += 1;
        let heartbeat =
            Heartbeat { sequence: session.sequence, job_state: "running".into(), ..Heartbeat::default() };
        // When it is full the director has stopped reading: the missing acknowledgement will tell.
        let _ =
            session.outbound.try_send(AgentMessage { body: Some(agent_message::Body::Heartbeat(heartbeat)) });
        session.unacknowledged_since.get_or_insert_with(Instant::now);
        let jitter = self.chance.between(900, 999) as f64 / 1000.0;
        session.next_heartbeat = Instant::now() + session.interval.mul_f64(jitter);
    }

    /// Answers a request, which may take a while.
    fn answer(&self, session: &Session, asked: AgentRequest) {
        let (agent, answers, outbound) = (self.agent.clone(), self.answers.clone(), session.outbound.clone());
        self.tasks.spawn("request", OnExit::Ignore, move |_| async move {
            let request = Request {
                id: asked.request_id.clone().into(),
                epoch: Epoch(asked.epoch),
                mode: Mode::Submit,
                timeout: PING_WITHIN,
                method: Method::Ping,
            };
            let result = match answers.call(&agent, request).await {
                Ok(reply) => response::Result::Value(reply.0.to_string().into()),
                Err(AgentError::StaleEpoch { current, .. }) => response::Result::Fault(AgentFault {
                    kind: agent_fault::Kind::StaleEpoch.into(),
                    current_epoch: current.0,
                    ..AgentFault::default()
                }),
                // It does not answer, and who asked finds out by itself.
                Err(_) => return,
            };
            let response =
                Response { request_id: asked.request_id, result: Some(result), sending: asked.sending };
            // Whoever asked may have been lost meanwhile.
            let _ = outbound.try_send(AgentMessage { body: Some(agent_message::Body::Response(response)) });
        });
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
