//! Problems that a scan of a deployment's VMs and disks has found, and what can be done about each. The words are BOSH's:
//! its CLI shows them, and asks by the resolutions' names.
//!
//! Not here: finding problems (`executor`) and what a resolution consists of (`scheduler`).

use serde::{Deserialize, Serialize};

use crate::ids::*;

/// A problem, as a scan has found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its number.
    pub id: ProblemId,
    /// The task whose scan found it.
    pub found_by: TaskId,
    /// What was found.
    pub finding: Finding,
}

/// Something that a scan has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The instance.
    pub instance: InstanceId,
    /// Its group.
    pub group: GroupName,
    /// Its index.
    pub index: u32,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with an instance's VM or disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the line of each variant speaks for its fields")]
pub enum Fault {
    /// The instance has no VM, or the cloud does not have it any more.
    MissingVm { agent: Option<AgentId>, cid: Option<VmCid> },
    /// The agent does not answer, and its VM is there, or the cloud can't tell.
    UnresponsiveAgent { agent: AgentId, cid: Option<VmCid> },
    /// The cloud does not have the disk.
    MissingDisk { disk: DiskId, cid: DiskCid, size_mib: u64 },
    /// A disk that is not, or not any more, the one that its instance works with.
    InactiveDisk { disk: DiskId, cid: DiskCid, size_mib: u64 },
    /// The instance's disk is not mounted in its VM, or not only there.
    MountInfoMismatch { disk: DiskId, cid: DiskCid, vm: VmCid, mounted_on: Vec<VmCid> },
}

impl Fault {
    /// Returns BOSH's name for this type of problem.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::MissingVm { .. } => "missing_vm",
            Self::UnresponsiveAgent { .. } => "unresponsive_agent",
            Self::MissingDisk { .. } => "missing_disk",
            Self::InactiveDisk { .. } => "inactive_disk",
            Self::MountInfoMismatch { .. } => "mount_info_mismatch",
        }
    }

    /// Returns what can be done about it, as BOSH lists it.
    pub fn resolutions(&self) -> &'static [Resolution] {
        use Resolution::*;
        match self {
            Self::MissingVm { .. } => &[Ignore, RecreateVmWithoutWait, RecreateVm, DeleteVmReference],
            Self::UnresponsiveAgent { .. } => {
                &[Ignore, RebootVm, RecreateVmWithoutWait, RecreateVm, DeleteVm, DeleteVmReference]
            }
            Self::MissingDisk { .. } => &[Ignore, DeleteDiskReference],
            Self::InactiveDisk { .. } => &[Ignore, DeleteDisk, ActivateDisk],
            Self::MountInfoMismatch { .. } => &[Ignore, ReattachDisk, ReattachDiskAndReboot],
        }
    }

    /// Returns what is done about it where nobody chooses.
    pub fn automatic(&self) -> Resolution {
        match self {
            Self::MissingVm { .. } => Resolution::RecreateVmWithoutWait,
            _ => Resolution::Ignore,
        }
    }

    /// Returns what a resolution does about it.
    pub fn plan(&self, resolution: Resolution) -> &'static str {
        match (resolution, self) {
            (Resolution::Ignore, Self::MountInfoMismatch { .. }) => "Ignore",
            (Resolution::Ignore, _) => "Skip for now",
            (Resolution::RebootVm, _) => "Reboot VM",
            (Resolution::RecreateVmWithoutWait, _) => "Recreate VM without waiting for processes to start",
            (Resolution::RecreateVm, _) => "Recreate VM and wait for processes to start",
            (Resolution::DeleteVm, _) => "Delete VM",
            (Resolution::DeleteVmReference, Self::UnresponsiveAgent { .. }) => {
                "Delete VM reference (forceful; may need to manually delete VM from the Cloud to avoid IP conflicts)"
            }
            (Resolution::DeleteVmReference, _) => "Delete VM reference",
            (Resolution::DeleteDiskReference, _) => "Delete disk reference (DANGEROUS!)",
            (Resolution::DeleteDisk, _) => "Delete disk",
            (Resolution::ActivateDisk, _) => "Activate disk",
            (Resolution::ReattachDisk, _) => "Reattach disk to instance",
            (Resolution::ReattachDiskAndReboot, _) => "Reattach disk and reboot instance",
            (Resolution::Close, _) => "Close problem",
        }
    }

    /// Returns the disk that it is about, if it is about one.
    pub fn disk(&self) -> Option<&DiskId> {
        match self {
            Self::MissingVm { .. } | Self::UnresponsiveAgent { .. } => None,
            Self::MissingDisk { disk, .. }
            | Self::InactiveDisk { disk, .. }
            | Self::MountInfoMismatch { disk, .. } => Some(disk),
        }
    }
}

