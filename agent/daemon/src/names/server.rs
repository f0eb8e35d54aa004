//! Programs' questions, by datagram and by connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use owned_tasks::{OnExit, OwnedTasks};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::Names;
use super::upstream::{HEADER_BYTES, Upstreams, Way, read_message, write_message};
use super::zone::{Found, Zone};

/// The longest datagram that we take, and send to whoever says that it takes as much.
const DATAGRAM_BYTES_MAX: u16 = 4096;

/// What everybody takes.
const DATAGRAM_BYTES_LEAST: u16 = 512;

/// The longest message over a connection.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// Questions of names of others that wait for an answer at once; further ones are dropped, and asked again by who asked.
const FORWARDED_MAX: usize = 128;

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection may be silent.
const SILENT: Duration = Duration::from_secs(10);

/// Pause after an error of a socket's, so that one that stays keeps nobody busy.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// Answers are for now: who dies falls out of the next one.
const LIFETIME_SECONDS: u32 = 0;

/// Where programs ask.
pub(super) struct Sockets {
    datagrams: UdpSocket,
    connections: TcpListener,
}

impl Sockets {
    pub(super) async fn bind(listen: SocketAddr) -> std::io::Result<Self> {
        let connections = TcpListener::bind(listen).await?;
        // With port 0 both get the same one.
        let datagrams = UdpSocket::bind(connections.local_addr()?).await?;
        Ok(Self { datagrams, connections })
    }

    #[cfg(test)]
    fn address(&self) -> SocketAddr {
        self.datagrams.local_addr().unwrap()
    }
}

/// Who answers.
#[derive(Clone)]
pub(super) struct Server {
    names: Arc<Names>,
    upstreams: Arc<Upstreams>,
    forwarded: Arc<Semaphore>,
    connected: Arc<Semaphore>,
}

/// What becomes of a question.
#[derive(Debug)]
enum Reply {
    Answer(Message, u16),
    /// It is about a name of others.
    Forward,
    /// It is none.
    Drop,
}

impl Server {
    pub(super) fn new(names: Arc<Names>, upstreams: Upstreams) -> Self {
        let (forwarded, connected) = (Semaphore::new(FORWARDED_MAX), Semaphore::new(CONNECTIONS_MAX));
        Self { names, upstreams: upstreams.into(), forwarded: forwarded.into(), connected: connected.into() }
    }

    /// Answers until a socket fails.
    pub(super) async fn run(&self, sockets: Sockets, tasks: &OwnedTasks) {
        let Sockets { datagrams, connections } = sockets;
        tokio::select! {
            () = self.datagrams(Arc::new(datagrams), tasks) => {}
            () = self.connections(connections, tasks) => {}
        }
    }

