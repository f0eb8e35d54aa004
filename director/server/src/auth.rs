//! Logging in: an `Authorization` header to a [`Caller`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::UserName;
use ring::hmac;
use service::{Caller, Read, Service, ServiceError};
use state::records::{User, UserToken};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::fleet::log::now;
use crate::metrics;
use crate::secrets::{hash_of_secret, token_parts};

/// Passwords that were right, remembered so that a client does not pay for hashing with each request.
const REMEMBERED_MAX: usize = 1024;

/// Passwords checked at once. Each takes 19 MiB and a core for a moment, and whoever asks has proved nothing yet.
const CHECKED_AT_ONCE: usize = 4;

/// Logins that may wait for their turn. Who comes when they are all taken is told to come back.
const WAITING_MAX: usize = 128;

/// How long this replica may take to make sure that it knows everybody before it sends somebody away.
const CATCH_UP: Duration = Duration::from_secs(2);

/// How often the log tells of refused logins; those in between are counted.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Checks who is asking.
#[derive(Clone)]
pub struct Doorkeeper {
    service: Service,
    remembered: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    /// What is remembered is worth nothing outside this process, and can't be guessed at.
    key: Arc<hmac::Key>,
    room: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Checked for users that there are not, so that they take as long as others.
    nobodys_hash: Arc<str>,
    refused: Arc<Mutex<Refused>>,
}

/// Refused logins since the log last told of one.
#[derive(Default)]
struct Refused {
    told: Option<Instant>,
    since: u64,
}

/// What a client shows.
enum Login {
    Password { name: UserName, password: String },
    Token { id: String, secret: String },
}

/// What this replica's state has for a login to be checked against.
#[derive(PartialEq)]
enum Known {
    User(User),
    Token(UserToken, User),
    Nobody,
}

/// Argon2id at the strength that OWASP recommends for a server: 19 MiB, two passes.
fn hasher() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None).expect("the parameters are within Argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Returns the hash to store for a password.
pub fn hash_password(password: &str) -> String {
    let salt: [u8; 16] = rand::random();
    let salt = SaltString::encode_b64(&salt).expect("16 bytes make a salt");
    hasher().hash_password(password.as_bytes(), &salt).expect("any text can be hashed").to_string()
}

impl Doorkeeper {
    /// Makes the doorkeeper.
    pub fn new(service: Service) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Self {
            service,
            remembered: Arc::default(),
            key: Arc::new(key),
            room: Arc::new(Semaphore::new(CHECKED_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            nobodys_hash: hash_password("").into(),
            refused: Arc::default(),
        }
    }

    /// Returns who is asking, by what they show in `Authorization`. Missing, malformed and wrong credentials are one error, and so is an unknown user.
    pub async fn caller(
        &self,
        shown: Option<&str>,
        from: Option<SocketAddr>,
    ) -> Result<Caller, ServiceError> {
        if self.service.info().is_none() {
            // A replica that has just joined knows nobody yet; that is no reason to send anybody away.
            return Err(ServiceError::NoState);
        }
        let login = shown.and_then(read).ok_or(ServiceError::Unauthenticated)?;
        let known = self.known(&login);
        if let Some(caller) = self.check(&login, &known).await? {
            return Ok(caller);
        }
        // Nor is it one that this replica lags: it looks again once it knows everything that anybody was promised.
        let _place = self.place()?;
        match tokio::time::timeout(CATCH_UP, self.service.look(Read::Linearizable)).await {
            Ok(looked) => looked.map(|_| ())?,
            Err(_) => return Err(ServiceError::NoState),
        }
        let fresh = self.known(&login);
        if fresh != known
            && let Some(caller) = self.check(&login, &fresh).await?
        {
            return Ok(caller);
        }
        self.tell(&fresh, from);
        Err(ServiceError::Unauthenticated)
    }

    fn known(&self, login: &Login) -> Known {
        match login {
            Login::Password { name, .. } => self.service.user(name).map_or(Known::Nobody, Known::User),
            Login::Token { id, .. } => {
                self.service.token(id).map_or(Known::Nobody, |(token, user)| Known::Token(token, user))
            }
        }
    }

    /// Returns whoever shows what is known of them.
    async fn check(&self, login: &Login, known: &Known) -> Result<Option<Caller>, ServiceError> {
        match (login, known) {
            (Login::Token { secret, .. }, Known::Token(token, user)) => {
                // Hashes of 256 bits of chance: how long it takes to compare them helps nobody.
                let good = hash_of_secret(secret) == token.hash && now() <= token.expires_at;
                let scopes = token.scopes.intersection(&user.scopes).cloned().collect();
                Ok(good.then(|| Caller { user: user.name.clone(), scopes }))
            }
            (Login::Password { password, .. }, Known::User(user)) => {
                let caller = Caller { user: user.name.clone(), scopes: user.scopes.clone() };
                Ok(self.check_known(user, password).await?.then_some(caller))
            }
            (Login::Password { password, .. }, _) => {
                self.check_password(self.nobodys_hash.to_string(), password.clone()).await?;
                Ok(None)
            }
            (Login::Token { .. }, _) => Ok(None),
        }
    }

    async fn check_known(&self, user: &User, password: &str) -> Result<bool, ServiceError> {
        // The stored hash is part of it: a changed password or a new user of an old name is checked anew.
        let text = format!("{}\0{}\0{password}", user.name, user.password_hash);
        let right = hmac::sign(&self.key, text.as_bytes()).as_ref().to_vec();
        if self.lock().contains(&right) {
            return Ok(true);
        }
        if !self.check_password(user.password_hash.clone(), password.to_owned()).await? {
            return Ok(false);
        }
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(right);
        Ok(true)
    }

    /// Checks a password, a few at a time. Hashing is slow on purpose: off the threads that serve everybody.
    async fn check_password(&self, stored: String, password: String) -> Result<bool, ServiceError> {
        let waiting = self.place()?;
        let Ok(room) = self.room.clone().acquire_owned().await else { return Ok(false) };
        drop(waiting);
        let checked = tokio::task::spawn_blocking(move || {
            // Given back when the work ends, not when the caller does.
            let _room = room;
            let stored = PasswordHash::new(&stored);
            stored.is_ok_and(|stored| hasher().verify_password(password.as_bytes(), &stored).is_ok())
        });
        Ok(checked.await.unwrap_or(false))
    }

    /// Takes a place among those who wait.
    fn place(&self) -> Result<OwnedSemaphorePermit, ServiceError> {
        self.waiting.clone().try_acquire_owned().map_err(|_| ServiceError::Busy("logins are being checked"))
    }

    /// Leaves a trace of a refused login. Whoever tries thousands must not write thousands of lines.
    fn tell(&self, known: &Known, from: Option<SocketAddr>) {
        metrics::login_refused();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.since += 1;
        if refused.told.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        // A name that nobody has is not logged: people type passwords there.
        let user = match known {
            Known::User(user) | Known::Token(_, user) => user.name.as_str(),
            Known::Nobody => "unknown",
        };
        let from = from.map(|from| from.to_string()).unwrap_or_default();
        warn!(user, from, refused = refused.since, "a login was refused");
        *refused = Refused { told: Some(Instant::now()), since: 0 };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(header: &str) -> Option<Login> {
    let (scheme, rest) = header.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => {
            let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            let (name, password) = text.split_once(':')?;
            Some(Login::Password { name: UserName::new(name), password: password.to_owned() })
        }
        "bearer" => {
            let (id, secret) = token_parts(rest.trim())?;
            Some(Login::Token { id: id.to_owned(), secret: secret.to_owned() })
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
