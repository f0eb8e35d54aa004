//! The cloud as one object: its state, its options, and which function does which call.

use std::path::PathBuf;

use cpi_api::{Call, CpiErrorKind, CpiInfo, Found};
use cpi_host::records::{self, Durability};
use cpi_host::{HostError, Scope};
use serde_json::{Value, json};

use crate::network::out_of_reach;
use crate::rung::{Isolation, Rung};
use crate::store::{Store, disk_cid, snapshot_cid, vm_cid};
use crate::{LocalOptions, OpenError, disk, rung, snapshot, stemcell, vm};

/// The CPI contract that this cloud keeps.
const API_VERSION: u32 = 2;

/// One opened cloud.
pub(crate) struct Cloud {
    pub store: Store,
    pub options: LocalOptions,
    pub rung: Rung,
}

impl Cloud {
    /// Opens it; see [`crate::LocalCpi::open`].
    pub fn open(options: LocalOptions) -> Result<Self, OpenError> {
        let store = Store::open(&options.root, &options.helper).map_err(OpenError::Directory)?;
        let rung = choose(&options)?;
        if rung == Rung::UserNamespaces && options.outbound.is_some() {
            return Err(OpenError::NoWayOut);
        }
        if rung == Rung::UserNamespaces {
            rung::user_namespaces::check_hidden(&store, &options)?;
        }
        store.sweep_trash();
        Ok(Self { store, options, rung })
    }

    /// Answers `info`.
    pub fn info(&self) -> Value {
        let formats = stemcell::formats(self.rung).iter().map(|&f| f.to_owned()).collect();
        json!(CpiInfo { api_version: API_VERSION, stemcell_formats: formats })
    }

    /// Carries out one call. The caller has checked the epoch; whoever takes a lock checks it again.
    pub fn perform(&self, scope: &Scope, call: Call) -> Result<Value, HostError> {
        let done = |()| Value::Null;
        match call {
            Call::Info => Ok(self.info()),
            Call::CreateStemcell(request) => stemcell::create(self, scope, &request).map(|cid| json!(cid)),
            Call::DeleteStemcell(cid) => stemcell::delete(self, scope, &cid).map(done),
            Call::CreateVm(request) => vm::create(self, scope, *request).map(|cid| json!({ "cid": cid })),
            Call::FindVm(agent) => {
                let cid = vm_cid(&agent);
                Ok(json!(if vm::exists(self, scope, &cid)? { Found::one(cid) } else { Found::none() }))
            }
            Call::DeleteVm(cid) => vm::delete(self, scope, &cid).map(done),
            Call::HasVm(cid) => vm::exists(self, scope, &cid).map(|yes| json!(yes)),
            Call::RebootVm(cid) => vm::reboot(self, scope, &cid).map(done),
            Call::SetVmMetadata(cid, metadata) => vm::set_metadata(self, scope, &cid, metadata).map(done),
            Call::CalculateVmCloudProperties(sizes) => Ok(
                json!({ "cpu": sizes.cpu, "memory_mib": sizes.ram_mib, "ephemeral_disk_mib": sizes.ephemeral_disk_mib }),
            ),
            Call::CreateDisk(request) => disk::create(self, scope, request).map(|cid| json!(cid)),
            Call::FindDisk(id) => {
                let cid = disk_cid(&id);
                Ok(json!(if disk::exists(self, scope, &cid)? { Found::one(cid) } else { Found::none() }))
            }
            Call::DeleteDisk(cid) => disk::delete(self, scope, &cid).map(done),
            Call::HasDisk(cid) => disk::exists(self, scope, &cid).map(|yes| json!(yes)),
            Call::AttachDisk(vm, disk) => disk::attach(self, scope, &vm, &disk),
            Call::DetachDisk(vm, disk) => disk::detach(self, scope, &vm, &disk).map(done),
            Call::SetDiskMetadata(cid, metadata) => disk::set_metadata(self, scope, &cid, metadata).map(done),
            Call::ResizeDisk(cid, size_mib) => disk::resize(self, scope, &cid, size_mib).map(done),
            Call::SnapshotDisk(request) => snapshot::take(self, scope, request).map(|cid| json!(cid)),
            Call::FindSnapshot(id) => {
                let cid = snapshot_cid(&id);
                Ok(json!(if snapshot::exists(self, scope, &cid)? { Found::one(cid) } else { Found::none() }))
            }
            Call::DeleteSnapshot(cid) => snapshot::delete(self, scope, &cid).map(done),
            // All VMs are on one bridge, with whatever addresses they are given: there is nothing to make.
            Call::CreateNetwork(_) | Call::FindNetwork(_) | Call::DeleteNetwork(_) => {
                Err(HostError::Refused {
                    kind: CpiErrorKind::NotImplemented,
                    message: "the local cloud makes no networks".into(),
                })
            }
        }
    }

    /// Writes where the replicas are, for the helpers that carry the agents' connections.
    pub fn announce(&self, endpoints: &[String]) -> Result<(), HostError> {
        let path = self.endpoints_path();
        if endpoints.is_empty() || records::read::<Vec<String>>(&path)?.as_deref() == Some(endpoints) {
            return Ok(());
        }
        for endpoint in out_of_reach(endpoints, self.rung) {
            tracing::warn!(
                endpoint,
                "VMs of the local cloud can't reach a director that is not at an IPv4 address"
            );
        }
        records::write(&path, &endpoints, Durability::UntilReboot)
    }

    /// Returns the arguments that make our own program a helper, before the role.
    pub fn helper_args(&self) -> Vec<String> {
        self.options.helper.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect()
    }

    /// Returns the file with the replicas' addresses.
    pub fn endpoints_path(&self) -> PathBuf {
        self.store.root().join("endpoints.json")
    }
}

/// Returns the best rung that works and is wanted; what is below it is not tried.
fn choose(options: &LocalOptions) -> Result<Rung, OpenError> {
    let mut refused = Vec::new();
    let candidates = match options.isolation {
        Isolation::Auto => Rung::BEST_FIRST.to_vec(),
        Isolation::Exactly(wanted) => vec![wanted],
    };
    for rung in candidates {
        let report = rung.try_once(options);
        if report.ok {
            return Ok(rung);
        }
        refused.push(report);
    }
    Err(OpenError::NoRung(refused))
}
