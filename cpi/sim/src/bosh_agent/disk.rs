//! What BOSH's agent finds on its disk after a restart: settings that it was sent, which count more than those of its VM, and the
//! tasks that sent them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize as _;
use serde_json::Value;
use tokio::sync::Notify;

use super::Settings;

/// The disk of a VM; clones are of the same one.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    kept: Mutex<Kept>,
    restart: Notify,
}

#[derive(Default)]
struct Kept {
    /// As they were sent: these are what new ones are compared with.
    mbus: Option<Value>,
    blobstores: Option<Value>,
    tasks: Vec<String>,
}

impl Disk {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what settings say of bus and blobstores; returns whether that is another thing than was stored.
    pub fn store(&self, settings: &Value) -> bool {
        let mut kept = self.kept();
        let mbus = renew(&mut kept.mbus, settings.get("mbus"));
        let blobstores = renew(&mut kept.blobstores, settings.get("blobstores"));
        mbus || blobstores
    }

    /// Returns the settings with which an agent begins whose VM was made with these.
    pub fn settings(&self, made_with: &Settings) -> Settings {
        let (kept, mut settings) = (self.kept(), made_with.clone());
        if let Some(mbus) = kept.mbus.as_ref().and_then(|mbus| super::Mbus::deserialize(mbus).ok()) {
            settings.mbus = mbus;
        }
        if let Some(stores) = kept.blobstores.as_ref().and_then(|stores| Vec::deserialize(stores).ok()) {
            settings.blobstores = stores;
        }
        settings
    }

    pub fn note_task(&self, task: &str) {
        self.kept().tasks.push(task.to_owned());
    }

    pub fn noted_tasks(&self) -> Vec<String> {
        self.kept().tasks.clone()
    }

    /// Has the agent end, for its supervisor to start it again.
    pub fn restart(&self) {
        self.0.restart.notify_one();
    }

    /// Waits for that.
    pub async fn restarted(&self) {
        self.0.restart.notified().await;
    }
}

/// Puts what is given in the place of what was; returns whether it is something else.
fn renew(kept: &mut Option<Value>, given: Option<&Value>) -> bool {
    let Some(given) = given.filter(|given| !given.is_null()) else { return false };
    if kept.as_ref() == Some(given) {
        return false;
    }
    *kept = Some(given.clone());
    true
}
