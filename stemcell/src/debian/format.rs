//! Which clouds a Debian is packed for, and what is different for each.

use std::fmt;
use std::str::FromStr;

use crate::TAR_FORMAT;
use crate::manifest::{Manifest, StemcellNames};

/// What the image of a Debian stemcell is. The names of disks are those that BOSH's CPIs know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DebianFormat {
    /// The archive of the root file system: for containers, and for whoever boots a kernel that it is handed.
    #[default]
    Tar,
    /// A disk for OpenStack, as its machines see it.
    OpenstackRaw,
    /// A disk for OpenStack, without what is empty in it.
    OpenstackQcow2,
}

/// How a disk is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskFormat {
    Raw,
    Qcow2,
}

impl DebianFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tar, Self::OpenstackRaw, Self::OpenstackQcow2];

    fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::OpenstackRaw => "openstack-raw",
            Self::OpenstackQcow2 => "openstack-qcow2",
        }
    }

    /// Returns how its disk is written down, if it has one.
    pub(super) fn disk(self) -> Option<DiskFormat> {
        match self {
            Self::Tar => None,
            Self::OpenstackRaw => Some(DiskFormat::Raw),
            Self::OpenstackQcow2 => Some(DiskFormat::Qcow2),
        }
    }

    /// Returns its names. As with BOSH's stemcells, a disk that is not the cloud's usual kind says so at the end.
    pub(super) fn names(self) -> StemcellNames {
        let name = match self {
            Self::Tar => "bosh-directorate-debian-bookworm-go_agent",
            Self::OpenstackQcow2 => "bosh-openstack-kvm-debian-bookworm-go_agent",
            Self::OpenstackRaw => "bosh-openstack-kvm-debian-bookworm-go_agent-raw",
        };
        let (version, operating_system) = ("1.0".into(), "debian-bookworm".into());
        StemcellNames { name: name.into(), version, operating_system }
    }

    /// Returns what its manifest says, with lines of [`Self::properties`].
    pub(super) fn manifest<'a>(self, names: &'a StemcellNames, properties: &'a str) -> Manifest<'a> {
        let (formats, infrastructure): (&[&str], _) = match self {
            Self::Tar => (&[TAR_FORMAT, "warden-tar", "general-tar"], "directorate-local"),
            Self::OpenstackRaw => (&["openstack-raw"], "openstack"),
            Self::OpenstackQcow2 => (&["openstack-qcow2"], "openstack"),
        };
        Manifest { names, formats, infrastructure, properties }
    }

    /// Returns the lines of `cloud_properties` that are its own, for root disks that are so large at least.
    pub(super) fn properties(self, disk_mib: u64) -> String {
        let (hypervisor, disk_format, more) = match self {
            Self::Tar => ("qemu", "raw", "root_device_name: /dev/vda"),
            Self::OpenstackRaw => ("kvm", "raw", "auto_disk_config: true"),
            Self::OpenstackQcow2 => ("kvm", "qcow2", "auto_disk_config: true"),
        };
        format!(
            "  os_distro: debian\n  hypervisor: {hypervisor}\n  disk: {disk_mib}\n  disk_format: {disk_format}\n  \
             container_format: bare\n  {more}\n"
        )
    }

    /// Returns where the agent looks for its settings, as BOSH's `agent.json`.
    pub(super) fn agent_json(self) -> &'static str {
        match self {
            Self::Tar => include_str!("files/agent.json"),
            Self::OpenstackRaw | Self::OpenstackQcow2 => include_str!("files/agent-openstack.json"),
        }
    }
}

impl fmt::Display for DebianFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DebianFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| format!("there is no format `{text}`; there are {names}"))
    }
}
