//! Who may give tokens to whom, and what they allow.

use model::{RequestId, Timestamp};
use service::ops::{NewToken, TOKEN_LIFE_MAX_MS};
use service::{Caller, List, Page, ServiceError};
use state::command::Command;

use crate::fleet::{Fleet, admin, caller};
use crate::nouns::{START, user};

fn new(id: &str, user: &str, scopes: &[&str]) -> NewToken {
    NewToken {
        id: id.into(),
        hash: format!("hash of {id}"),
        user: user.into(),
        scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        note: "ci".into(),
        life_ms: 600_000,
    }
}

/// A fleet with two admins.
fn fleet() -> Fleet {
    let fleet = Fleet::new();
    for name in ["ann", "bob"] {
        fleet.world().must(Command::UserPut { user: user(name) });
    }
    fleet
}

const NOW: Timestamp = Timestamp(START);

#[tokio::test]
async fn nobody_gives_a_token_more_than_they_have() {
    let fleet = fleet();
    let service = fleet.service();
    let all = service.put_token(&admin(), None, new("t1", "", &[]), NOW).await.unwrap();
    assert_eq!((all.user.as_str(), all.scopes.len(), all.scopes.contains("bosh.admin")), ("ann", 1, true));
    // Logged in with a token that may only read, Ann can't make one that may more.
    let reading = caller("bosh.read");
    let same = service.put_token(&reading, None, new("t2", "ann", &[]), NOW).await.unwrap();
    assert!(same.scopes.contains("bosh.read") && same.scopes.len() == 1);
    for wish in [new("t3", "", &["bosh.admin"]), new("t3", "bob", &[])] {
        assert!(service.put_token(&reading, None, wish, NOW).await.is_err());
    }
    let nobody = Caller { scopes: Default::default(), ..admin() };
    let refused = service.put_token(&nobody, None, new("t3", "", &[]), NOW).await;
    assert!(matches!(refused, Err(ServiceError::Forbidden { .. })), "{refused:?}");
    let bobs = service.put_token(&admin(), None, new("t4", "bob", &["bosh.admin"]), NOW).await.unwrap();
    assert_eq!(bobs.user.as_str(), "bob");
    let strange = service.put_token(&admin(), None, new("t5", "bob", &["bosh.read"]), NOW).await;
    assert!(strange.unwrap_err().to_string().contains("no scope bosh.read"));
}

#[tokio::test]
async fn a_token_ends_some_day_and_a_repeat_gets_the_first_one() {
    let fleet = fleet();
    let service = fleet.service();
    for life_ms in [0, -1, TOKEN_LIFE_MAX_MS + 1] {
        let wish = NewToken { life_ms, ..new("t1", "", &[]) };
        assert!(service.put_token(&admin(), None, wish, NOW).await.is_err(), "{life_ms}");
    }
    let id: Option<RequestId> = Some("lost".into());
    let first = service.put_token(&admin(), id.clone(), new("t1", "", &[]), NOW).await.unwrap();
    let later = Timestamp(NOW.0 + 500);
    let again = service.put_token(&admin(), id, new("t1", "", &[]), later).await.unwrap();
    assert_eq!((again.expires_at, again.hash), (first.expires_at, first.hash));
}

#[tokio::test]
async fn tokens_are_seen_and_revoked_by_their_user_and_by_admins() {
    let fleet = fleet();
    let service = fleet.service();
    for (id, owner) in [("t1", "ann"), ("t2", "bob"), ("t3", "bob")] {
        service.put_token(&admin(), None, new(id, owner, &[]), NOW).await.unwrap();
    }
    let page = Page::default();
    let ids = |found: List<state::records::UserToken>| {
        found.rows.into_iter().map(|token| token.id).collect::<Vec<_>>()
    };
    let reading = caller("bosh.read");
    assert_eq!(ids(service.tokens(&reading, String::new(), false, &page).await.unwrap()), ["t1"]);
    assert!(service.tokens(&reading, "bob".into(), false, &page).await.is_err());
    assert!(service.tokens(&reading, String::new(), true, &page).await.is_err());
    assert_eq!(ids(service.tokens(&admin(), "bob".into(), false, &page).await.unwrap()), ["t2", "t3"]);
    assert_eq!(ids(service.tokens(&admin(), String::new(), true, &page).await.unwrap()), ["t1", "t2", "t3"]);

    let of_others = service.remove_token(&reading, None, "t2".into()).await.unwrap_err();
    let unknown = service.remove_token(&reading, None, "t9".into()).await.unwrap_err();
    assert_eq!(of_others.to_string().replace("t2", "t9"), unknown.to_string(), "it does not tell them apart");
    let id: Option<RequestId> = Some("lost".into());
    service.remove_token(&reading, id.clone(), "t1".into()).await.unwrap();
    service.remove_token(&reading, id, "t1".into()).await.unwrap();
    service.remove_token(&admin(), None, "t2".into()).await.unwrap();
    assert_eq!(ids(service.tokens(&admin(), String::new(), true, &page).await.unwrap()), ["t3"]);
}