impl Finding {
    /// Says what is wrong.
    pub fn description(&self) -> String {
        let slug = format!("{}/{}", self.group, self.instance);
        let with_cid = |cid: &Option<VmCid>| {
            let cid = cid.as_ref().map(|cid| format!(" with cloud ID '{cid}'")).unwrap_or_default();
            format!("VM for '{slug} ({})'{cid}", self.index)
        };
        match &self.fault {
            Fault::MissingVm { cid, .. } => format!("{} missing.", with_cid(cid)),
            Fault::UnresponsiveAgent { cid, .. } => format!("{} is not responding.", with_cid(cid)),
            Fault::MissingDisk { cid, size_mib, .. } => {
                format!("Disk '{cid}' ({slug}, {size_mib}M) is missing")
            }
            Fault::InactiveDisk { cid, size_mib, .. } => {
                format!("Disk '{cid}' ({size_mib}M) for instance '{slug} ({})' is inactive", self.index)
            }
            Fault::MountInfoMismatch { cid, vm, mounted_on, .. } => {
                let vms: Vec<&str> = mounted_on.iter().map(VmCid::as_str).collect();
                let found = match vms.is_empty() {
                    true => "Not mounted in any VM".to_owned(),
                    false => format!("Mounted on: {}", vms.join(", ")),
                };
                format!(
                    "Inconsistent mount information:\nRecord shows that disk '{cid}' should be mounted on {vm}.\n\
                     However it is currently :\n\t{found}"
                )
            }
        }
    }
}

/// What can be done about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Nothing.
    Ignore,
    /// The cloud reboots the VM.
    RebootVm,
    /// A new VM, without waiting until its jobs run.
    RecreateVmWithoutWait,
    /// A new VM, whose jobs run.
    RecreateVm,
    /// The VM is deleted, and no other made.
    DeleteVm,
    /// The VM is forgotten, whatever becomes of it.
    DeleteVmReference,
    /// The disk is given up.
    DeleteDiskReference,
    /// The disk is detached and given up.
    DeleteDisk,
    /// The disk becomes the one that its instance works with.
    ActivateDisk,
    /// The disk is attached and mounted again.
    ReattachDisk,
    /// The same, and the cloud reboots the VM.
    ReattachDiskAndReboot,
    /// The problem is not one any more.
    Close,
}

impl Resolution {
    /// Returns BOSH's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::RebootVm => "reboot_vm",
            Self::RecreateVmWithoutWait => "recreate_vm_without_wait",
            Self::RecreateVm => "recreate_vm",
            Self::DeleteVm => "delete_vm",
            Self::DeleteVmReference => "delete_vm_reference",
            Self::DeleteDiskReference => "delete_disk_reference",
            Self::DeleteDisk => "delete_disk",
            Self::ActivateDisk => "activate_disk",
            Self::ReattachDisk => "reattach_disk",
            Self::ReattachDiskAndReboot => "reattach_disk_and_reboot",
            Self::Close => "close",
        }
    }
}

/// A problem as it stands now: what was found may have gone since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The problem.
    pub problem: Problem,
    /// Why it is none any more.
    pub outdated: Option<String>,
}

