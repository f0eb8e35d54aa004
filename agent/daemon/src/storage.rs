//! Where an agent keeps what must survive it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::durable::{self, Readers};
use crate::layout::Layout;

/// Where an agent keeps what must survive it.
#[derive(Clone, Debug)]
pub enum Storage {
    /// Files below the base directory.
    Disk(Layout),
    /// Nowhere: a simulated agent forgets with its process.
    Memory,
    /// In memory that outlives the agent: what the disk of a simulated VM keeps over a reboot.
    Kept(Kept),
}

/// Files that are kept in memory, by path. Clones are the same files.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>);

impl Kept {
    fn files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage {
    /// Reads one file; `None` if it was never written.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        file: fn(&Layout) -> std::path::PathBuf,
    ) -> io::Result<Option<T>> {
        match self {
            Self::Disk(layout) => durable::read_json(&file(layout)),
            Self::Memory => Ok(None),
            Self::Kept(kept) => match kept.files().get(&file(&Layout::new("/"))) {
                Some(content) => Ok(Some(serde_json::from_slice(content)?)),
                None => Ok(None),
            },
        }
    }

    /// Writes one file, for its owner only.
    pub(crate) async fn write<T: Serialize>(
        &self,
        file: fn(&Layout) -> std::path::PathBuf,
        value: &T,
    ) -> io::Result<()> {
        let layout = match self {
            Self::Disk(layout) => layout,
            Self::Memory => return Ok(()),
            Self::Kept(kept) => {
                kept.files().insert(file(&Layout::new("/")), serde_json::to_vec(value)?);
                return Ok(());
            }
        };
        let (path, content) = (file(layout), serde_json::to_vec(value)?);
        tokio::task::spawn_blocking(move || durable::write(&path, &content, Readers::Owner))
            .await
            .unwrap_or_else(|_| Err(io::Error::other("writing a file panicked")))
    }
}
