//! What a replica keeps of its own identity beside its data.

use std::io;
use std::path::{Path, PathBuf};

use model::NodeId;
use serde::{Deserialize, Serialize};

use crate::files::write_private;

/// Which replica of which fleet a data folder belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// The fleet.
    pub cluster_id: String,
    /// The replica's number.
    pub node: NodeId,
    /// The peers' addresses, as they were known last: to ask for a place, also once the state is lost.
    #[serde(default)]
    pub peers: Vec<(NodeId, String)>,
}

/// The identity folder's files.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    folder: PathBuf,
}

impl IdentityFiles {
    /// Returns the files of a data folder.
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("identity") }
    }

    /// Returns whether there is an identity already.
    pub fn exist(&self) -> bool {
        self.path("node.json").exists()
    }

    /// Returns the folder that they are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns whether the replica has run: from then on its data must be there.
    pub fn has_run(&self) -> bool {
        self.path("has-run").exists()
    }

    /// Notes that the replica has run.
    pub fn note_run(&self) -> io::Result<()> {
        match self.has_run() {
            true => Ok(()),
            false => write_private(&self.path("has-run"), b""),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Stores everything; the node's own file last, since it says that the rest is there.
    pub fn store(
        &self,
        node: &NodeIdentity,
        key_pem: &str,
        chain_pem: &str,
        authorities_pem: &str,
    ) -> io::Result<()> {
        write_private(&self.path("key.pem"), key_pem.as_bytes())?;
        write_private(&self.path("authorities.pem"), authorities_pem.as_bytes())?;
        self.store_chain(chain_pem)?;
        self.store_node(node)
    }

    /// Stores which replica this is, and whom it knows.
    pub fn store_node(&self, node: &NodeIdentity) -> io::Result<()> {
        write_private(&self.path("node.json"), &serde_json::to_vec_pretty(node)?)
    }

    /// Stores a renewed certificate.
    pub fn store_chain(&self, chain_pem: &str) -> io::Result<()> {
        write_private(&self.path("chain.pem"), chain_pem.as_bytes())
    }

    /// Reads which replica this is.
    pub fn node(&self) -> io::Result<NodeIdentity> {
        Ok(serde_json::from_slice(&std::fs::read(self.path("node.json"))?)?)
    }

    /// Reads the private key.
    pub fn key_pem(&self) -> io::Result<String> {
        std::fs::read_to_string(self.path("key.pem"))
    }

    /// Reads the certificate.
    pub fn chain_pem(&self) -> io::Result<String> {
        std::fs::read_to_string(self.path("chain.pem"))
    }

    /// Reads the authorities that the fleet's certificates come from.
    pub fn authorities_pem(&self) -> io::Result<String> {
        std::fs::read_to_string(self.path("authorities.pem"))
    }
}
