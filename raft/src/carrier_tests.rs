use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::*;

/// Whom a call was for, and the first byte of each entry in it.
type Heard = (u64, Vec<u8>);

/// A leader that answers when it may, with what the entry's first byte says.
#[derive(Clone)]
struct Scripted {
    may_answer: Arc<Semaphore>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Scripted {
    fn new() -> Self {
        Self { may_answer: Arc::new(Semaphore::new(0)), heard: Arc::default() }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Calls for Scripted {
    async fn propose(
        &self,
        leader: &Leader,
        request: wire::ProposeRequest,
    ) -> Result<wire::ProposeResponse, Attempt> {
        let entries = request.entries;
        let bytes = entries.iter().map(|entry| entry[0]).collect();
        self.heard.lock().unwrap().push((leader.id, bytes));
        self.may_answer.acquire().await.unwrap().forget();
        if entries[0].as_ref() == b"break" {
            return Err(Attempt::NotDone);
        }
        let outcomes = entries.iter().filter(|entry| entry[0] != b'-').map(|entry| {
            outcome_out(match entry[0] {
                b'n' => Err(LocalError::NotLeader),
                b'u' => Err(LocalError::Unknown),
                b's' => Err(LocalError::Stopped),
                other => Ok(Proposed { index: other.into(), answer: entry.to_vec() }),
            })
        });
        Ok(wire::ProposeResponse { outcomes: outcomes.collect() })
    }
}

fn leader(id: u64) -> Leader {
    Leader { id, term: 1, address: "somewhere".into() }
}

/// Puts an entry into the queue; the task waits for its outcome.
async fn send(
    carrier: &Carrier,
    to: u64,
    entry: &'static str,
) -> oneshot::Receiver<Result<Proposed, Attempt>> {
    let (answer, outcome) = oneshot::channel();
    let deadline = Instant::now() + Duration::from_secs(60);
    let parcel = Parcel { leader: leader(to), entry: Bytes::from_static(entry.as_bytes()), deadline, answer };
    assert!(carrier.queue.send(parcel).await.is_ok());
    outcome
}

/// Lets the deliveries run until they wait for something.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn start() -> (Carrier, Scripted, CancellationToken, owned_tasks::OwnedTasks) {
    let ((carrier, deliveries), calls) = (Carrier::new(), Scripted::new());
    let (stop, tasks) = (CancellationToken::new(), owned_tasks::OwnedTasks::new());
    let (made, token) = (calls.clone(), stop.clone());
    tasks.spawn("deliveries", owned_tasks::OnExit::Ignore, move |_| deliveries.run(made, token));
    (carrier, calls, stop, tasks)
}

#[tokio::test]
async fn a_lone_entry_goes_at_once_and_those_that_wait_go_together() {
    let (carrier, calls, stop, _tasks) = start();
    let mut outcomes = Vec::new();
    for entry in ["1", "2", "3", "4"] {
        outcomes.push(send(&carrier, 1, entry).await);
        settle().await;
    }
    assert_eq!(calls.heard().len(), CALLS_MAX, "each found a call that was free");
    for entry in ["5", "6", "7"] {
        outcomes.push(send(&carrier, 1, entry).await);
    }
    outcomes.push(send(&carrier, 2, "8").await);
    settle().await;
    assert_eq!(calls.heard().len(), CALLS_MAX);
    calls.may_answer.add_permits(10);
    for (outcome, expected) in outcomes.into_iter().zip(b'1'..) {
        assert_eq!(outcome.await.unwrap().unwrap().index, u64::from(expected));
    }
    let later: Vec<_> = calls.heard().split_off(CALLS_MAX);
    assert_eq!(later, [(1, b"567".to_vec()), (2, b"8".to_vec())]);
    stop.cancel();
}

#[tokio::test]
async fn each_entry_gets_its_own_outcome() {
    let (carrier, calls, stop, _tasks) = start();
    let busy = [
        send(&carrier, 9, "b").await,
        send(&carrier, 8, "b").await,
        send(&carrier, 7, "b").await,
        send(&carrier, 6, "b").await,
    ];
    settle().await;
    let mut outcomes = Vec::new();
    for entry in ["a", "n", "u", "s", "-"] {
        outcomes.push(send(&carrier, 1, entry).await);
    }
    calls.may_answer.add_permits(10);
    for outcome in busy {
        outcome.await.unwrap().unwrap();
    }
    let mut told = Vec::new();
    for outcome in outcomes {
        told.push(outcome.await.unwrap().map(|done| done.answer));
    }
    let unknown = Err(Attempt::Unknown);
    assert_eq!(told, [Ok(b"a".to_vec()), Err(Attempt::NotDone), unknown.clone(), unknown.clone(), unknown]);
    stop.cancel();
}

#[tokio::test]
async fn a_call_that_fails_fails_for_all_and_who_gave_up_is_not_carried() {
    let (carrier, calls, stop, _tasks) = start();
    for busy in 6..10 {
        drop(send(&carrier, busy, "b").await);
    }
    settle().await;
    assert_eq!(calls.heard().len(), 0, "nobody waited for any of them");
    let broken = send(&carrier, 1, "break").await;
    settle().await;
    calls.may_answer.add_permits(10);
    assert_eq!(broken.await.unwrap(), Err(Attempt::NotDone));
    stop.cancel();
}
