//! A VM's share of the machine, from its cloud properties.

use cpi_api::CpiErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LocalError;
use crate::record::Publish;

/// Upper bounds; what is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Processors; halves are fine.
    pub cpu: Option<f64>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The cloud properties that this cloud knows; others are left alone, as CPIs do.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct VmProperties {
    #[serde(alias = "cpus")]
    cpu: Option<f64>,
    memory_mib: Option<u64>,
    pids: Option<u64>,
    /// Ports that the host's loopback offers: `[{host_port: 8080, port: 80}]`.
    pub publish: Vec<Publish>,
}

impl VmProperties {
    /// Reads the properties of a request.
    pub fn parse(cloud_properties: &Value) -> Result<Self, LocalError> {
        if cloud_properties.is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(cloud_properties.clone()).map_err(|error| {
            // The value itself stays out of the message: cloud properties may hold secrets.
            let message = format!("cloud_properties of the VM: {error}");
            LocalError::refused(CpiErrorKind::VmCreationFailed, message)
        })
    }

    /// Returns the bounds among them.
    pub fn limits(&self) -> Limits {
        Limits { cpu: self.cpu, memory_mib: self.memory_mib, pids: self.pids }
    }
}
