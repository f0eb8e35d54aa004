//! Where a test stops a leader: at the n-th call of a kind, just before it is done or just after.
//!
//! From then on nothing that this leader asks for is done, as if its process had died there.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::watch;

/// Which side of a call the leader dies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The call is not made.
    Before,
    /// The call is made, its answer never arrives.
    After,
}

/// A place to die at.
#[derive(Clone, Debug)]
pub struct Point {
    /// The call's name, as the ports give it (`log`, `finished:create_vm`, `agent:run_errand` …).
    pub name: String,
    /// Which of these calls, from 1.
    pub nth: usize,
    /// Before or after it.
    pub side: Side,
}

#[derive(Default)]
struct Inner {
    point: Option<Point>,
    frozen: bool,
    seen: BTreeMap<String, usize>,
}

/// The gate that all ports of a world pass through.
pub struct Gate {
    inner: Mutex<Inner>,
    frozen: watch::Sender<bool>,
}

impl Gate {
    pub fn new() -> Self {
        Self { inner: Mutex::default(), frozen: watch::channel(false).0 }
    }

    /// Forgets what was counted and stops the leader at `point`, if one is given.
    pub fn arm(&self, point: Option<Point>) {
        *self.inner.lock().unwrap() = Inner { point, ..Inner::default() };
        self.frozen.send_replace(false);
    }

    /// Returns how often each call was made since the gate was armed.
    pub fn seen(&self) -> BTreeMap<String, usize> {
        self.inner.lock().unwrap().seen.clone()
    }

    /// Waits until a leader has been stopped.
    pub async fn stopped(&self) {
        self.frozen.subscribe().wait_for(|frozen| *frozen).await.unwrap();
    }

    /// Makes a call that goes by these names.
    pub async fn pass<T>(&self, names: &[String], call: impl Future<Output = T>) -> T {
        let stop = self.enter(names);
        if stop == Some(Side::Before) {
            return self.freeze().await;
        }
        let answer = call.await;
        if stop == Some(Side::After) {
            return self.freeze().await;
        }
        answer
    }

    fn enter(&self, names: &[String]) -> Option<Side> {
        let mut inner = self.inner.lock().unwrap();
        if inner.frozen {
            return Some(Side::Before);
        }
        let mut stop = None;
        for name in names {
            let seen = inner.seen.entry(name.clone()).or_default();
            *seen += 1;
            let seen = *seen;
            if let Some(point) = inner.point.as_ref().filter(|p| p.name == *name && p.nth == seen) {
                stop = Some(point.side);
            }
        }
        inner.frozen = stop.is_some();
        stop
    }

    async fn freeze<T>(&self) -> T {
        self.frozen.send_replace(true);
        std::future::pending().await
    }
}
