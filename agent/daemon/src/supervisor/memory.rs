//! Which services are looked after, across restarts of the agent: what monit keeps in its state file.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::durable::{self, Readers};

/// What was last wanted of a service, or decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Care {
    /// It is started, and again when it dies.
    LookedAfter,
    /// It was stopped, is ending on purpose, or was given up.
    LeftAlone,
}

/// See the module's header.
pub(super) struct Memory {
    path: PathBuf,
    services: Mutex<BTreeMap<String, Care>>,
}

impl Memory {
    /// Reads what an earlier life knew. Damaged, it is as good as none: services are then treated as after their first
    /// installation.
    pub(super) fn open(path: PathBuf) -> Self {
        let services = match durable::read_json(&path) {
            Ok(services) => services.unwrap_or_default(),
            Err(error) => {
                warn!(path = %path.display(), error = %error, "which services were looked after can't be read");
                BTreeMap::new()
            }
        };
        Self { path, services: Mutex::new(services) }
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Care>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, service: &str) -> Option<Care> {
        self.services().get(service).copied()
    }

    /// Remembers the same of several services; returns once it is on disk.
    pub(super) fn note<'a>(&self, names: impl IntoIterator<Item = &'a str>, care: Care) -> io::Result<()> {
        let mut services = self.services();
        let mut noted = services.clone();
        noted.extend(names.into_iter().map(|name| (name.to_owned(), care)));
        self.replace(&mut services, noted)
    }

    /// Forgets services that are no longer there.
    pub(super) fn forget_all_but(&self, is_there: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut services = self.services();
        let mut kept = services.clone();
        kept.retain(|name, _| is_there(name));
        self.replace(&mut services, kept)
    }

    fn replace(&self, services: &mut BTreeMap<String, Care>, new: BTreeMap<String, Care>) -> io::Result<()> {
        if *services != new {
            durable::write_json(&self.path, &new, Readers::Owner)?;
            *services = new;
        }
        Ok(())
    }
}
