//! Following a task over streams that break wherever they can.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dctl::client::{Fleet, Login, Patience, Trust};
use dctl::console::Screen;
use dctl::error::Error;
use dctl::follow::{Lines, Raw, Until, follow};
use futures::StreamExt as _;
use proto::v1::follow_task_request::Kind as Output;
use proto::v1::*;
use tokio::sync::mpsc;
use tonic::Status;

use crate::director::{AMPLE, Director, Script, answer, client, parts};

/// An event log with everything in it that a break could tear apart, umlauts included.
pub const LOG: &str = concat!(
    r#"{"time":60,"stage":"Preparing","tags":[],"total":1,"task":"Größe","index":1,"state":"started","progress":0}"#,
    "\n",
    r#"{"time":61,"stage":"Preparing","tags":[],"total":1,"task":"Größe","index":1,"state":"finished","progress":100}"#,
    "\n",
    r#"{"time":62,"stage":"Updating instance","tags":["web"],"total":1,"task":"web/u (0)","index":1,"state":"started","progress":0}"#,
    "\n",
    r#"{"time":63,"stage":"Updating instance","tags":["web"],"total":1,"task":"web/u (0)","index":1,"state":"in_progress","progress":5,"data":{"status":"stopping jobs"}}"#,
    "\n",
    r#"{"time":67,"stage":"Updating instance","tags":["web"],"total":1,"task":"web/u (0)","index":1,"state":"finished","progress":100}"#,
    "\n",
);

const RENDERED: &str = "\
Task 3 | 00:01:00 | Preparing: Größe (00:00:01)
Task 3 | 00:01:02 | Updating instance web: web/u (0)
Task 3 | 00:01:03 | L stopping jobs: web/u (0) (00:00:05)
";

/// Returns the message that ends a stream for good.
pub fn ended(state: &str) -> TaskOutput {
    TaskOutput {
        offset: LOG.len() as u64,
        task: Some(Task { id: 3, state: state.into(), ..Task::default() }),
        ..TaskOutput::default()
    }
}

/// Returns a piece of the log.
pub fn piece(from: usize, to: usize) -> TaskOutput {
    let data = LOG.as_bytes()[from..to.min(LOG.len())].to_vec().into();
    TaskOutput { offset: from as u64, data, task: None }
}

fn broken() -> Result<TaskOutput, Status> {
    Err(Status::unavailable("this director is going down"))
}

async fn rendered(addresses: &[String]) -> Result<String, Error> {
    let fleet = client(addresses, AMPLE);
    let mut out = Vec::new();
    let mut lines = Lines::new(3, &mut out, Screen::Plain);
    let followed = follow(&fleet, 3, Output::Event, Until::TaskEnds, &mut lines).await;
    lines.finish().unwrap();
    followed.map(|task| assert_eq!(task.state, "done"))?;
    Ok(String::from_utf8(out).unwrap())
}

