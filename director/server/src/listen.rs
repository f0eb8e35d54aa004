//! Serving a port: accept, TLS with the identity of the moment, HTTP/2 or 1.1, and an end that lets requests finish.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_client_grpc::PeerCertificates;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use crate::tls::{OutOfTime, PortKind, TlsIdentity, replica_named_in};

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long an HTTP/1 client may take for the head of a request; also how long it may be idle between two.
const HEADERS: Duration = Duration::from_secs(60);

/// Requests of one replica to another at once: more than suspects are asked at once, and steps of tasks are done.
const PEER_STREAMS_MAX: u32 = 4096;

/// Connections to one port. Agents of a large fleet hold one each.
const CONNECTIONS_MAX: usize = 20_000;

/// How often an idle HTTP/2 connection is asked whether the other side is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Remembers for all ports when it was last said that a certificate was refused for its dates.
static OUT_OF_TIME: OutOfTime = OutOfTime::new();

/// Where a request came from, in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub SocketAddr);

/// Serves `router` on a port until `stop`.
pub async fn serve(
    listener: TcpListener,
    identity: Arc<TlsIdentity>,
    kind: PortKind,
    router: Router,
    tasks: OwnedTasks,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = tokio::select! {
            place = room.clone().acquire_owned() => place,
            () = stop.cancelled() => return,
        };
        let Ok(place) = place else { return };
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: give the connections that are there a moment to end.
                    warn!(error = %error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let (identity, router) = (identity.clone(), router.clone());
        tasks.spawn("connection", OnExit::Ignore, move |stop| async move {
            connection(stream, from, identity, kind, router, stop).await;
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    identity: Arc<TlsIdentity>,
    kind: PortKind,
    router: Router,
    stop: CancellationToken,
) {
    // Small answers must not wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(identity.server(kind));
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            if !OUT_OF_TIME.tell(&error, &from) {
                debug!(%from, error = %error, "TLS handshake failed");
            }
            return;
        }
        Err(_) => return debug!(%from, "TLS handshake took too long"),
    };
    let certificates = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|c| Arc::new(c.iter().map(|c| c.clone().into_owned()).collect::<Vec<_>>()));
    if kind == PortKind::Peer && certificates.as_ref().and_then(|c| replica_named_in(c.first()?)).is_none() {
        return warn!(%from, "refused on the peer port: the certificate does not belong to a replica");
    }
    let service = router.map_request(move |mut request: axum::http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ClientAddress(from));
        if let Some(certificates) = &certificates {
            request.extensions_mut().insert(PeerCertificates(certificates.clone()));
        }
        request.map(axum::body::Body::new)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE)
        .timer(TokioTimer::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    if kind == PortKind::Peer {
        // All relayed requests of a replica share one connection, and each agent that is looked for takes a place in it.
        builder.http2().max_concurrent_streams(PEER_STREAMS_MAX);
    }
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            // Streams that never end by themselves (agents, followers of a task) are cut after a moment; both resume.
            tokio::time::timeout(Duration::from_millis(500), served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%from, error = %error, "connection ended with an error");
    }
}
