use state::command::{Outcome, TaskEnd};

use super::*;
use crate::test_support::replica::Replica;
use crate::test_support::state::{EPOCH, World, deploy, queue};

const DEBUG: OutputKind = OutputKind::Debug;

async fn with_task() -> (Replica, Outputs, TaskId) {
    let replica = Replica::start().await;
    let outcome = replica.must(queue(deploy(), Vec::new())).await;
    let Outcome::TaskQueued(task) = outcome else { panic!("{outcome:?}") };
    let outputs = Outputs::new(replica.door.blobs.clone(), replica.log.clone());
    (replica, outputs, task)
}

/// Reads an output back, and checks that its segments have neither gap nor overlap.
async fn read(replica: &Replica, task: TaskId) -> Vec<u8> {
    let segments = State::new(&*replica.log.view()).output_segments(task, DEBUG);
    let mut all = Vec::new();
    for segment in segments {
        assert_eq!(segment.offset, all.len() as u64);
        assert!(segment.length as usize <= SEGMENT_BYTES);
        all.extend(executor::blobs::read_whole(&*replica.door.blobs, &segment.blob).await.unwrap());
        assert_eq!(segment.offset + u64::from(segment.length), all.len() as u64);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_read_back_without_gap_or_repeat() {
    let (replica, outputs, task) = with_task().await;
    let mut expected = String::new();
    for turn in 0..3 {
        let text = format!("turn {turn}: {}\n", "0123456789".repeat(10_000 * turn));
        outputs.write(task, DEBUG, &text);
        expected.push_str(&text);
        outputs.flush(task).await;
    }
    assert_eq!(read(&replica, task).await, expected.as_bytes());
    assert!(outputs.lock().is_empty());
    outputs.flush(task).await;
    assert_eq!(read(&replica, task).await.len(), expected.len(), "nothing waits, nothing is sealed");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_can_t_be_sealed_takes_no_more_memory_than_it_may() {
    let (replica, outputs, task) = with_task().await;
    let large = "x".repeat(WAITING_BYTES_MAX + 1);
    outputs.write(task, DEBUG, &large);
    outputs.write(task, DEBUG, "y");
    outputs.write(task, DEBUG, &large);
    outputs.write(task, DEBUG, "the end");
    {
        let waiting = outputs.lock();
        let bytes = &waiting[&(task, DEBUG)];
        assert!(bytes.len() <= WAITING_BYTES_MAX);
        assert!(bytes.starts_with(DROPPED) && bytes.ends_with(b"the end"));
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_about_a_task_that_has_ended_is_dropped() {
    let (replica, outputs, task) = with_task().await;
    let epoch = State::new(&*replica.log.view()).epoch();
    outputs.write(task, DEBUG, "said in time\n");
    outputs.flush(task).await;
    replica.must(Command::TaskTake { task, epoch }).await;
    replica.must(Command::TaskFinish { task, epoch, end: TaskEnd::Done(None) }).await;
    outputs.write(task, DEBUG, "said by one who slept through the end\n");
    outputs.flush(task).await;
    assert_eq!(read(&replica, task).await, b"said in time\n");
    assert!(outputs.lock().is_empty(), "nothing is tried for ever");
    replica.stop().await;
}

#[test]
fn a_piece_whose_answer_was_lost_is_not_placed_twice() {
    let mut world = World::new();
    let task = world.deploying();
    let blob = BlobDigest::new("b");
    let first = place((task, DEBUG), 5, &blob, None, &world.state()).unwrap();
    assert_eq!(first.offset, 0);
    let again = place((task, DEBUG), 5, &blob, Some(&first), &world.state());
    assert_eq!(again.as_ref(), Some(&first), "it did not happen: once more");
    world.must(Command::OutputSeal { task, epoch: EPOCH, kind: DEBUG, segment: first.clone() });
    assert_eq!(place((task, DEBUG), 5, &blob, Some(&first), &world.state()), None);
    let equal_text = place((task, DEBUG), 5, &blob, None, &world.state()).unwrap();
    assert_eq!(equal_text.offset, 5, "the same text once more is another piece");
}
