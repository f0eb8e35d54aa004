//! A register per key: a config of a kind of its own. Read, write, and compare-and-set by the id of the newest version.
//!
//! A client that gets no answer gives up after a while, long before an operator would, each after another: what nobody
//! knows is what makes a history interesting. Unknown is told from failed by what the error means: only what the fleet decides before it
//! stores anything, or because of what it has stored, is certain.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use checkers::history::Process;
use checkers::linearizable::register::{Answer, Call, Value, What};
use dctl::call;
use dctl::error::Error;
use proto::v1::configs_client::ConfigsClient;
use proto::v1::{GetConfigRequest, PutConfigRequest};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::Ground;
use crate::client::Client;

/// The kind of config that a register is.
pub const KIND: &str = "register";

/// How long one replica may take: it may be stopped, or cut off.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// How long clients try in all, under one request id: through an election, through most of one, and hardly at all.
const TOTALS: [Duration; 3] = [Duration::from_secs(4), Duration::from_secs(1), Duration::from_millis(250)];

/// Pause between operations: the machine has other things to do.
const PAUSE_MS: std::ops::Range<u64> = 2..30;

/// The values of all registers: each is written once.
pub(super) type Values = Rc<AtomicU64>;

/// Asks one thing after the other of registers that others use too.
pub(super) async fn run(ground: &Ground, number: usize, registers: usize, values: Values) -> Result<()> {
    let total = TOTALS[number % TOTALS.len()];
    let mut user = User {
        client: ground.client(number, ATTEMPT_MAX.min(total), total)?,
        process: ground.registers.process(),
        known: HashMap::new(),
        chance: ground.chance(1, number),
    };
    while !ground.is_over() {
        let key = format!("r{}", user.chance.random_range(0..registers));
        let new = || values.fetch_add(1, Ordering::Relaxed) + 1;
        let what = match user.chance.random_range(0..10) {
            0..5 => What::Read,
            5..8 => What::Write(new()),
            _ => What::CompareAndSet {
                expected: user.known.get(&key).and_then(|(_, value)| *value),
                new: new(),
            },
        };
        user.ask(ground, key, what).await?;
        let pause = Duration::from_millis(user.chance.random_range(PAUSE_MS));
        ground.pause(pause).await;
    }
    Ok(())
}

/// One client.
struct User {
    client: Client,
    process: Process<Call>,
    /// What it has seen last of each register: the version's id, and the value.
    known: HashMap<String, (u64, Value)>,
    chance: StdRng,
}

/// What an operation came to.
enum End {
    /// The register holds this now, as far as this client knows.
    Ok { answer: Answer, version: Option<(u64, Value)> },
    /// It has not happened and will not.
    Never(String),
    /// Nobody knows.
    Unknown(String),
}

impl User {
    async fn ask(&mut self, ground: &Ground, key: String, what: What) -> Result<()> {
        let known = self.known.get(&key).map_or(0, |(id, _)| *id);
        let call = Call { key: Arc::from(key.as_str()), what };
        let open = self.process.invoke(ground.now_us(), call);
        let end = match what {
            What::Read => read(&self.client, &key).await?,
            What::Write(value) => put(&self.client, &key, value, None).await,
            What::CompareAndSet { new, .. } => put(&self.client, &key, new, Some(known)).await,
        };
        let now_us = ground.now_us();
        match end {
            End::Ok { answer, version } => {
                open.ok(now_us, answer);
                self.known.extend(version.map(|version| (key, version)));
            }
            End::Never(why) => open.fail(now_us, why),
            End::Unknown(why) => open.unknown(now_us, why),
        }
        Ok(())
    }
}

async fn read(client: &Client, key: &str) -> Result<End> {
    let request = GetConfigRequest { id: 0, r#type: KIND.into(), name: key.into() };
    let version = match call!(client.fleet, ConfigsClient.get(request)).await {
        Ok(config) => {
            let value = config.content.strip_prefix("value: ").and_then(|text| text.parse().ok());
            (config.id, Some(value.with_context(|| format!("`{}` is no register", config.content))?))
        }
        Err(Error::Refused { status: tonic::Code::NotFound, .. }) => (0, None),
        // Reading changes nothing: one without an answer is as good as none.
        Err(error) => return Ok(End::Never(told(&error))),
    };
    Ok(End::Ok { answer: Answer::Read(version.1), version: Some(version) })
}

async fn put(client: &Client, key: &str, value: u64, expected: Option<u64>) -> End {
    let request = PutConfigRequest {
        request_id: dctl::client::request_id(),
        r#type: KIND.into(),
        name: key.into(),
        content: format!("value: {value}"),
        expected_latest_id: expected,
    };
    match call!(client.fleet, ConfigsClient.put(request)).await {
        Ok(stored) => {
            let answer = if expected.is_some() { Answer::Swapped } else { Answer::Written };
            End::Ok { answer, version: Some((stored.id, Some(value))) }
        }
        Err(error) => refused(&error, expected.is_some()),
    }
}

/// Says what an error means for a write.
fn refused(error: &Error, was_conditional: bool) -> End {
    match error {
        Error::Refused { code: Some((_, name)), .. }
            if was_conditional && name == "ConfigExpectedLatestIdMismatch" =>
        {
            End::Ok { answer: Answer::Mismatch, version: None }
        }
        // Decided by looking at the request alone: no attempt can have got further.
        Error::NotLoggedIn(_) | Error::NotAllowed(_) | Error::Usage(_) => End::Never(told(error)),
        Error::Refused { status: tonic::Code::InvalidArgument, .. } => End::Never(told(error)),
        // Also other refusals: they are about the last attempt, and one before it may have arrived.
        _ => End::Unknown(told(error)),
    }
}

fn told(error: &Error) -> String {
    match error {
        Error::Unreachable { tried, .. } => {
            let why: Vec<String> =
                tried.iter().map(|tried| format!("{}: {}", tried.endpoint, tried.why)).collect();
            format!("{error} ({})", why.join("; "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: tonic::Code, name: &str) -> Error {
        let code = (!name.is_empty()).then(|| (440_013, name.to_owned()));
        Error::Refused { operation: "ConfigsClient.put", code, status, message: "no".into() }
    }

    #[test]
    fn only_what_is_certain_is_called_certain() {
        let lost = Error::Unreachable { operation: "x", tried: Vec::new(), within: TOTALS[0] };
        assert!(matches!(refused(&lost, false), End::Unknown(_)));
        let bug = refusal(tonic::Code::Internal, "");
        assert!(matches!(refused(&bug, true), End::Unknown(_)));
        let level = refusal(tonic::Code::FailedPrecondition, "MemberTooOld");
        assert!(matches!(refused(&level, false), End::Unknown(_)));
        let invalid = refusal(tonic::Code::InvalidArgument, "BadConfig");
        assert!(matches!(refused(&invalid, false), End::Never(_)));
        let moved = refusal(tonic::Code::FailedPrecondition, "ConfigExpectedLatestIdMismatch");
        assert!(matches!(refused(&moved, true), End::Ok { answer: Answer::Mismatch, .. }));
        // Nobody expected anything: the answer is somebody else's.
        assert!(matches!(refused(&moved, false), End::Unknown(_)));
    }
}
