//! Where an agent keeps what must survive it.

use std::io;

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
        }
    }

    /// Writes one file, for its owner only.
    pub(crate) async fn write<T: Serialize>(
        &self,
        file: fn(&Layout) -> std::path::PathBuf,
        value: &T,
    ) -> io::Result<()> {
        let Self::Disk(layout) = self else { return Ok(()) };
        let (path, content) = (file(layout), serde_json::to_vec(value)?);
        tokio::task::spawn_blocking(move || durable::write(&path, &content, Readers::Owner))
            .await
            .unwrap_or_else(|_| Err(io::Error::other("writing a file panicked")))
    }
}
