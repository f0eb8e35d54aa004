//! The way to a director: straight, or by somebody who opens the connection for us.
//!
//! A VM on a private network may have no way of its own to where directors are. Then a proxy beside it has one: asked with HTTP's
//! `CONNECT`, it carries bytes. Who a director is proves its certificate, so the proxy need not be trusted.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest answer of a proxy, up to the empty line.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// How directors are dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// At their own addresses.
    Direct,
    /// Through a proxy.
    Through(SocketAddr),
}

impl Way {
    /// Returns the way that settings name.
    pub fn of(proxy: Option<SocketAddr>) -> Self {
        proxy.map_or(Self::Direct, Self::Through)
    }

    /// Opens a connection to `host:port`. The caller bounds the time.
    pub async fn open(self, endpoint: &str) -> io::Result<TcpStream> {
        let Self::Through(proxy) = self else { return TcpStream::connect(endpoint).await };
        let mut stream = TcpStream::connect(proxy).await?;
        stream.set_nodelay(true)?;
        let question = format!("CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n");
        stream.write_all(question.as_bytes()).await?;
        let answer = head(&mut stream).await?;
        match answer.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(stream),
            _ => {
                let first = answer.lines().next().unwrap_or_default();
                Err(io::Error::other(format!("the proxy {proxy} says `{first}`")))
            }
        }
    }
}

/// Reads up to the empty line and not a byte beyond: what follows is the director's.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        if read.len() >= ANSWER_BYTES_MAX {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        read.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with `answer` and returns what it was asked.
    async fn proxied(answer: &'static str) -> (io::Result<TcpStream>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Way::of(Some(listener.local_addr().unwrap()));
        let proxy = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = head(&mut stream).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            (asked, stream)
        };
        let (opened, (asked, _stream)) = tokio::join!(way.open("d1.example:25557"), proxy);
        (opened, asked)
    }

    #[tokio::test]
    async fn a_proxy_carries_from_the_first_byte_after_its_answer() {
        let (opened, asked) = proxied("HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello").await;
        assert!(asked.starts_with("CONNECT d1.example:25557 HTTP/1.1\r\n"), "{asked}");
        let mut said = [0; 5];
        opened.unwrap().read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_quoted() {
        let (opened, _) = proxied("HTTP/1.1 403 Not a director\r\n\r\n").await;
        let error = opened.unwrap_err().to_string();
        assert!(error.ends_with("says `HTTP/1.1 403 Not a director`"), "{error}");
    }
}
