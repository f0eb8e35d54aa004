//! Agents that lie, on a real server with BOSH's permissions: whatever they say, it is their own affair.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_api::{AgentError, Agents as _, Alert, Heartbeat, HeartbeatSink, Method, Mode, Reply, Request};
use agent_client_nats::{Reports, users};
use async_nats::Client;
use futures::StreamExt as _;
use model::{AgentId, Epoch};
use owned_tasks::{OnExit, OwnedTasks};
use serde_json::{Value, json};
use support::{Book, GoAgent, NatsServer, PATIENCE, Replica, go_agent, missing, options, until};

/// A server, a replica that asks and hears, an honest agent `good`, and `evil`, who has a certificate and permissions as any.
struct World {
    server: Arc<NatsServer>,
    replica: Replica,
    good: GoAgent,
    evil: Client,
    heard: Arc<Heard>,
    tasks: OwnedTasks,
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn push(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn count(&self, text: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|heard| *heard == text).count()
    }
}

impl HeartbeatSink for Heard {
    fn heartbeat(&self, heartbeat: Heartbeat) {
        self.push(format!("{} lives", heartbeat.agent));
    }

    fn alert(&self, agent: &AgentId, alert: Alert) {
        self.push(format!("{agent} alert {}", alert.title));
    }

    fn connected(&self, _agent: &AgentId) {}

    fn disconnected(&self, agent: &AgentId) {
        self.push(format!("{agent} stops"));
    }
}

impl World {
    async fn new() -> Self {
        let server = Arc::new(NatsServer::start(&["good", "evil"]).await);
        let (heard, tasks) = (Arc::new(Heard::default()), OwnedTasks::new());
        Reports::listen(&options(&server, users::HEALTH), heard.clone(), &tasks).await.unwrap();
        let replica = Replica::start(&server, &Arc::new(Book::default())).await;
        let good = GoAgent::start(&server, "good").await;
        let evil = go_agent::connect(&server, &users::common_name(&"evil".into())).await;
        Self { server, replica, good, evil, heard, tasks }
    }

    /// Has `evil` answer whatever it is asked with what `answers` makes of the request: subjects and payloads.
    async fn evil_answers(&self, answers: impl Fn(&Value) -> Vec<(String, Vec<u8>)> + Send + Sync + 'static) {
        let mut asked = self.evil.subscribe("agent.evil").await.unwrap();
        self.evil.flush().await.unwrap();
        let client = self.evil.clone();
        self.tasks.spawn("evil", OnExit::Ignore, |stop| async move {
            let answer = async {
                while let Some(message) = asked.next().await {
                    let request: Value = serde_json::from_slice(&message.payload).unwrap();
                    for (subject, payload) in answers(&request) {
                        let _ = client.publish(subject, payload.into()).await;
                    }
                }
            };
            tokio::select! { () = answer => {}, () = stop.cancelled() => {} }
        });
    }

    async fn ping(&self, agent: &str, timeout: Duration) -> Result<Reply, AgentError> {
        let request =
            Request { id: "p".into(), epoch: Epoch(7), mode: Mode::Submit, timeout, method: Method::Ping };
        self.replica.agents.call(&agent.into(), request).await
    }

    async fn good_is_well(&self) {
        assert_eq!(self.ping("good", PATIENCE).await, Ok(Reply(json!("pong"))));
        let before = self.heard.count("good lives");
        self.good.restart().await;
        until("the good one's heartbeat", || self.heard.count("good lives") > before).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop_token().cancel();
    }
}

fn reply_to(request: &Value) -> String {
    request["reply_to"].as_str().unwrap().to_owned()
}

macro_rules! lie {
    ($(#[$doc:meta])* async fn $name:ident($world:ident) $body:block) => {
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if let Some(why) = missing() {
                return println!("skipped: {why}");
            }
            let $world = World::new().await;
            $body
            $world.good_is_well().await;
        }
    };
}

