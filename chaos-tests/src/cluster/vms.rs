//! What the local cloud's records say of its VMs.

use std::fs;

use anyhow::{Context as _, Result};
use nix::unistd::Pid;
use serde_json::Value;

use super::Cluster;

impl Cluster {
    /// Returns the first process of a VM of the local cloud: what is number one inside, or the machine itself.
    pub fn first_process(&self, vm: &str) -> Result<Pid> {
        let path = self.cloud_root().join("vms").join(vm).join("vm.json");
        let record: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let pid = record["processes"]["init"]["pid"].as_i64().context("the VM runs")?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }
}
