use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::test_support::replica::Replica;
use crate::test_support::state::{EPOCH, finished, started};

async fn delete(replica: &Replica, task: model::TaskId) {
    let records = vec![started(1, 1, 1), finished(1, 1, 1, model::step::StepOutcome::Done)];
    replica.must(Command::StepRecords { task, epoch: EPOCH, records }).await;
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn peer(agent: &AgentId, key: &KeyPair) -> PeerAgent {
    PeerAgent { agent: agent.clone(), public_key: key.public_key_raw().to_vec() }
}

fn refused(answer: Result<IssuedCertificate, IdentityError>) -> bool {
    matches!(answer, Err(IdentityError::Refused { .. }))
}

fn stream(pieces: &[&'static [u8]]) -> BlobStream {
    let pieces: Vec<Result<bytes::Bytes, BlobAccessError>> =
        pieces.iter().map(|p| Ok(bytes::Bytes::from_static(p))).collect();
    futures::stream::iter(pieces).boxed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_its_agent_in_with_one_key_for_as_long_as_its_vm_is_there() {
    let (replica, task) = Replica::with_agent().await;
    let (a1, a2, tokens) = (AgentId::new("a1"), AgentId::new("a2"), AgentTokens::new(&replica.kek));
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let side = &replica.agents;

    assert!(refused(side.enroll(&a1, "wrong", &csr(&key)).await));
    assert!(refused(side.enroll(&a1, &tokens.token(&a2, 0), &csr(&key)).await));
    assert!(
        refused(side.enroll(&a2, &tokens.token(&a2, 0), &csr(&key)).await),
        "no VM of this agent was ever made"
    );
    let garbage = side.enroll(&a1, &tokens.token(&a1, 0), b"garbage").await;
    assert!(matches!(garbage, Err(IdentityError::BadRequest { .. })));

    side.enroll(&a1, &tokens.token(&a1, 0), &csr(&key)).await.unwrap();
    side.enroll(&a1, &tokens.token(&a1, 0), &csr(&key)).await.expect("its answer may have been lost");
    assert!(refused(side.enroll(&a1, &tokens.token(&a1, 0), &csr(&other)).await), "a stolen token");
    let (peer, thief) = (peer(&a1, &key), peer(&a1, &other));
    assert!(refused(side.renew(&thief, &csr(&other)).await));
    let moved = side.renew(&peer, &csr(&other)).await;
    assert!(matches!(moved, Err(IdentityError::BadRequest { .. })), "the key stays");
    side.renew(&peer, &csr(&key)).await.unwrap();
    side.admit(&peer).await.unwrap();
    assert!(side.admit(&thief).await.is_err());

    delete(&replica, task).await;
    assert!(refused(side.renew(&peer, &csr(&key)).await));
    assert!(side.admit(&peer).await.is_err());
    assert!(refused(side.enroll(&a1, &tokens.token(&a1, 0), &csr(&key)).await));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_made_again_takes_its_predecessor_s_place() {
    let replica = Replica::start().await;
    let task = replica.begin_vm().await;
    let (a1, side) = (AgentId::new("a1"), &replica.agents);
    let (key, next) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let token = side.bootstrap(&a1).token;
    side.enroll(&a1, &token, &csr(&key)).await.unwrap();
    replica.must(Command::AgentTokenRenew { task, epoch: EPOCH, agent: a1.clone() }).await;
    assert!(side.admit(&peer(&a1, &key)).await.is_err(), "a certificate of the VM that is gone");
    assert!(refused(side.enroll(&a1, &token, &csr(&key)).await), "its token");
    assert!(refused(side.enroll(&a1, &token, &csr(&next)).await));
    side.enroll(&a1, &side.bootstrap(&a1).token, &csr(&next)).await.unwrap();
    side.admit(&peer(&a1, &next)).await.unwrap();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_go_both_ways() {
    let (replica, _) = Replica::with_agent().await;
    let (a1, side) = (AgentId::new("a1"), &replica.agents);
    let stored = side.put(&a1, stream(&[b"hello"])).await.unwrap();
    assert_eq!(stored.size_bytes, 5);
    assert!(side.get(&a1, &stored.digest).await.is_ok());
    replica.stop().await;
}

#[tokio::test]
async fn a_content_that_is_too_large_is_cut_off_and_said_to_be() {
    use tokio::io::AsyncReadExt as _;
    for (pieces, fits) in [(&[b"12345" as &[u8], b"678"][..], true), (&[b"12345", b"6789"], false)] {
        let (mut reader, too_large) = bounded(stream(pieces), 8);
        let mut read = Vec::new();
        assert_eq!(reader.read_to_end(&mut read).await.is_ok(), fits);
        assert_eq!(too_large.load(Ordering::Relaxed), !fits);
    }
}