impl Standing {
    /// Says what is wrong, or that nothing is any more.
    pub fn description(&self) -> String {
        let Problem { id, finding, .. } = &self.problem;
        match &self.outdated {
            None => finding.description(),
            Some(why) => format!("Problem ({} {id}) is no longer valid: {why}", finding.fault.type_name()),
        }
    }

    /// Returns what can be done about it.
    pub fn resolutions(&self) -> &'static [Resolution] {
        match self.outdated {
            None => self.problem.finding.fault.resolutions(),
            Some(_) => &[Resolution::Close],
        }
    }

    /// Returns what is done about it where nobody chooses.
    pub fn automatic(&self) -> Resolution {
        match self.outdated {
            None => self.problem.finding.fault.automatic(),
            Some(_) => Resolution::Close,
        }
    }

    /// Returns the resolution of this name, or the automatic one if none is named.
    pub fn resolution(&self, name: Option<&str>) -> Option<Resolution> {
        let Some(name) = name else { return Some(self.automatic()) };
        self.resolutions().iter().copied().find(|resolution| resolution.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Vec<Fault> {
        let (disk, cid, size_mib) = (DiskId::new("d1"), DiskCid::new("disk-1"), 1024);
        let gone = Fault::MountInfoMismatch {
            disk: disk.clone(),
            cid: cid.clone(),
            vm: VmCid::new("vm-1"),
            mounted_on: Vec::new(),
        };
        let elsewhere = Fault::MountInfoMismatch {
            disk: disk.clone(),
            cid: cid.clone(),
            vm: VmCid::new("vm-1"),
            mounted_on: vec![VmCid::new("vm-2")],
        };
        vec![
            Fault::MissingVm { agent: None, cid: None },
            Fault::MissingVm { agent: Some(AgentId::new("a")), cid: Some(VmCid::new("4401")) },
            Fault::UnresponsiveAgent { agent: AgentId::new("a"), cid: Some(VmCid::new("4401")) },
            Fault::MissingDisk { disk: disk.clone(), cid: cid.clone(), size_mib },
            Fault::InactiveDisk { disk, cid, size_mib },
            gone,
            elsewhere,
        ]
    }

    fn finding(fault: Fault) -> Finding {
        Finding { instance: InstanceId::new("uuid"), group: GroupName::new("api"), index: 0, fault }
    }

    #[test]
    fn problems_are_described_in_bosh_s_words() {
        let told: Vec<String> = faults().into_iter().map(|fault| finding(fault).description()).collect();
        let mounted = "Inconsistent mount information:\nRecord shows that disk 'disk-1' should be mounted on vm-1.\n\
                       However it is currently :\n";
        assert_eq!(
            told,
            [
                "VM for 'api/uuid (0)' missing.".to_owned(),
                "VM for 'api/uuid (0)' with cloud ID '4401' missing.".into(),
                "VM for 'api/uuid (0)' with cloud ID '4401' is not responding.".into(),
                "Disk 'disk-1' (api/uuid, 1024M) is missing".into(),
                "Disk 'disk-1' (1024M) for instance 'api/uuid (0)' is inactive".into(),
                format!("{mounted}\tNot mounted in any VM"),
                format!("{mounted}\tMounted on: vm-2"),
            ]
        );
    }

    #[test]
    fn what_is_automatic_is_among_what_can_be_chosen() {
        for fault in faults() {
            let standing = |outdated| Standing {
                problem: Problem { id: ProblemId(3), found_by: TaskId(1), finding: finding(fault.clone()) },
                outdated,
            };
            let open = standing(None);
            assert!(open.resolutions().contains(&open.automatic()), "{fault:?}");
            assert_eq!(open.resolutions()[0], Resolution::Ignore, "{fault:?}");
            assert_eq!(open.resolution(None), Some(open.automatic()));
            assert_eq!(open.resolution(Some("dance")), None);
            let gone = standing(Some("the instance is gone".into()));
            assert_eq!(gone.resolution(None), Some(Resolution::Close));
            assert_eq!(gone.resolution(Some("ignore")), None);
            assert!(gone.description().ends_with("3) is no longer valid: the instance is gone"));
        }
    }
}
