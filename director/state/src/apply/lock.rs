//! Locks. A task joins the queues of all its locks in one entry, so every queue has its tasks in the same order and no
//! two tasks can wait for each other.

use model::*;

use super::tx::Tx;
use crate::tables::LOCKS;

/// Puts a task at the end of each lock's queue.
pub(super) fn join(tx: &mut Tx<'_>, task: TaskId, locks: &[LockName]) {
    for name in locks {
        let mut queue = tx.get(&LOCKS, name).unwrap_or_default();
        if queue.tasks.is_empty() {
            queue.held_since = tx.at;
        }
        queue.tasks.push(task);
        tx.put(&LOCKS, name, &queue);
    }
}

/// Takes a task out of each lock's queue; the next in line holds the lock from here on.
pub(super) fn leave(tx: &mut Tx<'_>, task: TaskId, locks: &[LockName]) {
    for name in locks {
        let Some(mut queue) = tx.get(&LOCKS, name) else { continue };
        if queue.tasks.first() == Some(&task) {
            queue.held_since = tx.at;
        }
        queue.tasks.retain(|waiting| *waiting != task);
        match queue.tasks.is_empty() {
            true => tx.delete(&LOCKS, name),
            false => tx.put(&LOCKS, name, &queue),
        }
    }
}
