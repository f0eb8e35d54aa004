//! Which failures send the client to another director, and which do not.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dctl::call;
use dctl::client::{Fleet, Login, Patience, Trust, request_id};
use dctl::error::{Error, Exit};
use proto::v1::instances_client::InstancesClient;
use proto::v1::locks_client::LocksClient;
use proto::v1::*;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::director::{AMPLE, Director, Script, answer, client, hang, nobody};

fn with_locks(of: impl Fn() -> Result<ListLocksResponse, Status> + Send + Sync + 'static) -> Script {
    Script { locks: answer(move |_| of()), ..Script::default() }
}

fn one_lock() -> Result<ListLocksResponse, Status> {
    let lock = Lock { name: "lock:deployment:web".into(), holder: 3, ..Lock::default() };
    Ok(ListLocksResponse { locks: vec![lock], ..ListLocksResponse::default() })
}

#[tokio::test]
async fn a_director_that_is_not_there_is_passed_over() {
    let there = Director::start(with_locks(one_lock)).await;
    let fleet = client(&[nobody().await, there.address()], AMPLE);
    let answer = call!(fleet, LocksClient.list(ListLocksRequest::default())).await.unwrap();
    assert_eq!(answer.locks[0].holder, 3);
}

#[tokio::test]
async fn a_director_without_a_leader_is_passed_over() {
    let without = Director::start(with_locks(|| Err(Status::unavailable("no leader")))).await;
    let there = Director::start(with_locks(one_lock)).await;
    let fleet = client(&[without.address(), there.address()], AMPLE);
    assert!(call!(fleet, LocksClient.list(ListLocksRequest::default())).await.is_ok());
}

#[tokio::test]
async fn a_mutation_is_sent_again_with_its_first_request_id_when_the_director_dies_in_mid_call() {
    let (first_sent, mut first) = mpsc::channel(1);
    let dying = Director::start(Script { change_state: hang(first_sent), ..Script::default() }).await;
    let (second_sent, mut second) = mpsc::channel(1);
    let alive = Director::start(Script {
        change_state: answer(move |request: ChangeStateRequest| {
            second_sent.try_send(request).unwrap();
            Ok(TaskStarted { task_id: 17 })
        }),
        ..Script::default()
    })
    .await;
    let fleet = client(&[dying.address(), alive.address()], AMPLE);
    let request = ChangeStateRequest { request_id: request_id(), ..ChangeStateRequest::default() };
    let death = async {
        let received = first.recv().await.unwrap();
        dying.kill().await;
        received
    };
    let (started, received) = tokio::join!(call!(fleet, InstancesClient.change_state(request)), death);
    assert_eq!(started.unwrap().task_id, 17);
    assert_eq!(second.recv().await.unwrap().request_id, received.request_id);
    assert!(!received.request_id.is_empty());
}

#[tokio::test]
async fn when_nobody_answers_every_address_is_told_with_its_reason() {
    let without = Director::start(with_locks(|| Err(Status::unavailable("no leader")))).await;
    let gone = nobody().await;
    let fleet = client(&[gone.clone(), without.address()], Duration::from_millis(300));
    let error = call!(fleet, LocksClient.list(ListLocksRequest::default())).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Unreachable);
    let advice = error.advice().unwrap();
    assert!(advice.contains(&format!("{gone}: Connection refused")), "{advice}");
    assert!(advice.contains(&format!("{}: no leader", without.address())), "{advice}");
}

#[tokio::test]
async fn a_refusal_is_the_fleets_answer() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let refusing = Director::start(with_locks(move || {
        count.fetch_add(1, Ordering::SeqCst);
        Err(Status::permission_denied("needs bosh.read"))
    }))
    .await;
    let fleet = client(&[refusing.address(), refusing.address()], AMPLE);
    let error = call!(fleet, LocksClient.list(ListLocksRequest::default())).await.unwrap_err();
    assert!(matches!(&error, Error::NotAllowed(why) if why == "needs bosh.read"));
    assert_eq!((asked.load(Ordering::SeqCst), error.exit()), (1, Exit::NotAllowed));
}

#[tokio::test]
async fn a_busy_director_is_asked_again_if_it_says_when() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let busy = Director::start(with_locks(move || match count.fetch_add(1, Ordering::SeqCst) {
        0 => {
            let mut details = ErrorDetails::with_retry_info(Some(Duration::from_millis(20)));
            details.set_error_info("Busy", "directorate", HashMap::new());
            Err(Status::with_error_details(Code::ResourceExhausted, "too many requests", details))
        }
        _ => one_lock(),
    }))
    .await;
    let fleet = client(&[busy.address()], AMPLE);
    assert!(call!(fleet, LocksClient.list(ListLocksRequest::default())).await.is_ok());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_next_call_begins_where_the_last_one_went_well() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let without = Director::start(with_locks(move || {
        count.fetch_add(1, Ordering::SeqCst);
        Err(Status::unavailable("no leader"))
    }))
    .await;
    let there = Director::start(with_locks(one_lock)).await;
    let fleet = client(&[without.address(), there.address()], AMPLE);
    for _ in 0..3 {
        call!(fleet, LocksClient.list(ListLocksRequest::default())).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_director_that_never_answers_is_left_for_the_next() {
    let (called, _calls) = mpsc::channel(1);
    let stuck = Director::start(Script { locks: hang(called), ..Script::default() }).await;
    let there = Director::start(with_locks(one_lock)).await;
    let patience = Patience { attempt: Duration::from_millis(100), ..Patience::within(AMPLE) };
    let addresses = [stuck.address(), there.address()];
    let fleet = Fleet::new(&addresses, &Trust::Nobody, &Login::default(), patience).unwrap();
    assert!(call!(fleet, LocksClient.list(ListLocksRequest::default())).await.is_ok());
}
