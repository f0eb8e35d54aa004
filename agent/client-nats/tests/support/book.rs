//! What the replicated state is to the crate: one book for all replicas, that an older leader can't write in.

use std::collections::BTreeMap;
use std::sync::Mutex;

use agent_api::admission;
use agent_client_nats::{Deed, DeedError, Deeds, Stage};
use async_trait::async_trait;
use model::Epoch;

#[derive(Default)]
pub struct Book(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    epoch: Epoch,
    deeds: BTreeMap<Deed, Stage>,
    away: bool,
}

impl Book {
    /// Returns what is written about a request.
    pub fn stage(&self, deed: &Deed) -> Option<Stage> {
        self.0.lock().unwrap().deeds.get(deed).cloned()
    }

    /// Returns whether the agents have said of everything written that they are at it.
    pub fn all_are_running(&self) -> bool {
        self.0.lock().unwrap().deeds.values().all(|stage| matches!(stage, Stage::Running { .. }))
    }

    /// Says that nothing can be written, or that it can be again.
    pub fn set_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }

    fn admitted<T>(&self, epoch: Epoch, use_it: impl FnOnce(&mut Pages) -> T) -> Result<T, DeedError> {
        let mut pages = self.0.lock().unwrap();
        pages.epoch = admission::admit(pages.epoch, epoch)
            .map_err(|stale| DeedError::Stale { current: stale.current })?;
        if pages.away {
            return Err(DeedError::Unavailable { reason: "no majority".into() });
        }
        Ok(use_it(&mut pages))
    }
}

#[async_trait]
impl Deeds for Book {
    async fn admit(&self, epoch: Epoch) -> Result<(), DeedError> {
        self.admitted(epoch, |_| ())
    }

    async fn begin(&self, deed: &Deed, epoch: Epoch) -> Result<Option<Stage>, DeedError> {
        self.admitted(epoch, |pages| {
            let known = pages.deeds.get(deed).cloned();
            pages.deeds.entry(deed.clone()).or_insert(Stage::Asked);
            known
        })
    }

    async fn find(&self, deed: &Deed, epoch: Epoch) -> Result<Option<Stage>, DeedError> {
        self.admitted(epoch, |pages| pages.deeds.get(deed).cloned())
    }

    async fn put(&self, deed: &Deed, epoch: Epoch, from: &Stage, to: Option<Stage>) -> Result<(), DeedError> {
        self.admitted(epoch, |pages| {
            if pages.deeds.get(deed) != Some(from) {
                return;
            }
            match to {
                Some(stage) => pages.deeds.insert(deed.clone(), stage),
                None => pages.deeds.remove(deed),
            };
        })
    }
}
