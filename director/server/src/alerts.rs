//! What agents' supervisors notice, on its way to the audit log.
//!
//! Alerts come in on the agents' streams, which must not wait; they leave as events, a few a second: a fleet whose services
//! all fail must not drown the log in saying so, and no agent may say so much that others are not heard. What finds no
//! place is counted and told as a number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agent_client_grpc::Alert;
use model::{AgentId, RequestId, Timestamp};
use ring::digest::{SHA256, digest};
use state::State;
use state::command::{Command, NewEvent};
use state::log::{CommandLog as _, LogError, Proposal};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::fleet::log::RaftLog;

/// Alerts that wait to be filed.
const WAITING_MAX: usize = 256;

/// Least time between two events: at most ten a second of each replica.
const FILED_EVERY: Duration = Duration::from_millis(100);

/// Alerts that one agent may hand in within each [`AGENTS_SPAN`].
const OF_AN_AGENT_MAX: u32 = 20;

const AGENTS_SPAN: Duration = Duration::from_secs(60);

/// Longest text of an alert that is kept.
const TEXT_CHARS_MAX: usize = 1024;

/// Where alerts are handed in.
pub struct AlertDesk {
    waiting: mpsc::Sender<(AgentId, Alert)>,
    lost: std::sync::Arc<AtomicU64>,
    /// How many each agent has handed in since when.
    given: Mutex<HashMap<AgentId, (Instant, u32)>>,
}

/// Alerts that were handed in.
pub struct Handed {
    waiting: mpsc::Receiver<(AgentId, Alert)>,
    lost: std::sync::Arc<AtomicU64>,
}

/// Opens a desk.
pub fn desk() -> (AlertDesk, Handed) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let lost = std::sync::Arc::<AtomicU64>::default();
    (
        AlertDesk { waiting: sender, lost: lost.clone(), given: Mutex::default() },
        Handed { waiting: receiver, lost },
    )
}

