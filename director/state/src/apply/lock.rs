//! Locks. A task joins the queues of all its locks in one entry, so every queue has its tasks in the same order and no
//! two tasks can wait for each other. The lock of a package joins in when the task gets that far: who has compiled it lets
//! it go at once, and waits for nothing else meanwhile.

use model::*;

use super::tx::Tx;
use crate::tables::LOCKS;

/// Puts a task at the end of each lock's queue that it is not in.
pub(super) fn join(tx: &mut Tx<'_>, task: TaskId, locks: &[LockName]) {
    for name in locks {
        let mut queue = tx.get(&LOCKS, name).unwrap_or_default();
        if queue.tasks.is_empty() {
            queue.held_since = tx.at;
        }
        if queue.tasks.contains(&task) {
            continue;
        }
        queue.tasks.push(task);
        tx.put(&LOCKS, name, &queue);
    }
}

/// Takes a task out of every queue.
pub(super) fn leave_all(tx: &mut Tx<'_>, task: TaskId) {
    let queues = tx.rows(&LOCKS).filter(|(_, queue)| queue.tasks.contains(&task));
    let names: Vec<LockName> = queues.map(|(name, _)| name).collect();
    leave(tx, task, &names);
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
