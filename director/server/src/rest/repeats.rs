//! Mutations that are sent again. The CLI repeats any request that got no answer, up to five times, half a second apart,
//! and its requests carry no key by which the second could be told from the first. So a key is made of who asks, from
//! where, for what: while the task of the first is under way, whoever asks for the very same is told of that one.
//!
//! The key is in the log, so it holds on any replica and after a failover. Its limits: somebody who gives the same command
//! twice from one address while the first is under way, and within a minute or two, gets one task; and a
//! repeat is not recognised if a full minute begins between the two and the first has not reached the log by then.

use std::net::IpAddr;

use axum::http::request::Parts;
use model::RequestId;
use ring::digest::{Context, SHA256};
use service::{Caller, Read, Service, ServiceError, scoped};
use state::State;
use state::command::Outcome;

use crate::fleet::log::now;
use crate::listen::ClientAddress;

/// How long a key is looked for, at least; at most twice as long.
const WINDOW_MS: i64 = 60_000;

/// Returns the key of a mutation: that of the same one, if its task is still under way, or a new one.
pub(super) async fn key(
    service: &Service,
    caller: &Caller,
    parts: &Parts,
    content: &[u8],
) -> Result<RequestId, ServiceError> {
    let from = parts.extensions.get::<ClientAddress>().map(|address| address.0.ip());
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let wish = Wish { method: parts.method.as_str(), target, from, content };
    let looked = service.look(Read::Linearizable).await?;
    let state = State::new(&*looked.view);
    let window = now().0.div_euclid(WINDOW_MS);
    let (before, is_open) = wish.first_not_over(&state, caller, window - 1);
    if is_open {
        return Ok(before);
    }
    Ok(wish.first_not_over(&state, caller, window).0)
}

/// What is asked for.
struct Wish<'a> {
    method: &'a str,
    target: &'a str,
    from: Option<IpAddr>,
    content: &'a [u8],
}

impl Wish<'_> {
    /// Returns the first key of a window that stands for no task that has ended, and whether it stands for one at all.
    fn first_not_over(&self, state: &State<'_>, caller: &Caller, window: i64) -> (RequestId, bool) {
        let mut number = 0;
        loop {
            let key = self.key(window, number);
            let task = match state.answer(&scoped(caller, &key)) {
                Some(Outcome::TaskQueued(id)) => state.task(id),
                _ => return (key, false),
            };
            if task.is_some_and(|task| !task.state.is_final()) {
                return (key, true);
            }
            number += 1;
        }
    }

    fn key(&self, window: i64, number: u32) -> RequestId {
        let mut hash = Context::new(&SHA256);
        let from = self.from.map(|ip| ip.to_string()).unwrap_or_default();
        let (window, number) = (window.to_be_bytes(), number.to_be_bytes());
        for part in
            [self.method.as_bytes(), self.target.as_bytes(), from.as_bytes(), self.content, &window, &number]
        {
            // With its length: no two wishes are the same text.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        RequestId::new(format!("rest-{}", hex::encode(hash.finish())))
    }
}