/// A director that breaks the first stream at byte `cut`, and then serves the rest.
fn breaks_at(cut: usize) -> Script {
    let asked = Mutex::new(0);
    Script {
        follow: answer(move |request: FollowTaskRequest| {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            let from = request.offset as usize;
            Ok(parts(match *asked {
                1 => vec![Ok(piece(from, cut)), broken()],
                _ => vec![Ok(piece(from, LOG.len())), Ok(ended("done"))],
            }))
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_break_at_every_byte() {
    // Many at once: each one waits out a back-off.
    let cuts = (0..=LOG.len()).map(|cut| async move {
        let director = Director::start(breaks_at(cut)).await;
        let text = rendered(&[director.address()]).await.unwrap();
        assert_eq!(text, RENDERED, "broken at byte {cut}");
    });
    futures::stream::iter(cuts).buffer_unordered(64).collect::<()>().await;
}

#[tokio::test]
async fn every_stream_may_break_and_the_next_director_may_repeat_itself() {
    // Steps that share no divisor with the overlap: breaks come at all kinds of places.
    let script = |step: usize, overlap: usize| Script {
        follow: answer(move |request: FollowTaskRequest| {
            let from = (request.offset as usize).saturating_sub(overlap);
            let to = request.offset as usize + step;
            let last = if to >= LOG.len() { Ok(ended("done")) } else { broken() };
            Ok(parts(vec![Ok(piece(from, to)), last]))
        }),
        ..Script::default()
    };
    let one = Director::start(script(61, 0)).await;
    let other = Director::start(script(37, 13)).await;
    assert_eq!(rendered(&[one.address(), other.address()]).await.unwrap(), RENDERED);
}

#[tokio::test]
async fn a_gap_is_not_printed_over() {
    let asked = Mutex::new(0);
    let director = Director::start(Script {
        follow: answer(move |request: FollowTaskRequest| {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            let from = request.offset as usize;
            Ok(parts(match *asked {
                1 => vec![Ok(piece(0, 10)), Ok(piece(20, LOG.len())), Ok(ended("done"))],
                _ => vec![Ok(piece(from, LOG.len())), Ok(ended("done"))],
            }))
        }),
        ..Script::default()
    })
    .await;
    assert_eq!(rendered(&[director.address()]).await.unwrap(), RENDERED);
}

#[tokio::test]
async fn a_stream_that_ends_politely_without_the_task_is_opened_again() {
    let director = Director::start(Script {
        follow: answer(|request: FollowTaskRequest| match request.offset as usize {
            0 => Ok(parts(vec![Ok(piece(0, 100))])),
            from => Ok(parts(vec![Ok(piece(from, LOG.len())), Ok(ended("done"))])),
        }),
        ..Script::default()
    })
    .await;
    assert_eq!(rendered(&[director.address()]).await.unwrap(), RENDERED);
}

#[tokio::test]
async fn a_director_that_dies_while_it_streams_is_replaced() {
    let (opened, mut is_open) = mpsc::channel(1);
    let dying = Director::start(Script {
        follow: answer(move |_: FollowTaskRequest| {
            opened.try_send(()).unwrap();
            Ok(parts(vec![Ok(piece(0, 150))]).chain(futures::stream::pending()).boxed())
        }),
        task: answer(|_| Ok(Task { id: 3, state: "processing".into(), ..Task::default() })),
        ..Script::default()
    })
    .await;
    let offsets = Arc::new(Mutex::new(Vec::new()));
    let seen = offsets.clone();
    let alive = Director::start(Script {
        follow: answer(move |request: FollowTaskRequest| {
            seen.lock().unwrap().push(request.offset);
            let from = request.offset as usize;
            Ok(parts(vec![Ok(piece(from, LOG.len())), Ok(ended("done"))]))
        }),
        ..Script::default()
    })
    .await;
    let addresses = [dying.address(), alive.address()];
    let death = async {
        is_open.recv().await.unwrap();
        dying.kill().await;
    };
    let (text, ()) = tokio::join!(rendered(&addresses), death);
    assert_eq!(text.unwrap(), RENDERED);
    assert_eq!(offsets.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_director_that_breaks_every_stream_at_once_is_given_up() {
    let director = Director::start(Script {
        follow: answer(|_: FollowTaskRequest| Ok(parts(vec![broken()]))),
        ..Script::default()
    })
    .await;
    let fleet = client(&[director.address()], Duration::from_millis(300));
    let mut out = Vec::new();
    let error = follow(&fleet, 3, Output::Debug, Until::TaskEnds, &mut Raw::new(&mut out)).await.unwrap_err();
    assert_eq!(error.exit() as u8, 3, "{error}");
}

#[tokio::test]
async fn a_stream_that_was_silent_for_longer_than_our_patience_may_break() {
    let rounds = retry::Policy {
        initial: Duration::from_millis(1),
        max: Duration::from_millis(5),
        total: Some(Duration::from_millis(200)),
    };
    let patience = Patience { attempt: AMPLE, rounds };
    let asked = Mutex::new(0);
    let director = Director::start(Script {
        follow: answer(move |request: FollowTaskRequest| {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            let from = request.offset as usize;
            // Three times: patience that was used up once must not stay used up.
            if *asked > 3 {
                return Ok(parts(vec![Ok(piece(from, LOG.len())), Ok(ended("done"))]));
            }
            let silence = futures::stream::once(async move {
                // The condition is the time itself.
                tokio::time::sleep(patience.total() * 2).await;
                broken()
            });
            Ok(silence.boxed())
        }),
        ..Script::default()
    })
    .await;
    let fleet = Fleet::new(&[director.address()], &Trust::Nobody, &Login::default(), patience).unwrap();
    let mut out = Vec::new();
    let task = follow(&fleet, 3, Output::Debug, Until::TaskEnds, &mut Raw::new(&mut out)).await.unwrap();
    assert_eq!((task.state.as_str(), String::from_utf8(out).unwrap().as_str()), ("done", LOG));
}

#[tokio::test]
async fn an_unknown_task_is_not_asked_for_twice() {
    let director = Director::start(Script {
        follow: answer(|_: FollowTaskRequest| Err(Status::not_found("Task 3 not found"))),
        ..Script::default()
    })
    .await;
    let error = rendered(&[director.address()]).await.unwrap_err();
    assert_eq!(error.to_string(), "Task 3 not found");
}

#[tokio::test]
async fn a_task_that_waits_says_for_whom() {
    let told = Arc::new(tokio::sync::Notify::new());
    let (asked, waiters) = (Mutex::new(HashSet::new()), told.clone());
    let director = Director::start(Script {
        follow: Box::new(move |request| {
            let told = told.clone();
            let from = request.into_inner().offset as usize;
            let rest = futures::stream::once(async move {
                told.notified().await;
                Ok(piece(from, LOG.len()))
            });
            let all = rest.chain(parts(vec![Ok(ended("done"))])).boxed();
            Box::pin(std::future::ready(Ok(all)))
        }),
        task: answer(move |request: GetTaskRequest| {
            // The second question finds the same answer: it must not be printed again. Then the task begins.
            if !asked.lock().unwrap().insert(request.id) {
                waiters.notify_one();
            }
            Ok(Task { id: 3, state: "queued".into(), waits_for: vec![1, 2], ..Task::default() })
        }),
        ..Script::default()
    })
    .await;
    let text = rendered(&[director.address()]).await.unwrap();
    assert_eq!(text, format!("Task 3 | Waiting for tasks 1, 2\n{RENDERED}"));
}
