//! Users, and the tokens with which their programs log in.

use std::collections::BTreeSet;

use model::{ErrorCode, RequestId, Timestamp, UserName};
use state::State;
use state::command::Command;
use state::records::{User, UserToken};

use crate::{Caller, List, Mutation, Origin, Page, Read, Right, Service, ServiceError};

/// The longest that a token may be good: some day somebody must look at it again.
pub const TOKEN_LIFE_MAX_MS: i64 = 366 * 24 * 3600 * 1000;

/// The longest note at a token.
const NOTE_BYTES_MAX: usize = 200;

/// A token to give.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its id.
    pub id: String,
    /// What is stored of its secret.
    pub hash: String,
    /// Whose it will be; the caller's own if empty.
    pub user: String,
    /// What it may do; everything that its user may if empty.
    pub scopes: BTreeSet<String>,
    /// What it is for.
    pub note: String,
    /// How long it is good.
    pub life_ms: i64,
}

impl Service {
    /// Returns a user for checking a password. Local: logging in must also work without a leader.
    pub fn user(&self, name: &UserName) -> Option<User> {
        let view = self.log().view();
        State::new(&*view).user(name)
    }

    /// Returns a token and its user for checking a secret. Local, as [`Service::user`].
    pub fn token(&self, id: &str) -> Option<(UserToken, User)> {
        let view = self.log().view();
        let state = State::new(&*view);
        let token = state.user_token(id)?;
        let user = state.user(&token.user)?;
        Some((token, user))
    }

    /// Adds or changes a user.
    pub async fn put_user(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        user: User,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "change users")?;
        self.propose(caller, request_id, Command::UserPut { user }).await.map(|_| ())
    }

    /// Removes a user, with all tokens.
    pub async fn remove_user(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: UserName,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "change users")?;
        self.propose(caller, request_id, Command::UserRemove { name }).await.map(|_| ())
    }

    /// Lists users.
    pub async fn users(&self, caller: &Caller, page: &Page) -> Result<List<User>, ServiceError> {
        caller.needs(Right::Admin, "list users")?;
        self.list(Read::Linearizable, page, |state, page| page.cut(state.users(), |user| user.name.clone()))
            .await
    }

    /// Gives a user a token; everybody may have some, admins give them to others too. Nobody gives what they have not got
    /// themselves. Returns the token as it is stored, which after a repeat is the first one.
    pub async fn put_token(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        new: NewToken,
        now: Timestamp,
    ) -> Result<UserToken, ServiceError> {
        let user = own_or_others(caller, new.user, "give tokens to others")?;
        let bad = |text: String| ServiceError::told(ErrorCode::BadRequest, text);
        if new.life_ms <= 0 || new.life_ms > TOKEN_LIFE_MAX_MS {
            let days = TOKEN_LIFE_MAX_MS / (24 * 3600 * 1000);
            return Err(bad(format!("a token is good for at most {days} days, and for a second at least")));
        }
        if new.note.len() > NOTE_BYTES_MAX {
            return Err(bad(format!("a token's note has at most {NOTE_BYTES_MAX} bytes")));
        }
        let looked = self.look(Read::Linearizable).await?;
        let has = match user == caller.user && caller.origin == Origin::Fleet {
            // The caller's own rights, which are less than the user's if a token was used to log in.
            true => caller.scopes.clone(),
            false => State::new(&*looked.view).user(&user).map(|u| u.scopes).unwrap_or_default(),
        };
        if let Some(scope) = new.scopes.difference(&has).next() {
            return Err(bad(format!("user '{user}' has no scope {scope} to give to a token")));
        }
        let token = UserToken {
            id: new.id.clone(),
            user,
            hash: new.hash,
            scopes: if new.scopes.is_empty() { has } else { new.scopes },
            note: new.note,
            created_at: now,
            expires_at: Timestamp(now.0.saturating_add(new.life_ms)),
        };
        self.propose(caller, request_id, Command::UserTokenPut { token: token.clone() }).await?;
        let view = self.log().view();
        // Revoked at once, it is gone already; then it was still given.
        Ok(State::new(&*view).user_token(&new.id).unwrap_or(token))
    }

    /// Revokes a token: one's own, or as an admin anybody's.
    pub async fn remove_token(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        id: String,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Any, "revoke tokens")?;
        let Mutation::New(looked) = self.look_for(caller, request_id.as_ref()).await? else { return Ok(()) };
        let owner = State::new(&*looked.view).user_token(&id).map(|token| token.user);
        // Who may not know of it is told what somebody is told whose token is not there.
        let is_own = caller.origin == Origin::Fleet && owner.as_ref() == Some(&caller.user);
        let visible = caller.has(Right::Admin) || is_own;
        if owner.is_none() || !visible {
            let text = format!("there is no token '{id}'");
            return Err(ServiceError::told(ErrorCode::ResourceNotFound, text));
        }
        self.propose(caller, request_id, Command::UserTokenRemove { id }).await.map(|_| ())
    }

    /// Lists tokens: the caller's own, as an admin another user's, or everybody's.
    pub async fn tokens(
        &self,
        caller: &Caller,
        user: String,
        everybody: bool,
        page: &Page,
    ) -> Result<List<UserToken>, ServiceError> {
        let user = match everybody {
            true => caller.needs(Right::Admin, "list everybody's tokens").map(|()| None)?,
            false => Some(own_or_others(caller, user, "list others' tokens")?),
        };
        self.list(Read::Linearizable, page, move |state, page| {
            page.cut(state.user_tokens(user.as_ref()), |token| token.id.clone())
        })
        .await
    }
}

/// Returns the user that is meant, whom the caller must be unless they are an admin. Whom the UAA vouches for is no user of
/// the fleet, also if one has the same name.
fn own_or_others(caller: &Caller, user: String, operation: &'static str) -> Result<UserName, ServiceError> {
    caller.needs(Right::Any, "have tokens")?;
    let is_user = caller.origin == Origin::Fleet;
    if is_user && (user.is_empty() || user == caller.user.as_str()) {
        return Ok(caller.user.clone());
    }
    if user.is_empty() {
        let text = "tokens are given to users of the fleet: name one";
        return Err(ServiceError::told(ErrorCode::BadRequest, text));
    }
    caller.needs(Right::Admin, operation).map(|()| UserName::new(user))
}
