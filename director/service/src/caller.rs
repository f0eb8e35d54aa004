//! Who is asking, and what that allows.

use std::collections::BTreeSet;

use model::UserName;

use crate::error::ServiceError;

/// What an operation demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Looking.
    Read,
    /// Changing anything, and seeing secrets.
    Admin,
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Their name.
    pub user: UserName,
    /// Their scopes (`bosh.admin`, `bosh.read`).
    pub scopes: BTreeSet<String>,
}

impl Caller {
    /// Fails unless the caller has a right. Deny is the default: an unknown scope gives nothing.
    pub fn needs(&self, right: Right, operation: &'static str) -> Result<(), ServiceError> {
        let has = |scope: &str| self.scopes.contains(scope);
        let allowed = match right {
            Right::Admin => has("bosh.admin"),
            Right::Read => has("bosh.admin") || has("bosh.read"),
        };
        if allowed {
            return Ok(());
        }
        let scope = match right {
            Right::Admin => "bosh.admin",
            Right::Read => "bosh.read",
        };
        Err(ServiceError::Forbidden { user: self.user.clone(), operation, scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[&str]) -> Caller {
        Caller { user: "u".into(), scopes: scopes.iter().map(|s| (*s).to_owned()).collect() }
    }

    #[test]
    fn rights_come_from_scopes_alone() {
        assert!(caller(&["bosh.admin"]).needs(Right::Admin, "x").is_ok());
        assert!(caller(&["bosh.admin"]).needs(Right::Read, "x").is_ok());
        assert!(caller(&["bosh.read"]).needs(Right::Read, "x").is_ok());
        assert!(caller(&["bosh.read"]).needs(Right::Admin, "x").is_err());
        assert!(caller(&[]).needs(Right::Read, "x").is_err());
        assert!(caller(&["bosh.administrator"]).needs(Right::Read, "x").is_err());
    }
}
