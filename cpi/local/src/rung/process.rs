//! VMs that are only processes: each has a base directory and an address of the host's loopback network.

use std::net::TcpListener;
use std::path::Path;

/// Binds an address of 127/8 other than 127.0.0.1 and writes a file below `root`.
pub(super) fn probe(root: &Path) -> Result<String, String> {
    tempfile::tempfile_in(root).map_err(|error| format!("{} can't be written: {error}", root.display()))?;
    match TcpListener::bind(("127.91.82.73", 0)) {
        Ok(_) => Ok("wrote a file and bound an address of 127/8".into()),
        Err(error) => Err(format!("an address of 127/8 can't be bound: {error}")),
    }
}