impl AlertDesk {
    /// Takes an alert in, or counts it if too many wait, or too many come from this agent. Never blocks.
    pub fn hand_in(&self, agent: &AgentId, alert: Alert) {
        if !self.may(agent) || self.waiting.try_send((agent.clone(), alert)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn may(&self, agent: &AgentId) -> bool {
        let now = Instant::now();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if !given.contains_key(agent) {
            given.retain(|_, (since, _)| now.duration_since(*since) < AGENTS_SPAN);
        }
        let (since, count) = given.entry(agent.clone()).or_insert((now, 0));
        if now.duration_since(*since) >= AGENTS_SPAN {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= OF_AN_AGENT_MAX
    }
}

/// Files what is handed in, for the life of the process.
pub async fn file(log: RaftLog, mut handed: Handed, stop: CancellationToken) {
    let filing = async {
        while let Some((agent, alert)) = handed.waiting.recv().await {
            let lost = handed.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                warn!(lost, "so many alerts come in that some are not filed");
            }
            let proposal = {
                let view = log.view();
                event(&State::new(&*view), &agent, &alert)
            };
            if let Some(proposal) = proposal
                && let Err(error) = keep_proposing(&log, proposal).await
            {
                warn!(%agent, title = alert.title, error = %error, "an alert could not be filed");
            }
            tokio::time::sleep(FILED_EVERY).await;
        }
    };
    tokio::select! {
        () = filing => {}
        () = stop.cancelled() => {}
    }
}

/// Proposes until there is a leader again: what agents notice in an outage is worth knowing. Its request id makes it one.
async fn keep_proposing(log: &RaftLog, proposal: Proposal) -> Result<(), LogError> {
    loop {
        match log.propose(proposal.clone()).await {
            Err(LogError::NoLeader(_)) => {}
            answer => return answer.map(drop),
        }
    }
}

/// Returns the event that an alert becomes, worded as BOSH's health monitor words it; none for an agent that nobody knows.
fn event(state: &State<'_>, agent: &AgentId, alert: &Alert) -> Option<Proposal> {
    let record = state.agent(agent)?;
    let text = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect::<String>();
    let at = OffsetDateTime::from_unix_timestamp(alert.created_at_unix).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let shown = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let shown = at.format(&shown).unwrap_or_default();
    let (title, summary, severity) = (text(&alert.title), text(&alert.summary), alert.severity);
    let message = format!("{title}. Alert @ {shown}, severity {severity}: {summary}");
    let event = NewEvent {
        action: "create".into(),
        object_type: "alert".into(),
        object_name: Some(text(&alert.id)),
        deployment: Some(record.deployment),
        instance: state.instance(&record.instance).map(|instance| instance.slug()),
        at: Some(Timestamp(alert.created_at_unix.saturating_mul(1000))),
        context: [("message".to_owned(), message.into())].into(),
        ..NewEvent::default()
    };
    // The same alert by another replica, after the stream that it was sent on was lost, is no second event.
    let id = digest(&SHA256, format!("alert {} of agent {agent}", alert.id).as_bytes());
    let command = Command::EventPut { event: Box::new(event) };
    Some(Proposal { request_id: Some(RequestId::new(hex::encode(id))), ..Proposal::own(command) })
}

#[cfg(test)]
mod tests {
    use owned_tasks::{OnExit, OwnedTasks};
    use state::query::EventFilter;

    use super::*;
    use crate::test_support::replica::Replica;

    fn alert(id: &str) -> Alert {
        Alert {
            id: id.into(),
            severity: 1,
            title: "redis (10.0.0.9) - does not exist - restart".into(),
            summary: "does not exist: restart".into(),
            created_at_unix: 1_700_000_000,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_alert_becomes_one_event() {
        let (replica, _) = Replica::with_agent().await;
        let (tasks, (desk, handed)) = (OwnedTasks::new(), desk());
        let log = replica.log.clone();
        tasks.spawn("alerts", OnExit::Ignore, |stop| file(log, handed, stop));
        for (agent, id) in [("a1", "one"), ("a1", "one"), ("unknown", "two"), ("a1", "three")] {
            desk.hand_in(&agent.into(), alert(id));
        }
        let filed = || {
            let view = replica.log.view();
            let filter = EventFilter { object_type: Some("alert".into()), ..EventFilter::default() };
            State::new(&*view).events(&filter, None, 10)
        };
        while filed().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let event = filed().pop().unwrap();
        assert_eq!((event.action.as_str(), event.object_name.as_deref()), ("create", Some("one")));
        assert_eq!((event.deployment, event.instance.as_deref()), (Some("web".into()), Some("api/i1")));
        assert_eq!(
            event.context["message"],
            "redis (10.0.0.9) - does not exist - restart. Alert @ 2023-11-14 22:13:20 UTC, severity 1: does not exist: restart"
        );
        assert_eq!(filed().len(), 2, "the repeat and the stranger's are none");
        assert!(tasks.stop(Duration::from_secs(10)).await);
        replica.stop().await;
    }

    #[test]
    fn what_finds_no_place_is_counted() {
        let (desk, handed) = desk();
        for n in 0..WAITING_MAX + 3 {
            desk.hand_in(&format!("a{n}").into(), alert("one"));
        }
        assert_eq!(handed.lost.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn no_agent_takes_the_places_of_others() {
        let (desk, handed) = desk();
        let lost = || handed.lost.load(Ordering::Relaxed);
        for n in 0..OF_AN_AGENT_MAX + 5 {
            desk.hand_in(&"loud".into(), alert(&n.to_string()));
        }
        assert_eq!(lost(), 5);
        desk.hand_in(&"quiet".into(), alert("one"));
        assert_eq!(lost(), 5);
        tokio::time::advance(AGENTS_SPAN).await;
        desk.hand_in(&"loud".into(), alert("later"));
        assert_eq!(lost(), 5);
    }
}
