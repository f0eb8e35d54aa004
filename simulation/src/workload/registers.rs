//! Clients of registers: one per key, and a register is a config. What they saw is judged in the end.

use std::sync::Arc;
use std::time::Duration;

use checkers::history::{Process, Recorder};
use checkers::linearizable::register::{Answer as Seen, Call, What};
use model::{ConfigId, RequestId};
use state::State;
use state::command::{Command, Outcome, Refusal};

use super::{Answer, Client};
use crate::clock;

/// How many registers there are.
const KEYS: u64 = 3;

/// How long an answer may take before nobody knows.
const PATIENCE: Duration = Duration::from_secs(8);

/// A client of registers.
pub struct RegisterClient {
    /// How it asks.
    pub client: Client,
    /// Where it writes down what it saw.
    pub process: Process<Call>,
    /// Told apart from the others' by it: every value is written once.
    pub number: u64,
}

/// Returns where all clients of registers write.
pub fn recorder() -> Arc<Recorder<Call>> {
    Recorder::new()
}

fn now_us() -> u64 {
    clock::now_ms() * 1000
}

fn key(number: u64) -> Arc<str> {
    format!("r{number}").into()
}

impl RegisterClient {
    /// Reads and writes until there is no more time.
    pub async fn run(mut self) {
        // What was seen last: the config's number is what a compare-and-set names.
        let mut known: Vec<Option<(ConfigId, Option<u64>)>> = vec![None; KEYS as usize];
        let mut written = 0;
        while !self.client.enough.is_cancelled() {
            let at = self.client.between(0, KEYS - 1) as usize;
            written += 1;
            let value = self.number * 1_000_000 + written;
            match (self.client.between(0, 9), known[at]) {
                (0..4, _) => known[at] = self.read(at as u64).await,
                (4..7, Some((id, expected))) => self.swap(at as u64, id, expected, value).await,
                _ => self.write(at as u64, value).await,
            }
            self.client.pause(0, 250).await;
        }
    }

    async fn read(&mut self, at: u64) -> Option<(ConfigId, Option<u64>)> {
        let open = self.process.invoke(now_us(), Call { key: key(at), what: What::Read });
        let Some(view) = self.client.look(PATIENCE).await else {
            open.fail(now_us(), "no answer; and it changes nothing");
            return None;
        };
        let config = State::new(&*view).latest_config("register", &key(at));
        let value = config.as_ref().and_then(|config| config.content.parse().ok());
        open.ok(now_us(), Seen::Read(value));
        config.map(|config| (config.id, value))
    }

    async fn write(&mut self, at: u64, value: u64) {
        let open = self.process.invoke(now_us(), Call { key: key(at), what: What::Write(value) });
        match put(&self.client, at, value, None).await {
            Answer::Known(Ok(_)) => open.ok(now_us(), Seen::Written),
            Answer::Known(Err(refusal)) => open.fail(now_us(), refusal.to_string()),
            Answer::Unknown => open.unknown(now_us(), "no answer"),
        }
    }

    async fn swap(&mut self, at: u64, id: ConfigId, expected: Option<u64>, new: u64) {
        let what = What::CompareAndSet { expected, new };
        let open = self.process.invoke(now_us(), Call { key: key(at), what });
        match put(&self.client, at, new, Some(id)).await {
            Answer::Known(Ok(Outcome::ConfigStored { .. })) => open.ok(now_us(), Seen::Swapped),
            Answer::Known(Err(Refusal::ConfigMoved { .. })) => open.ok(now_us(), Seen::Mismatch),
            Answer::Known(other) => open.fail(now_us(), format!("{other:?}")),
            Answer::Unknown => open.unknown(now_us(), "no answer"),
        }
    }
}

async fn put(client: &Client, at: u64, value: u64, expected_latest: Option<ConfigId>) -> Answer {
    let id = RequestId::new(format!("{}-{value}", client.name));
    let (kind, name) = ("register".to_owned(), key(at).to_string());
    let command = Command::ConfigPut { kind, name, content: value.to_string(), expected_latest };
    client.ask(&id, &command, PATIENCE).await
}
