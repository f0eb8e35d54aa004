use model::{NodeId, Timestamp};
use rcgen::{CertificateParams, KeyPair};
use state::command::Command;
use state::records::JoinToken;
use tonic::Code;

use super::*;
use crate::fleet::log::now;
use crate::test_support::replica::Replica;

async fn token(replica: &Replica, secret: &str, expires_at: Timestamp) -> String {
    let token = JoinToken { hash: hash_of_secret(secret), expires_at, used_by: None };
    replica.must(Command::TokenPut { token }).await;
    format!("{TOKEN_PREFIX}.{secret}.fingerprint")
}

fn wish(token: &str) -> pb::JoinRequest {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    pb::JoinRequest {
        token: token.into(),
        name: "new".into(),
        csr_der: csr.der().to_vec().into(),
        hosts: vec!["d2.example".into()],
        ..pb::JoinRequest::default()
    }
}

async fn join(replica: &Replica, wish: &pb::JoinRequest) -> Result<pb::JoinResponse, Code> {
    let desk = JoinDesk::new(replica.door.clone());
    desk.join(Request::new(wish.clone())).await.map(Response::into_inner).map_err(|s| s.code())
}

fn later(ms: i64) -> Timestamp {
    Timestamp(now().0 + ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_once_for_one_key_and_in_time() {
    let replica = Replica::start().await;
    let good = wish(&token(&replica, "good", later(60_000)).await);
    let answer = join(&replica, &good).await.unwrap();
    assert_eq!(answer.kek, replica.kek.bytes());
    assert_eq!(join(&replica, &good).await.unwrap().node_id, answer.node_id, "a repeat gets the same number");
    let thief = pb::JoinRequest { token: good.token.clone(), ..wish("") };
    assert_eq!(join(&replica, &thief).await, Err(Code::Unauthenticated));

    let late = wish(&token(&replica, "late", later(-1)).await);
    for refused in [late, wish("dj1.unknown.x"), wish("dj1"), wish("xx.good.x"), wish("")] {
        assert_eq!(join(&replica, &refused).await, Err(Code::Unauthenticated), "{}", refused.token);
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_does_not_use_the_token_up() {
    let replica = Replica::start().await;
    let good = wish(&token(&replica, "s", later(60_000)).await);
    let bad = [
        pb::JoinRequest { csr_der: b"nonsense".to_vec().into(), ..good.clone() },
        pb::JoinRequest { hosts: vec!["replica-1.directorate.internal".into()], ..good.clone() },
        pb::JoinRequest { hosts: vec!["Replica-1.Directorate.Internal.".into()], ..good.clone() },
        pb::JoinRequest { hosts: vec!["h".into(); HOSTS_MAX + 1], ..good.clone() },
    ];
    for bad in bad {
        assert_eq!(join(&replica, &bad).await, Err(Code::InvalidArgument), "{:?}", bad.hosts);
    }
    join(&replica, &good).await.unwrap();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_replica_gets_no_second_answer_to_its_old_request() {
    let replica = Replica::start().await;
    let request = wish(&token(&replica, "s", later(60_000)).await);
    let node = join(&replica, &request).await.unwrap().node_id;
    replica.must(Command::MemberPut { member: crate::test_support::state::member(node) }).await;
    replica.must(Command::MemberRemove { node: NodeId(node) }).await;
    assert_eq!(join(&replica, &request).await, Err(Code::Unauthenticated));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_writes_nothing_to_the_log() {
    let replica = Replica::start().await;
    let desk = JoinDesk::new(replica.door.clone());
    let before = replica.log.revision();
    for n in 0..20 {
        let wish = wish(&format!("dj1.guess-{n}.x"));
        let refused = desk.join(Request::new(wish)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    assert_eq!(replica.log.revision(), before);
    // A crowd of them keeps nobody busy.
    let _all = desk.1.clone().acquire_many_owned(ASKED_FOR_AT_ONCE as u32).await.unwrap();
    let refused = desk.join(Request::new(wish("dj1.guess.x"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let good = wish(&token(&replica, "good", later(60_000)).await);
    desk.join(Request::new(good)).await.unwrap();
    replica.stop().await;
}
