//! A lock is held by one task at a time, and no task works without the locks it needs.

use std::collections::BTreeMap;

use model::task::TaskState;
use model::{LockName, TaskId};

use super::{Event, Invariant};

#[derive(Default)]
pub struct OneTaskPerLock;

impl Invariant for OneTaskPerLock {
    fn name(&self) -> &'static str {
        "one task per lock"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::State { state, index } = event else { return Ok(()) };
        let mut holders = BTreeMap::<LockName, TaskId>::new();
        for lock in state.locks() {
            if let Some(other) = holders.insert(lock.name.clone(), lock.holder) {
                return Err(format!("at {index} {} is held by tasks {other} and {}", lock.name, lock.holder));
            }
            let Some(task) = state.task(lock.holder) else {
                return Err(format!(
                    "at {index} {} is held by task {}, which there is not",
                    lock.name, lock.holder
                ));
            };
            if task.state.is_final() {
                return Err(format!(
                    "at {index} {} is held by task {}, which has ended",
                    lock.name, lock.holder
                ));
            }
            // Who compiles takes the lock of a package when it comes to it; all others are there before a task begins.
            let taken_on_the_way = lock.name.as_str().starts_with("lock:compile:");
            for waiter in lock.waiters.iter().filter(|_| !taken_on_the_way) {
                let works = state.task(*waiter).is_some_and(|task| task.state == TaskState::Processing);
                if works {
                    return Err(format!("at {index} task {waiter} works and waits for {}", lock.name));
                }
            }
        }
        Ok(())
    }
}
