//! Logging in: an `Authorization` header to a [`Caller`].
//!
//! Users of the fleet show a password, their programs a token of the fleet, and whom the UAA vouches for shows a token of
//! that. The first two never wait for the third.

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
use service::{Caller, Origin, Read, Service, ServiceError};
use state::records::{User, UserToken};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::fleet::log::now;
use crate::metrics;
use crate::secrets::{hash_of_secret, token_parts};
use crate::uaa::{Bearer, Uaa};

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
    uaa: Option<Arc<Uaa>>,
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
    Jwt(String),
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
            uaa: None,
        }
    }

    /// Has tokens of a UAA accepted, too.
    pub fn with_uaa(self, uaa: Option<Arc<Uaa>>) -> Self {
        Self { uaa, ..self }
    }

    /// Returns the UAA whose tokens are accepted.
    pub fn uaa(&self) -> Option<&Uaa> {
        self.uaa.as_deref()
    }

    /// Returns who is asking, by what they show in `Authorization`. Missing, malformed and wrong credentials are one error, and so is an unknown user.
    pub async fn caller(
        &self,
        shown: Option<&str>,
        from: Option<SocketAddr>,
    ) -> Result<Caller, ServiceError> {
        // A replica that has just joined knows nobody yet; that is no reason to send anybody away.
        let director = self.service.info().ok_or(ServiceError::NoState)?.director_uuid;
        let login = shown.and_then(read).ok_or(ServiceError::Unauthenticated)?;
        let who = match &login {
            Login::Jwt(token) => self.vouched_for(token, from).await?,
            _ => self.of_the_fleet(&login, from).await?,
        };
        Ok(Caller { director, ..who })
    }

    /// Returns whom the UAA vouches for.
    async fn vouched_for(&self, token: &str, from: Option<SocketAddr>) -> Result<Caller, ServiceError> {
        let bearer = match &self.uaa {
            Some(uaa) => uaa.bearer(token).await?,
            None => None,
        };
        let Some(Bearer { name, scopes }) = bearer else {
            self.tell(&Known::Nobody, from);
            return Err(ServiceError::Unauthenticated);
        };
        let scopes = scopes.into_iter().collect();
        Ok(Caller { user: UserName::new(name), scopes, origin: Origin::Uaa, ..Caller::default() })
    }

    /// Returns the user of the fleet who asks.
    async fn of_the_fleet(&self, login: &Login, from: Option<SocketAddr>) -> Result<Caller, ServiceError> {
        let known = self.known(login);
        if let Some(caller) = self.check(login, &known).await? {
            return Ok(caller);
        }
        // Nor is it one that this replica lags: it looks again once it knows everything that anybody was promised.
        let _place = self.place()?;
        match tokio::time::timeout(CATCH_UP, self.service.look(Read::Linearizable)).await {
            Ok(looked) => looked.map(|_| ())?,
            Err(_) => return Err(ServiceError::NoState),
        }
        let fresh = self.known(login);
        if fresh != known
            && let Some(caller) = self.check(login, &fresh).await?
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
            Login::Jwt(_) => Known::Nobody,
        }
    }

    /// Returns whoever shows what is known of them.
    async fn check(&self, login: &Login, known: &Known) -> Result<Option<Caller>, ServiceError> {
        match (login, known) {
            (Login::Token { secret, .. }, Known::Token(token, user)) => {
                // Hashes of 256 bits of chance: how long it takes to compare them helps nobody.
                let good = hash_of_secret(secret) == token.hash && now() <= token.expires_at;
                let scopes = token.scopes.intersection(&user.scopes).cloned().collect();
                Ok(good.then(|| Caller { user: user.name.clone(), scopes, ..Caller::default() }))
            }
            (Login::Password { password, .. }, Known::User(user)) => {
                let (user_name, scopes) = (user.name.clone(), user.scopes.clone());
                let caller = Caller { user: user_name, scopes, ..Caller::default() };
                Ok(self.check_known(user, password).await?.then_some(caller))
            }
            (Login::Password { password, .. }, _) => {
                self.check_password(self.nobodys_hash.to_string(), password.clone()).await?;
                Ok(None)
            }
            (Login::Token { .. } | Login::Jwt(_), _) => Ok(None),
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
            let shown = rest.trim();
            match token_parts(shown) {
                Some((id, secret)) => Some(Login::Token { id: id.to_owned(), secret: secret.to_owned() }),
                // A token of a UAA begins with JSON in base64; one of ours never does.
                None if shown.starts_with("ey") => Some(Login::Jwt(shown.to_owned())),
                None => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
