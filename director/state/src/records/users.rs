//! Users and the tokens of their programs.

use std::collections::BTreeSet;

use model::*;
use serde::{Deserialize, Serialize};

/// A person or program that may ask for things.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// Argon2 hash of the password.
    pub password_hash: String,
    /// What it may do (`bosh.admin`, `bosh.read` …).
    pub scopes: BTreeSet<String>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// A token with which a user's programs log in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserToken {
    /// Its name, which is no secret.
    pub id: String,
    /// Whose it is.
    pub user: UserName,
    /// SHA-256 of the secret, hex. The secret is 256 bits of chance: nobody finds it by trying.
    pub hash: String,
    /// What it may do of what its user may.
    pub scopes: BTreeSet<String>,
    /// What it is for.
    #[serde(default)]
    pub note: String,
    /// When it was made.
    #[serde(default)]
    pub created_at: Timestamp,
    /// It is refused after this.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for UserToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("UserToken");
        shown.field("id", &self.id).field("user", &self.user).field("scopes", &self.scopes);
        shown.field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
