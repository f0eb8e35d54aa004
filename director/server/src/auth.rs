//! Logging in: `authorization` metadata to a [`Caller`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::UserName;
use ring::hmac;
use service::{Caller, Service, ServiceError};
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;

/// Passwords that were right, remembered so that a client does not pay for hashing with each request.
const REMEMBERED_MAX: usize = 1024;

/// Passwords checked at once. Each takes 19 MiB and a core for a moment, and whoever asks has proved nothing yet.
const CHECKED_AT_ONCE: usize = 4;

/// Checks who is asking.
#[derive(Clone)]
pub struct Doorkeeper {
    service: Service,
    remembered: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    /// What is remembered is worth nothing outside this process, and can't be guessed at.
    key: Arc<hmac::Key>,
    room: Arc<Semaphore>,
    /// Checked for users that there are not, so that they take as long as others.
    nobodys_hash: Arc<str>,
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
            nobodys_hash: hash_password("").into(),
        }
    }

    /// Returns who is asking. Missing, malformed and wrong credentials are one error, and so is an unknown user.
    pub async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, ServiceError> {
        let header = metadata.get("authorization").and_then(|v| v.to_str().ok());
        let (name, password) = header.and_then(basic).ok_or(ServiceError::Unauthenticated)?;
        let Some(user) = self.service.user(&UserName::new(name)) else {
            self.check(self.nobodys_hash.to_string(), password).await;
            return Err(ServiceError::Unauthenticated);
        };
        // The stored hash is part of it: a changed password or a new user of an old name is checked anew.
        let right =
            hmac::sign(&self.key, format!("{}\0{}\0{password}", user.name, user.password_hash).as_bytes());
        let right = right.as_ref().to_vec();
        if !self.lock().contains(&right) {
            if !self.check(user.password_hash, password).await {
                return Err(ServiceError::Unauthenticated);
            }
            let mut remembered = self.lock();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(right);
        }
        Ok(Caller { user: user.name, scopes: user.scopes })
    }

    /// Checks a password, a few at a time. Hashing is slow on purpose: off the threads that serve everybody.
    async fn check(&self, stored: String, password: String) -> bool {
        let Ok(place) = self.room.clone().acquire_owned().await else { return false };
        let checked = tokio::task::spawn_blocking(move || {
            // Given back when the work ends, not when the caller does.
            let _place = place;
            let stored = PasswordHash::new(&stored);
            stored.is_ok_and(|stored| hasher().verify_password(password.as_bytes(), &stored).is_ok())
        });
        checked.await.unwrap_or(false)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn basic(header: &str) -> Option<(String, String)> {
    let encoded = header.strip_prefix("Basic ").or_else(|| header.strip_prefix("basic "))?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use state::command::Command;
    use state::log::{MemoryLog, Proposal};
    use state::records::User;

    use super::*;

    #[test]
    fn basic_credentials_are_read() {
        let header = format!("Basic {}", STANDARD.encode("admin:pa:ss"));
        assert_eq!(basic(&header), Some(("admin".into(), "pa:ss".into())));
        assert_eq!(basic("Bearer x"), None);
        assert_eq!(basic("Basic !!"), None);
    }

    fn login(name: &str, password: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        let header = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        metadata.insert("authorization", header.parse().unwrap());
        metadata
    }

    fn put(log: &MemoryLog, name: &str, password: &str, scope: &str) {
        let user = User {
            name: name.into(),
            password_hash: hash_password(password),
            scopes: [scope.to_owned()].into(),
        };
        log.apply(Proposal::own(Command::UserPut { user })).outcome.accepted().unwrap();
    }

    fn door() -> (Arc<MemoryLog>, Doorkeeper) {
        let log = Arc::new(MemoryLog::new());
        put(&log, "ann", "right", "bosh.read");
        (log.clone(), Doorkeeper::new(Service::new(log)))
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_opens() {
        let (_, door) = door();
        let caller = door.caller(&login("ann", "right")).await.unwrap();
        assert_eq!((caller.user.as_str(), caller.scopes.contains("bosh.read")), ("ann", true));
        for (name, password) in [("ann", "wrong"), ("ann", ""), ("bob", "right"), ("bob", ""), ("", "")] {
            let refused = door.caller(&login(name, password)).await;
            assert_eq!(refused, Err(ServiceError::Unauthenticated), "{name}:{password}");
        }
        assert_eq!(door.caller(&MetadataMap::new()).await, Err(ServiceError::Unauthenticated));
    }

    #[tokio::test]
    async fn what_is_remembered_ends_with_the_password_the_user_and_the_scopes() {
        let (log, door) = door();
        door.caller(&login("ann", "right")).await.unwrap();
        assert_eq!(door.lock().len(), 1);
        put(&log, "ann", "new", "bosh.admin");
        assert_eq!(door.caller(&login("ann", "right")).await, Err(ServiceError::Unauthenticated));
        assert!(door.caller(&login("ann", "new")).await.unwrap().scopes.contains("bosh.admin"));
        log.apply(Proposal::own(Command::UserRemove { name: "ann".into() }));
        assert_eq!(door.caller(&login("ann", "new")).await, Err(ServiceError::Unauthenticated));
    }

    #[tokio::test]
    async fn a_crowd_at_the_door_is_let_in_a_few_at_a_time() {
        let (_, door) = door();
        let all = door.room.clone().acquire_many_owned(CHECKED_AT_ONCE as u32).await.unwrap();
        let credentials = login("ann", "right");
        let asking = door.caller(&credentials);
        tokio::pin!(asking);
        assert!(futures::poll!(&mut asking).is_pending(), "nothing is hashed while the room is full");
        assert_eq!(door.lock().len(), 0);
        drop(all);
        asking.await.unwrap();
        // Whoever is known does not wait in line.
        let _all = door.room.clone().acquire_many_owned(CHECKED_AT_ONCE as u32).await.unwrap();
        assert!(matches!(
            futures::poll!(std::pin::pin!(door.caller(&credentials))),
            std::task::Poll::Ready(Ok(_))
        ));
    }
}
