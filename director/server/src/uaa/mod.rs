//! Tokens of a UAA: whether one is good, and whom it is of.
//!
//! Its signature must be by a key of the UAA, with an algorithm that goes with that key; it must not have ended; and it must
//! be one to ask with, not one to get others with. Audience and issuer are not looked at, as in BOSH. A token is judged when
//! a request begins: an upload may take longer than its token is good.
//!
//! Keys come from files, or from the UAA, which is asked for them from time to time, and when a token names one that is not
//! known. The last ones that it told count until it tells others: whether it is there right now matters to nobody else.
//!
//! Read next: [`keys`], [`source`], then `auth.rs`, which asks here.

mod keys;
mod provider;
mod source;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use service::ServiceError;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::keys::Key;
use self::source::Source;
use crate::config::UaaConfig;

/// How often a UAA is asked for its keys.
const ASK_EVERY: Duration = Duration::from_secs(300);

/// How soon it is asked again at the earliest, whatever keys tokens name: anybody may make those up.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Requests that may wait for keys. None of them has proved anything yet.
const WAITING_MAX: usize = 64;

/// The longest token.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a token may be signed with.
const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
];

/// Whom a good token is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The user, or else the client.
    pub name: String,
    /// What they may do.
    pub scopes: Vec<String>,
}

/// What a token says, as far as it matters here. When it ends is checked where its signature is.
#[derive(Deserialize)]
struct Claims {
    jti: String,
    #[serde(default)]
    user_name: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    scope: Vec<String>,
}

/// The UAA that this fleet trusts.
pub struct Uaa {
    urls: Vec<String>,
    fixed: Vec<Key>,
    told: ArcSwap<Vec<Key>>,
    source: Option<Source>,
    /// When it was last asked. Who holds this asks it.
    asked: Mutex<Option<Instant>>,
    waiting: Semaphore,
}

impl Uaa {
    /// Reads the keys that are in files; the others are asked for later.
    pub fn open(config: &UaaConfig) -> anyhow::Result<Self> {
        provider::install();
        let mut fixed = config.public_key_file.as_deref().map(keys::public).transpose()?.unwrap_or_default();
        fixed.extend(config.symmetric_key_file.as_deref().map(keys::symmetric).transpose()?);
        let source = config.fetch_keys.then(|| Source::new(&config.urls, config.ca_file.as_deref()));
        Ok(Self {
            urls: config.urls.clone(),
            fixed,
            told: ArcSwap::default(),
            source: source.transpose()?,
            asked: Mutex::new(None),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    /// Returns where people log in; the first is the one that the CLI takes.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Returns whom a token is of, if it is good.
    pub async fn bearer(&self, token: &str) -> Result<Option<Bearer>, ServiceError> {
        if let Some(bearer) = self.judge(token) {
            return Ok(Some(bearer));
        }
        if !self.may_be_of_a_new_key(token) {
            return Ok(None);
        }
        let _place = self.waiting.try_acquire().map_err(|_| ServiceError::Busy("tokens wait for keys"))?;
        self.ask(ASK_AGAIN).await;
        Ok(self.judge(token))
    }

    /// Returns whether it may help to ask for keys: the token names one that is not known, or none.
    fn may_be_of_a_new_key(&self, token: &str) -> bool {
        let (Some(_), Some((algorithm, id))) = (&self.source, header(token)) else { return false };
        let is_named = id.is_some();
        let told = self.told.load();
        let known = told.iter().any(|key| key.may_have_signed(algorithm.family(), id.as_deref()));
        is_asymmetric(algorithm) && !(known && is_named)
    }

    /// Judges a token by the keys that are known.
    fn judge(&self, token: &str) -> Option<Bearer> {
        let (algorithm, id) = header(token)?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        let told = self.told.load();
        let candidates = self.fixed.iter().chain(told.iter());
        let mut candidates = candidates.filter(|key| key.may_have_signed(algorithm.family(), id.as_deref()));
        let claims = candidates.find_map(|key| decode::<Claims>(token, &key.key, &validation).ok())?.claims;
        // What ends like this is for getting tokens.
        let is_refresh = claims.jti.ends_with("-r");
        let name = claims.user_name.or(claims.client_id).filter(|name| !name.is_empty())?;
        (!claims.jti.is_empty() && !is_refresh).then_some(Bearer { name, scopes: claims.scope })
    }

    /// Asks the UAA for its keys, unless it was asked lately. Who comes while somebody asks waits for that answer.
    async fn ask(&self, at_most_every: Duration) {
        let Some(source) = &self.source else { return };
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < at_most_every) {
            return;
        }
        match source.keys().await {
            Ok(keys) => {
                let names = |keys: &[Key]| keys.iter().map(|key| key.id.clone()).collect::<Vec<_>>();
                let (old, new) = (names(&self.told.load()), names(&keys));
                if old != new {
                    info!(keys = ?new, "the UAA has told its keys");
                }
                self.told.store(Arc::new(keys));
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "the UAA does not tell its keys; the old ones count")
            }
        }
        // Counted from the answer: who does not answer is not asked the more often.
        *asked = Some(Instant::now());
    }

    /// Keeps the keys fresh until it is told to stop.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.ask(ASK_AGAIN) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
        }
    }
}

/// Returns the algorithm that a token says it is signed with, and the key's name; nothing if it is none of ours.
fn header(token: &str) -> Option<(Algorithm, Option<String>)> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let header = decode_header(token).ok()?;
    ALGORITHMS.contains(&header.alg).then_some((header.alg, header.kid))
}

fn is_asymmetric(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512)
}

#[cfg(test)]
mod doors_tests;
#[cfg(test)]
mod tests;
