//! Tokens of a UAA at the doors, beside the users and the tokens of the fleet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::v1::ListDeploymentsRequest;
use proto::v1::deployments_server::Deployments as _;
use serde_json::{Value, json};
use state::command::Command;
use state::records::UserToken;
use tower::ServiceExt as _;

use super::Uaa;
use super::tests::{StandIn, claims, signed};
use crate::fleet::log::now;
use crate::rest;
use crate::secrets::Mint;
use crate::test_support::replica::{PASSWORD, Replica};

/// A replica that trusts a stand-in.
async fn trusting() -> (Replica, StandIn) {
    let mut replica = Replica::start().await;
    let stand_in = StandIn::start(None).await;
    let uaa = Arc::new(Uaa::open(&stand_in.config()).unwrap());
    replica.door.doorkeeper = replica.door.doorkeeper.clone().with_uaa(Some(uaa));
    (replica, stand_in)
}

async fn get(replica: &Replica, path: &str, authorization: &str) -> (StatusCode, String) {
    let request = Request::get(path).header("authorization", authorization).body(Body::empty()).unwrap();
    let answer = rest::routes(replica.door.clone(), "sim").oneshot(request).await.unwrap();
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn over_grpc(replica: &Replica, authorization: &str) -> Result<usize, tonic::Code> {
    let mut request = tonic::Request::new(ListDeploymentsRequest::default());
    request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    let listed = replica.door.list(request).await;
    listed.map(|answer| answer.into_inner().deployments.len()).map_err(|status| status.code())
}

fn bearer(user: &str, scopes: &[&str]) -> String {
    format!("bearer {}", signed(0, &claims(user, scopes)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_uaa_opens_both_doors_as_far_as_its_scopes_go() {
    let (replica, stand_in) = trusting().await;
    stand_in.tell(&[0]);
    let reader = bearer("ann@example.org", &["bosh.read", "openid"]);
    assert_eq!(get(&replica, "/deployments", &reader).await, (StatusCode::OK, "[]".into()));
    assert_eq!(over_grpc(&replica, &reader).await, Ok(0));
    let (status, refused) = get(&replica, "/cpi_configs?limit=1", &reader).await;
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!((status, &refused["code"]), (StatusCode::UNAUTHORIZED, &json!(600000)));
    let nobody = bearer("bob", &["openid"]);
    assert_eq!(get(&replica, "/deployments", &nobody).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(over_grpc(&replica, &nobody).await, Err(tonic::Code::PermissionDenied));
    // Of the scopes that are bound to a director, only this one's count.
    for (scope, expected) in
        [("bosh.d-uuid.admin", StatusCode::OK), ("bosh.x.admin", StatusCode::UNAUTHORIZED)]
    {
        assert_eq!(get(&replica, "/cpi_configs?limit=1", &bearer("ann", &[scope])).await.0, expected);
    }
    let stranger = format!("bearer {}", signed(1, &claims("ann", &["bosh.admin"])));
    let told = (StatusCode::UNAUTHORIZED, "Not authorized: '/deployments'\n".to_owned());
    assert_eq!(get(&replica, "/deployments?exclude_lock=true", &stranger).await, told);
    assert_eq!(over_grpc(&replica, &stranger).await, Err(tonic::Code::Unauthenticated));

    let info = async |authorization: &str| -> Value {
        serde_json::from_str(&get(&replica, "/info", authorization).await.1).unwrap()
    };
    let (seen, unseen) = (info(&reader).await, info(&stranger).await);
    assert_eq!((&seen["user"], &unseen["user"]), (&json!("ann@example.org"), &Value::Null));
    let login = &seen["user_authentication"];
    assert_eq!(login["type"], "uaa");
    assert_eq!(login["options"]["url"], login["options"]["urls"][0]);
    assert!(login["options"]["url"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    stand_in.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_s_own_users_and_tokens_do_not_need_the_uaa() {
    let (replica, stand_in) = trusting().await;
    // It is there, and tells nothing.
    let stranger = bearer("reader", &["bosh.admin"]);
    assert_eq!(get(&replica, "/deployments", &stranger).await.0, StatusCode::UNAUTHORIZED);
    let basic = format!("Basic {}", STANDARD.encode(format!("reader:{PASSWORD}")));
    let minted = Mint::new(&replica.kek).user_token(&"reader".into(), None);
    let token = UserToken {
        id: minted.id.clone(),
        user: "reader".into(),
        hash: minted.hash.clone(),
        scopes: ["bosh.read".to_owned()].into(),
        note: String::new(),
        created_at: now(),
        expires_at: model::Timestamp(now().0 + 60_000),
    };
    replica.must(Command::UserTokenPut { token }).await;
    for own in [basic, format!("Bearer {}", minted.text)] {
        assert_eq!(get(&replica, "/deployments", &own).await.0, StatusCode::OK);
        assert_eq!(over_grpc(&replica, &own).await, Ok(0));
    }
    stand_in.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_name_of_a_user_of_the_fleet_is_not_that_user() {
    let (replica, stand_in) = trusting().await;
    stand_in.tell(&[0]);
    let twin = bearer("reader", &["bosh.read"]);
    let caller = replica.door.doorkeeper.caller(Some(&twin), None).await.unwrap();
    let page = service::Page::default();
    for user in ["", "reader"] {
        assert!(replica.door.service.tokens(&caller, user.into(), false, &page).await.is_err(), "{user}");
    }
    let request = model::RequestId::from("one");
    let basic = format!("Basic {}", STANDARD.encode(format!("reader:{PASSWORD}")));
    let own = replica.door.doorkeeper.caller(Some(&basic), None).await.unwrap();
    assert_ne!(service::scoped(&caller, &request), service::scoped(&own, &request));
    stand_in.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_may_take_longer_than_its_token_is_good() {
    let (replica, stand_in) = trusting().await;
    stand_in.tell(&[0]);
    loop {
        let mut claims = claims("ci", &["bosh.releases.upload"]);
        let ends = now().seconds() + 1;
        claims["exp"] = json!(ends);
        let begun = Arc::new(AtomicBool::new(false));
        let has_begun = begun.clone();
        let content = async_parts(has_begun, ends);
        let request = Request::post("/releases")
            .header("authorization", format!("bearer {}", signed(0, &claims)))
            .header("content-type", "application/x-compressed")
            .body(Body::from_stream(content))
            .unwrap();
        let answer = rest::routes(replica.door.clone(), "sim").oneshot(request).await.unwrap();
        // A token that had ended before the request began says nothing here.
        if begun.load(Ordering::SeqCst) {
            assert_eq!(answer.status(), StatusCode::FOUND);
            break;
        }
    }
    stand_in.stop().await;
    replica.stop().await;
}

/// Two pieces, the second of which comes when the token has ended.
fn async_parts(begun: Arc<AtomicBool>, ends: i64) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    futures::stream::unfold(0, move |part| {
        let begun = begun.clone();
        async move {
            match part {
                0 => begun.store(true, Ordering::SeqCst),
                1 => {
                    while now().seconds() <= ends {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                _ => return None,
            }
            Some((Ok(Bytes::from_static(b"part")), part + 1))
        }
    })
}
