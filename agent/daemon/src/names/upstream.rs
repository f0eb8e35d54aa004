//! Names of others: asked of the networks' name servers, one after the other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::PORT;

/// How long one name server may take. Programs ask again after five seconds: the next one should have had its turn by then.
const ONE: Duration = Duration::from_secs(2);

/// Name servers that are asked, as resolvers of C libraries do.
const SERVERS_MAX: usize = 3;

/// The longest answer by datagram.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// The length of a message's header, which begins with its number.
pub(super) const HEADER_BYTES: usize = 12;

/// How a question came, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In one datagram.
    Datagram,
    /// Over a connection.
    Connection,
}

/// Name servers of the networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Upstreams(Vec<SocketAddr>);

impl Upstreams {
    /// Returns those of the network that is the default for DNS, or of all where none says so. Never ourselves.
    pub(super) fn of_networks<'a>(networks: impl Iterator<Item = &'a Value>, own: SocketAddr) -> Self {
        let all: Vec<&Value> = networks.collect();
        let is_default = |network: &&&Value| {
            let defaults = network["default"].as_array();
            defaults.is_some_and(|defaults| defaults.iter().any(|default| default == "dns"))
        };
        let default: Vec<&Value> = all.iter().filter(is_default).copied().collect();
        let chosen = if default.is_empty() { all } else { default };
        let servers = chosen.iter().flat_map(|network| network["dns"].as_array().into_iter().flatten());
        let addresses = servers.filter_map(|server| server.as_str()?.parse::<IpAddr>().ok());
        let others = addresses.map(|ip| SocketAddr::new(ip, PORT)).filter(|server| *server != own);
        Self(others.take(SERVERS_MAX).collect())
    }

    #[cfg(test)]
    pub(super) fn at(servers: &[SocketAddr]) -> Self {
        Self(servers.to_vec())
    }

    /// Returns whether there is anybody to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks one after the other; none if nobody answers in time.
    pub(super) async fn ask(&self, question: &[u8], way: Way) -> Option<Vec<u8>> {
        for server in &self.0 {
            let asked = async {
                match way {
                    Way::Datagram => by_datagram(*server, question).await,
                    Way::Connection => by_connection(*server, question).await,
                }
            };
            if let Ok(Ok(answer)) = tokio::time::timeout(ONE, asked).await {
                return Some(answer);
            }
        }
        None
    }
}

async fn by_datagram(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    // A port of its own for every question, and only its server is heard: answers are hard to forge.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= HEADER_BYTES && answer.get(..2) == question.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_connection(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, question).await?;
    read_message(&mut stream).await
}

/// Writes a message with its length in front.
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let too_long = |_| std::io::Error::other("a message is too long");
    let length = u16::try_from(message.len()).map_err(too_long)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// Reads a message with its length in front; no message has more than 64 KiB.
pub(super) async fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_default_network_s_name_servers_are_asked_but_never_ourselves() {
        let own: SocketAddr = "127.0.0.53:53".parse().unwrap();
        let a = json!({ "dns": ["10.0.0.2", "127.0.0.53"], "default": ["dns", "gateway"] });
        let b = json!({ "dns": ["10.9.0.2"], "default": [] });
        let of = |networks: &[&Value]| Upstreams::of_networks(networks.iter().copied(), own);
        let at = |ips: &[&str]| {
            Upstreams(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), PORT)).collect())
        };
        assert_eq!(of(&[&b, &a]), at(&["10.0.0.2"]));
        assert_eq!(of(&[&b]), at(&["10.9.0.2"]));
        assert!(of(&[&json!({ "dns": null })]).is_empty());
    }
}
