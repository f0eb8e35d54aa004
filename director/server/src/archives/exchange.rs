//! One request and its answer, on a connection of their own. Nobody else drives the connection: whoever reads does.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use axum::body::Body;
use axum::http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderMap, USER_AGENT};
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use futures::{Stream, stream};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::target::Target;

/// A way to send and receive.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

type Connection = http1::Connection<TokioIo<Box<dyn Wire>>, Body>;

/// Connects to a target, at whichever of its addresses answers first.
pub(super) async fn connect(target: &Target, tls: Option<TlsConnector>) -> anyhow::Result<Box<dyn Wire>> {
    let found = lookup_host((target.host.as_str(), target.port)).await.context("look its address up")?;
    let mut why = anyhow!("it has no address");
    for address in found {
        if is_off_limits(address.ip()) {
            why = anyhow!("link-local addresses are not asked: machines are told their secrets there");
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(connected) => return agree(connected, target, tls).await,
            Err(error) => why = anyhow::Error::new(error).context("connect"),
        }
    }
    Err(why)
}

/// Whether an address is one of those at which a cloud serves metadata to its own machines.
pub(super) fn is_off_limits(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

async fn agree(
    connected: TcpStream,
    target: &Target,
    tls: Option<TlsConnector>,
) -> anyhow::Result<Box<dyn Wire>> {
    let Some(tls) = tls else { return Ok(Box::new(connected)) };
    let name = ServerName::try_from(target.host.clone()).context("its name can't be in a certificate")?;
    Ok(Box::new(tls.connect(name, connected).await.context("agree on TLS")?))
}

/// An answer whose content is still to be read.
pub(super) struct Exchange {
    answer: Response<Incoming>,
    driven: Driven,
    /// A connection without anybody who could send on it would be closed.
    _sender: SendRequest<Body>,
}

/// A connection until it has ended.
struct Driven(Option<Pin<Box<Connection>>>);

impl Driven {
    /// Lets it send and receive. What goes wrong is told by what was waited for.
    fn poll(&mut self, cx: &mut TaskContext<'_>) {
        if self.0.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

impl Exchange {
    /// Asks for the target, and waits for the head of the answer.
    pub async fn begin(wire: Box<dyn Wire>, target: &Target) -> anyhow::Result<Self> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await.context("begin to ask")?;
        let mut driven = Driven(Some(Box::pin(connection)));
        let mut request = Request::get(&target.path)
            .header(HOST, &target.authority)
            .header(ACCEPT, "*/*")
            .header(USER_AGENT, concat!("directord/", env!("CARGO_PKG_VERSION")));
        if let Some(login) = &target.login {
            request = request.header(AUTHORIZATION, login);
        }
        let request = request.body(Body::empty()).context("put the request together")?;
        let answer = {
            let mut asking = std::pin::pin!(sender.send_request(request));
            poll_fn(|cx| {
                driven.poll(cx);
                asking.as_mut().poll(cx)
            })
            .await
            .context("ask")?
        };
        Ok(Self { answer, driven, _sender: sender })
    }

    pub fn status(&self) -> StatusCode {
        self.answer.status()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.answer.headers()
    }

    /// Returns the content as it comes. It ends with an error once nothing came for too long, or all of it takes too long.
    pub fn pieces(self, stall: Duration, until: Instant) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::try_unfold(self, move |mut exchange| async move {
            let now = Instant::now();
            let last = until.min(now + stall);
            let text = if last == until { "it takes too long" } else { "nothing more comes" };
            let piece = timeout_at(last, poll_fn(|cx| exchange.poll_piece(cx))).await;
            let piece = piece.unwrap_or_else(|_| Some(Err(io::Error::new(io::ErrorKind::TimedOut, text))));
            Ok(piece.transpose()?.map(|piece| (piece, exchange)))
        })
    }

    fn poll_piece(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            // What was received is waiting in the body; only the connection receives more.
            let frame = match Pin::new(self.answer.body_mut()).poll_frame(cx) {
                Poll::Pending => {
                    self.driven.poll(cx);
                    std::task::ready!(Pin::new(self.answer.body_mut()).poll_frame(cx))
                }
                Poll::Ready(frame) => frame,
            };
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(io::Error::other(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => Some(Ok(piece)),
                    // Trailers.
                    Err(_) => continue,
                },
            });
        }
    }
}
