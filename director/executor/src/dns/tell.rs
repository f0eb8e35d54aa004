//! Telling all agents of the newest document: side by side, bounded, and again those who did not hear.

use std::time::Duration;

use agent_api::Fares;
use futures::stream::{self, StreamExt as _};
use model::AgentId;
use state::State;
use state::records::AgentHealth;
use tokio::time::Instant;
use tracing::debug;

use super::desk::{Document, NotTold};
use crate::lease::Fence;
use crate::ports::Ports;

/// Agents told at once.
const TOLD_AT_ONCE: usize = 32;

/// How long a round may take, as in BOSH; whoever was not told by then is told in the next.
const ROUND: Duration = Duration::from_secs(10);

/// How long one agent may take: it fetches the document.
const ONE: Duration = Duration::from_secs(5);

/// Pause before those are told again who did not hear.
const AGAIN: Duration = Duration::from_secs(5);

/// What telling one agent costs the fleet, roughly. All agents are told once in so much time for each, so that a large
/// deploy, which changes the records all the time, is not slowed down by the news of it.
const SPACING: Duration = Duration::from_millis(3);

/// Bounds of the pause between two rounds that follow from it.
const PAUSES: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(30);

/// Tells agents for as long as this replica leads.
pub(super) async fn run(ports: &Ports, fence: &Fence) {
    let mut published = ports.dns.follow();
    while fence.check().is_ok() {
        let (document, fares) = {
            let published = published.borrow_and_update();
            (published.document.clone(), published.fares.clone())
        };
        let (mut again, mut rest) = (None, Duration::ZERO);
        if let Some(document) = document {
            let told = Instant::now();
            if round(ports, fence, (&document, &fares)).await.is_err() {
                return;
            }
            let all = u32::try_from(document.agents.len()).unwrap_or(u32::MAX);
            rest = SPACING.saturating_mul(all).clamp(PAUSES.start, PAUSES.end);
            let is_behind = |agent: &AgentId| !ports.dns.has(agent, &document, &fares);
            again = document.agents.iter().any(is_behind).then(|| told + rest.max(AGAIN));
        }
        let news = async {
            tokio::time::sleep(rest).await;
            // The sender is the desk's.
            let _ = published.changed().await;
        };
        tokio::select! {
            biased;
            _ = fence.lost() => return,
            () = news => {}
            () = at(again) => {}
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Tells whoever is behind. The silent hear nothing, and would keep others waiting: they are told when they are back.
async fn round(ports: &Ports, fence: &Fence, news: (&Document, &Fares)) -> Result<(), NotTold> {
    let (document, fares) = news;
    let behind: Vec<AgentId> = {
        let view = ports.log.view();
        let state = State::new(&*view);
        let is_there = |agent: &AgentId| {
            let record = state.agent(agent);
            record.is_some_and(|record| matches!(record.health, AgentHealth::New | AgentHealth::Alive))
        };
        let behind = document.agents.iter().filter(|agent| !ports.dns.has(agent, document, fares));
        behind.filter(|agent| is_there(agent)).cloned().collect()
    };
    let tell = |agent: AgentId| async move {
        let told = ports.dns.tell(ports, fence, &agent, news, ONE).await;
        if let Err(error) = &told {
            debug!(agent = %agent, version = document.version, error = %error, "an agent did not take DNS records");
        }
        told
    };
    let mut round = stream::iter(behind).map(tell).buffer_unordered(TOLD_AT_ONCE);
    let all = async {
        while let Some(told) = round.next().await {
            if let Err(lost @ NotTold::Lost(_)) = told {
                return Err(lost);
            }
        }
        Ok(())
    };
    // Who is still being told goes on by itself: the request has left.
    tokio::time::timeout(ROUND, all).await.unwrap_or(Ok(()))
}
