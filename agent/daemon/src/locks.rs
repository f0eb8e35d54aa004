//! Who may work on jobs, disks, packages, users and DNS records: instead of BOSH's one worker, one lock each.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::method::{Method, Resource, Share};

/// The locks of one agent. First come, first served.
#[derive(Clone, Default)]
pub struct Locks {
    jobs: Arc<RwLock<()>>,
    disks: Arc<RwLock<()>>,
    packages: Arc<RwLock<()>>,
    users: Arc<RwLock<()>>,
    names: Arc<RwLock<()>>,
}

/// What one action holds; dropping it gives it back.
#[derive(Default)]
pub struct Held {
    _shared: Vec<OwnedRwLockReadGuard<()>>,
    _alone: Vec<OwnedRwLockWriteGuard<()>>,
}

impl Locks {
    /// Waits until everything that `method` claims is free. Safe to cancel.
    pub async fn take(&self, method: Method) -> Held {
        let mut held = Held::default();
        // Always in the order of `Resource`, so that two actions can't wait for each other.
        for (resource, share) in method.claims() {
            let lock = match resource {
                Resource::Jobs => self.jobs.clone(),
                Resource::Disks => self.disks.clone(),
                Resource::Packages => self.packages.clone(),
                Resource::Users => self.users.clone(),
                Resource::Names => self.names.clone(),
            };
            match share {
                Share::Shared => held._shared.push(lock.read_owned().await),
                Share::Alone => held._alone.push(lock.write_owned().await),
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use futures_now::now;

    use super::*;

    /// Polls a future once.
    mod futures_now {
        use std::task::{Context, Poll, Waker};

        pub fn now<F: Future>(future: F) -> Option<F::Output> {
            match Box::pin(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            }
        }
    }

    #[test]
    fn an_errand_leaves_disks_and_other_errands_alone_but_not_an_apply() {
        let locks = Locks::default();
        let errand = now(locks.take(Method::RunErrand)).unwrap();
        assert!(now(locks.take(Method::RunErrand)).is_some());
        assert!(now(locks.take(Method::MountDisk)).is_some());
        assert!(now(locks.take(Method::GetState)).is_some());
        assert!(now(locks.take(Method::Apply)).is_none());
        drop(errand);
        assert!(now(locks.take(Method::Apply)).is_some());
    }
}
