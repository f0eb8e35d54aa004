//! What a replica says of itself over plain HTTP: no login, no other replica, no log needed. So it also answers while it
//! is cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for a replica: one that is stopped accepts and says nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// A replica's numbers, those without labels.
#[derive(Clone, Debug, Default)]
pub struct Numbers(BTreeMap<String, f64>);

impl Numbers {
    /// Asks the replica whose probes are at `address`.
    pub async fn of(address: &str) -> Result<Self> {
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: replica\r\nConnection: close\r\n\r\n").await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok::<_, std::io::Error>(text)
        };
        let text = tokio::time::timeout(PATIENCE, asked).await.context("no answer in time")??;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let number = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Self(text.lines().filter(|line| line.starts_with("directorate_")).filter_map(number).collect())
    }

    /// Returns whether the replica believes that it leads.
    pub fn leads(&self) -> bool {
        self.get("directorate_raft_leader") == 1.0
    }

    /// Returns its term.
    pub fn term(&self) -> u64 {
        self.get("directorate_raft_term") as u64
    }

    /// Returns how many agents are connected to it.
    pub fn agent_streams(&self) -> u64 {
        self.get("directorate_agent_streams") as u64
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_labels_passed_over() {
        let numbers = Numbers::parse(
            "HTTP/1.1 200 OK\r\n\r\n# HELP directorate_raft_term The term\n# TYPE directorate_raft_term gauge\n\
             directorate_raft_term 7\ndirectorate_raft_leader 1\r\ndirectorate_rpc_seconds{a=\"b c\"} 3\n",
        );
        assert!(numbers.leads());
        assert_eq!((numbers.term(), numbers.agent_streams()), (7, 0));
    }
}