lie! {
    async fn nobody_speaks_for_another(world) {
        for subject in ["hm.agent.heartbeat.good", "hm.agent.alert.good", "hm.agent.shutdown.good"] {
            world.evil.publish(subject, r#"{"job_state":"failing"}"#.into()).await.unwrap();
        }
        // One's own comes through, and after the others: they were not let in.
        let before = world.heard.count("good lives");
        world.evil.publish("hm.agent.heartbeat.evil", r#"{"job_state":"running"}"#.into()).await.unwrap();
        until("its own heartbeat", || world.heard.count("evil lives") == 1).await;
        assert!(before <= 1 && world.heard.count("good lives") <= 1);
        assert_eq!(world.heard.count("good stops"), 0);
    }
}

lie! {
    /// Nor can it hear what others are asked, or what they answer.
    async fn nobody_hears_what_another_is_asked(world) {
        let mut asked = world.evil.subscribe("agent.good").await.unwrap();
        let mut all = world.evil.subscribe(">").await.unwrap();
        let mut answers = world.evil.subscribe("director.>").await.unwrap();
        world.evil.flush().await.unwrap();
        world.ping("good", PATIENCE).await.unwrap();
        world.evil.flush().await.unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(200), async {
            tokio::select! { m = asked.next() => m, m = all.next() => m, m = answers.next() => m }
        });
        assert!(!matches!(heard.await, Ok(Some(_))));
    }
}

lie! {
    /// It learns a director's inbox from what it is asked itself. Under its own id nothing of another's is awaited.
    async fn an_answer_to_what_another_was_asked_is_nobody_s(world) {
        let stolen = Arc::new(Mutex::new(Vec::new()));
        let seen = stolen.clone();
        world.evil_answers(move |request| {
            let to = reply_to(request);
            seen.lock().unwrap().push(to.clone());
            let as_good = to.replace(".evil.", ".good.");
            vec![(as_good, br#"{"value":"evil"}"#.to_vec()), (to, br#"{"value":"own"}"#.to_vec())]
        }).await;
        assert_eq!(world.ping("evil", PATIENCE).await, Ok(Reply(json!("own"))));
        assert_eq!(stolen.lock().unwrap().len(), 1);
    }
}

lie! {
    async fn a_replayed_answer_is_nobody_s(world) {
        let first = Arc::new(Mutex::new(None));
        let memory = first.clone();
        world.evil_answers(move |request| {
            let mut first = memory.lock().unwrap();
            let old = first.get_or_insert_with(|| reply_to(request)).clone();
            let replayed = (old, br#"{"value":"replayed"}"#.to_vec());
            vec![replayed.clone(), replayed, (reply_to(request), br#"{"value":"fresh"}"#.to_vec())]
        }).await;
        assert_eq!(world.ping("evil", PATIENCE).await, Ok(Reply(json!("replayed"))));
        for _ in 0..3 {
            assert_eq!(world.ping("evil", PATIENCE).await, Ok(Reply(json!("fresh"))));
        }
    }
}

lie! {
    async fn garbage_fails_the_one_request_it_answers(world) {
        let answers = [&b"\xff\xfe\x00"[..], b"", b"[[[[", br#"{"value":{"agent_task_id":7,"state":[]}}"#];
        let place = Arc::new(Mutex::new(0));
        let next = place.clone();
        world.evil_answers(move |request| {
            let mut next = next.lock().unwrap();
            *next += 1;
            vec![(reply_to(request), answers[*next - 1].to_vec())]
        }).await;
        for _ in 0..3 {
            let asked = world.ping("evil", PATIENCE).await;
            assert!(matches!(asked, Err(AgentError::Failed { method: "ping", .. })), "{asked:?}");
        }
        // An object without the two texts is a result like any other.
        assert!(world.ping("evil", PATIENCE).await.is_ok());
        for subject in ["hm.agent.heartbeat.evil", "hm.agent.alert.evil"] {
            world.evil.publish(subject, "\u{0}garbage".into()).await.unwrap();
        }
    }
}

lie! {
    async fn a_flood_of_giant_reports_drowns_nobody(world) {
        let giant = json!({ "job_state": "running", "vitals": "x".repeat((1 << 20) - 100) }).to_string();
        let giant = bytes::Bytes::from(giant);
        for _ in 0..100 {
            world.evil.publish("hm.agent.heartbeat.evil", giant.clone()).await.unwrap();
        }
        world.evil.publish("hm.agent.heartbeat.evil", r#"{"job_state":"running"}"#.into()).await.unwrap();
        until("the one that can be read", || world.heard.count("evil lives") == 1).await;
    }
}

lie! {
    /// A task that never ends, and one that is another's: both keep only whoever asked for them.
    async fn an_agent_that_never_ends_keeps_nobody_else(world) {
        world.evil_answers(|request| {
            let running = br#"{"value":{"agent_task_id":"t","state":"running"}}"#.to_vec();
            vec![(reply_to(request), running)]
        }).await;
        let asked = world.ping("evil", Duration::from_secs(1)).await;
        assert!(matches!(asked, Err(AgentError::TimedOut { .. })), "{asked:?}");
    }
}

lie! {
    /// Until its VM is deleted, whatever it does; from then on, nothing.
    async fn an_agent_whose_vm_is_gone_is_let_in_no_more(world) {
        world.server.authorise(&["good"]);
        until("the end of its connection", || {
            world.evil.connection_state() != async_nats::connection::State::Connected
        }).await;
        let refused = go_agent::try_connect(&world.server, &users::common_name(&"evil".into())).await;
        assert_eq!(refused.unwrap_err().kind(), async_nats::ConnectErrorKind::AuthorizationViolation);
    }
}

lie! {
    async fn an_agent_is_let_in_under_both_its_names(world) {
        let early = go_agent::connect(&world.server, &users::bootstrap_common_name(&"evil".into())).await;
        early.publish("hm.agent.heartbeat.evil", r#"{"job_state":"running"}"#.into()).await.unwrap();
        until("its heartbeat", || world.heard.count("evil lives") == 1).await;
    }
}
