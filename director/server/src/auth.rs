//! Logging in: `authorization` metadata to a [`Caller`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::UserName;
use ring::digest::{SHA256, digest};
use service::{Caller, Service, ServiceError};
use tonic::metadata::MetadataMap;

/// Passwords that were right, by user, so that a client does not pay for hashing with each request. The stored hash is
/// part of the key: a changed password or user is checked anew. Holds digests only.
const REMEMBERED_MAX: usize = 1024;

/// Checks who is asking.
#[derive(Clone)]
pub struct Doorkeeper {
    service: Service,
    remembered: Arc<Mutex<BTreeMap<Vec<u8>, ()>>>,
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
        Self { service, remembered: Arc::default() }
    }

    /// Returns who is asking. Missing, malformed and wrong credentials are one error.
    pub async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, ServiceError> {
        let header = metadata.get("authorization").and_then(|v| v.to_str().ok());
        let (name, password) = header.and_then(basic).ok_or(ServiceError::Unauthenticated)?;
        let user = self.service.user(&UserName::new(name)).ok_or(ServiceError::Unauthenticated)?;
        let key = digest(&SHA256, format!("{}\0{}\0{password}", user.name, user.password_hash).as_bytes());
        let key = key.as_ref().to_vec();
        let caller = Caller { user: user.name.clone(), scopes: user.scopes.clone() };
        if self.lock().contains_key(&key) {
            return Ok(caller);
        }
        // Hashing is slow on purpose: off the threads that serve everybody.
        let right = tokio::task::spawn_blocking(move || {
            let stored = PasswordHash::new(&user.password_hash);
            stored.is_ok_and(|stored| hasher().verify_password(password.as_bytes(), &stored).is_ok())
        });
        if !right.await.unwrap_or(false) {
            return Err(ServiceError::Unauthenticated);
        }
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(key, ());
        Ok(caller)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Vec<u8>, ()>> {
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
    use super::*;

    #[test]
    fn basic_credentials_are_read() {
        let header = format!("Basic {}", STANDARD.encode("admin:pa:ss"));
        assert_eq!(basic(&header), Some(("admin".into(), "pa:ss".into())));
        assert_eq!(basic("Bearer x"), None);
        assert_eq!(basic("Basic !!"), None);
    }
}
