//! A VM's share of the machine, from its cloud properties.

use cpi_api::CpiErrorKind;
use cpi_host::HostError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::Publish;
use crate::rung::Rung;

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
    /// How much a machine can write beside its persistent disks, in MiB.
    pub ephemeral_disk_mib: Option<u64>,
    /// What the VM is, if not what the cloud's are: `namespaces` or `qemu`.
    isolation: Option<Rung>,
    /// Ports that the host's loopback offers: `[{host_port: 8080, port: 80}]`.
    pub publish: Vec<Publish>,
}

impl VmProperties {
    /// Reads the properties of a request.
    pub fn parse(cloud_properties: &Value) -> Result<Self, HostError> {
        if cloud_properties.is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(cloud_properties.clone()).map_err(|error| {
            // The value itself stays out of the message: cloud properties may hold secrets.
            let message = format!("cloud_properties of the VM: {error}");
            HostError::refused(CpiErrorKind::VmCreationFailed, message)
        })
    }

    /// Returns what the VM is, in a cloud whose VMs are `usual`. Containers and machines can be in one cloud: they share network
    /// and disks.
    pub fn rung(&self, usual: Rung) -> Result<Rung, HostError> {
        const SIDE_BY_SIDE: [Rung; 2] = [Rung::Namespaces, Rung::Qemu];
        let Some(wanted) = self.isolation.filter(|wanted| *wanted != usual) else { return Ok(usual) };
        if [wanted, usual].iter().all(|rung| SIDE_BY_SIDE.contains(rung)) {
            return Ok(wanted);
        }
        let message =
            format!("VMs of this cloud are made with isolation `{usual}`; `{wanted}` can't be among them");
        Err(HostError::refused(CpiErrorKind::VmCreationFailed, message))
    }

    /// Returns the bounds among them.
    pub fn limits(&self) -> Limits {
        Limits { cpu: self.cpu, memory_mib: self.memory_mib, pids: self.pids }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_and_machines_can_be_in_one_cloud_and_nothing_else_can() {
        let rung = |isolation: &str, usual| {
            let properties = VmProperties::parse(&json!({ "isolation": isolation })).unwrap();
            properties.rung(usual).map_err(|error| error.to_string())
        };
        assert_eq!(rung("qemu", Rung::Namespaces), Ok(Rung::Qemu));
        assert_eq!(rung("namespaces", Rung::Qemu), Ok(Rung::Namespaces));
        assert_eq!(rung("process", Rung::Process), Ok(Rung::Process));
        assert!(rung("qemu", Rung::Process).unwrap_err().contains("can't be among them"));
        assert!(rung("process", Rung::Qemu).unwrap_err().contains("can't be among them"));
        assert_eq!(VmProperties::default().rung(Rung::Qemu).unwrap(), Rung::Qemu);
        assert!(VmProperties::parse(&json!({ "isolation": "best" })).is_err());
    }
}
