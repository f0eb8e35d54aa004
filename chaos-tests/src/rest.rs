//! A client of the REST door, as the `bosh` CLI is one: a new connection for each request, TLS with the fleet's authority,
//! redirects not followed.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// 200.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns a header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as a text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Somebody at one replica.
pub struct Client {
    address: String,
    connector: TlsConnector,
}

impl Client {
    /// Prepares for a replica.
    pub fn new(address: String, authority_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes())?)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends a request, and reads the answer to its end.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        login: Option<(&str, &str)>,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some((user, password)) = login {
            head += &format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")));
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        let tcp = TcpStream::connect(&self.address).await?;
        let mut stream = self.connector.connect(ServerName::try_from("127.0.0.1")?, tcp).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.with_context(|| format!("{method} {path}"))?;
        parse(&bytes).with_context(|| format!("{method} {path}: {}", String::from_utf8_lossy(&bytes)))
    }
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("a head")?;
    let head = std::str::from_utf8(&bytes[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("a status")?;
    let pair = |line: &str| {
        line.split_once(':').map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let mut answer =
        Answer { status, headers: lines.filter_map(pair).collect(), body: bytes[end + 4..].to_vec() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(&answer.body)?;
    }
    Ok(answer)
}

fn unchunked(mut bytes: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").context("a chunk's length")?;
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end])?.trim(), 16)?;
        let (from, to) = (end + 2, end + 2 + length);
        if length == 0 {
            return Ok(body);
        }
        body.extend(bytes.get(from..to).context("a whole chunk")?);
        bytes = bytes.get(to + 2..).context("a chunk's end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_in_chunks() {
        let whole = parse(b"HTTP/1.1 404 Not Found\r\nA-B: c\r\n\r\nx").unwrap();
        assert_eq!((whole.status, whole.header("a-b"), whole.text().as_str()), (404, Some("c"), "x"));
        let chunks =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")
                .unwrap();
        assert_eq!(chunks.text(), "abcd");
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab").is_err());
    }
}
