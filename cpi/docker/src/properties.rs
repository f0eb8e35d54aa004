//! A VM's share of the machine, from its cloud properties. The keys are those of the local cloud, and one more. Pure.

use cpi_api::CpiErrorKind;
use serde::Deserialize;
use serde_json::Value;

use crate::error::DockerError;

/// The cloud properties that this cloud knows; others are left alone, as CPIs do. What is absent is not bounded.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct VmProperties {
    /// Processors; halves are fine.
    #[serde(alias = "cpus")]
    pub cpu: Option<f64>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Ports that the host's loopback offers: `[{host_port: 8080, port: 80}]`.
    pub publish: Vec<Publish>,
    /// What root inside may do beyond Docker's usual: `[SYS_ADMIN]`.
    pub capabilities: Vec<String>,
}

/// A port of the VM that the host's loopback offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Publish {
    /// Port on the host's 127.0.0.1.
    pub host_port: u16,
    /// Port in the VM.
    pub port: u16,
}

impl VmProperties {
    /// Reads the properties of a request.
    pub fn parse(cloud_properties: &Value) -> Result<Self, DockerError> {
        if cloud_properties.is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(cloud_properties.clone()).map_err(|error| {
            // The value itself stays out of the message: cloud properties may hold secrets.
            let message = format!("cloud_properties of the VM: {error}");
            DockerError::refused(CpiErrorKind::VmCreationFailed, message)
        })
    }
}