    async fn datagrams(&self, socket: Arc<UdpSocket>, tasks: &OwnedTasks) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX.into()];
        loop {
            // An answer to somebody who has gone comes back as an error of the socket's: that is not the end of it.
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            };
            let question = buffer[..length].to_vec();
            match reply(&self.names.zone(), &question, !self.upstreams.is_empty()) {
                Reply::Answer(answer, bytes_max) => {
                    if let Some(bytes) = written(answer, bytes_max.into()) {
                        // Whoever does not get it asks again.
                        let _ = socket.send_to(&bytes, from).await;
                    }
                }
                Reply::Forward => self.forward(question, (socket.clone(), from), tasks),
                Reply::Drop => {}
            }
        }
    }

    /// Passes a question on, and its answer back, beside the others.
    fn forward(&self, question: Vec<u8>, (socket, from): (Arc<UdpSocket>, SocketAddr), tasks: &OwnedTasks) {
        let Ok(permit) = self.forwarded.clone().try_acquire_owned() else { return };
        let server = self.clone();
        tasks.spawn("name of others", OnExit::Ignore, move |stop| async move {
            let _permit = permit;
            let answer = tokio::select! {
                answer = server.ask(&question, Way::Datagram) => answer,
                () = stop.cancelled() => None,
            };
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }

    async fn ask(&self, question: &[u8], way: Way) -> Option<Vec<u8>> {
        match self.upstreams.ask(question, way).await {
            Some(answer) => Some(answer),
            None => written(failure(question, ResponseCode::ServFail)?, MESSAGE_BYTES_MAX),
        }
    }

    async fn connections(&self, listener: TcpListener, tasks: &OwnedTasks) {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = self.connected.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            };
            let server = self.clone();
            tasks.spawn("questions over a connection", OnExit::Ignore, move |stop| async move {
                let _permit = permit;
                tokio::select! {
                    // However it ends, the other side sees that it has.
                    _ = server.converse(stream) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let question = tokio::time::timeout(SILENT, read_message(&mut stream)).await??;
            let answer = match reply(&self.names.zone(), &question, !self.upstreams.is_empty()) {
                Reply::Answer(answer, _) => written(answer, MESSAGE_BYTES_MAX),
                Reply::Forward => self.ask(&question, Way::Connection).await,
                Reply::Drop => return Ok(()),
            };
            let Some(answer) = answer else { return Ok(()) };
            tokio::time::timeout(SILENT, write_message(&mut stream, &answer)).await??;
        }
    }
}

/// Decides what becomes of a question, and how long the answer may be.
fn reply(zone: &Zone, bytes: &[u8], can_forward: bool) -> Reply {
    let Ok(asked) = Message::from_vec(bytes) else {
        let Some(answer) = failure(bytes, ResponseCode::FormErr) else { return Reply::Drop };
        return Reply::Answer(answer, DATAGRAM_BYTES_LEAST);
    };
    if asked.metadata.message_type != MessageType::Query {
        return Reply::Drop;
    }
    let bytes_max = asked
        .edns
        .as_ref()
        .map_or(DATAGRAM_BYTES_LEAST, Edns::max_payload)
        .clamp(DATAGRAM_BYTES_LEAST, DATAGRAM_BYTES_MAX);
    let mut answer = answer_to(&asked);
    answer.metadata.recursion_available = can_forward;
    let code = match (asked.metadata.op_code, asked.queries.as_slice()) {
        (OpCode::Query, [question]) if question.query_class() == DNSClass::IN => {
            match zone.find(&question.name().to_ascii()) {
                Found::NotOurs if can_forward => return Reply::Forward,
                // Nobody here knows, and nobody can be asked.
                Found::NotOurs => ResponseCode::Refused,
                Found::Nothing => ResponseCode::NXDomain,
                Found::BadName => ResponseCode::FormErr,
                Found::Addresses(addresses) => {
                    let of_kind = addresses.into_iter().filter_map(|ip| data(ip, question.query_type()));
                    let name = question.name().clone();
                    answer.answers = of_kind
                        .map(|data| Record::from_rdata(name.clone(), LIFETIME_SECONDS, data))
                        .collect();
                    ResponseCode::NoError
                }
            }
        }
        (OpCode::Query, [_]) => ResponseCode::Refused,
        (OpCode::Query, _) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    answer.metadata.response_code = code;
    answer.metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    Reply::Answer(answer, bytes_max)
}

/// Returns an address as an answer to questions of this type.
fn data(ip: IpAddr, asked: RecordType) -> Option<RData> {
    match (ip, asked) {
        (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => Some(RData::A(A(ip))),
        (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(ip))),
        _ => None,
    }
}

/// Returns an answer to a question that says nothing yet.
fn answer_to(asked: &Message) -> Message {
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&asked.metadata);
    answer.queries = asked.queries.clone();
    if asked.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX);
        answer.edns = Some(edns);
    }
    answer
}

/// Returns an answer that says no; none to what is too short to be a question, or is an answer itself.
fn failure(question: &[u8], code: ResponseCode) -> Option<Message> {
    const IS_ANSWER: u8 = 0x80;
    let [high, low, flags, ..] = *question.get(..HEADER_BYTES)? else { return None };
    if flags & IS_ANSWER != 0 {
        return None;
    }
    let mut answer = match Message::from_vec(question) {
        Ok(asked) => answer_to(&asked),
        Err(_) => Message::response(u16::from_be_bytes([high, low]), OpCode::Query),
    };
    answer.metadata.response_code = code;
    Some(answer)
}

/// Returns a message's bytes: if it is too long, without its answers and with word of that, so that they are asked for over a
/// connection.
fn written(message: Message, bytes_max: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= bytes_max { Some(bytes) } else { message.truncate().to_vec().ok() }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
