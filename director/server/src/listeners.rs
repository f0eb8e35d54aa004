//! The ports of a replica.

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::config::Config;

/// The ports of a replica, open before anything else: a port that is taken is the most common mistake.
pub struct Listeners {
    /// For people and programs.
    pub api: TcpListener,
    /// For replicas.
    pub peer: TcpListener,
    /// For agents.
    pub agent: TcpListener,
    /// For what agents of BOSH's fetch.
    pub blobs: Option<TcpListener>,
    /// For metrics and probes.
    pub probes: Option<TcpListener>,
}

impl Listeners {
    /// Opens all of them.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = |key: &'static str, address: std::net::SocketAddr| async move {
            TcpListener::bind(address).await.with_context(|| format!("listen on {key}.listen = {address}"))
        };
        Ok(Self {
            api: bind("api", config.api.listen).await?,
            peer: bind("peer", config.peer.listen).await?,
            agent: bind("agent", config.agent.listen).await?,
            blobs: match &config.blob_port {
                Some(blobs) => Some(bind("blobs", blobs.port.listen).await?),
                None => None,
            },
            probes: match config.metrics {
                Some(address) => Some(bind("metrics", address).await?),
                None => None,
            },
        })
    }
}
