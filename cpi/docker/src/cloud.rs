//! The cloud as one object: the daemon, what is shared beside it, and which function does which call.

use cpi_api::{Call, CpiErrorKind, CpiInfo, Found};
use cpi_host::Scope;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::error::DockerError;
use crate::names::{Names, WANTED_NAME};
use crate::store::Store;
use crate::{DockerOptions, disk, network, snapshot, stemcell, vm};

/// The CPI contract that this cloud keeps.
const API_VERSION: u32 = 2;

/// One opened cloud.
pub(crate) struct Cloud {
    pub daemon: Daemon,
    pub names: Names,
    pub store: Store,
    pub options: DockerOptions,
    pub agent: stemcell::Agent,
}

impl Cloud {
    /// Opens it; see [`crate::DockerCpi::open`].
    pub fn open(options: DockerOptions) -> Result<Self, DockerError> {
        let names = Names::new(&options.name).ok_or_else(|| {
            let message =
                format!("the name of a fleet at a Docker daemon is {WANTED_NAME}, not `{}`", options.name);
            DockerError::refused(CpiErrorKind::Other, message)
        })?;
        let store = Store::open(&options.root)?;
        Ok(Self {
            daemon: Daemon::new(&options.socket),
            names,
            store,
            options,
            agent: stemcell::Agent::default(),
        })
    }

    /// Answers `info`.
    pub fn info() -> Value {
        let formats = stemcell::FORMATS.map(str::to_owned).to_vec();
        json!(CpiInfo { api_version: API_VERSION, stemcell_formats: formats })
    }

    /// Carries out one call. The caller has checked the epoch; whoever takes a lock checks it again.
    pub fn perform(&self, scope: &Scope, call: Call) -> Result<Value, DockerError> {
        let done = |()| Value::Null;
        match call {
            Call::Info => Ok(Self::info()),
            Call::CreateStemcell(request) => stemcell::create(self, scope, &request).map(|cid| json!(cid)),
            Call::DeleteStemcell(cid) => stemcell::delete(self, scope, &cid).map(done),
            Call::CreateVm(request) => vm::create(self, scope, &request).map(|cid| json!({ "cid": cid })),
            Call::FindVm(agent) => {
                let cid = self.names.vm(&agent);
                Ok(found(vm::exists(self, scope, &cid)?, cid))
            }
            Call::DeleteVm(cid) => vm::delete(self, scope, &cid).map(done),
            Call::HasVm(cid) => vm::exists(self, scope, &cid).map(|yes| json!(yes)),
            Call::RebootVm(cid) => vm::reboot(self, scope, &cid).map(done),
            Call::SetVmMetadata(cid, metadata) => vm::set_metadata(self, scope, &cid, metadata).map(done),
            Call::CalculateVmCloudProperties(sizes) => Ok(
                json!({ "cpu": sizes.cpu, "memory_mib": sizes.ram_mib, "ephemeral_disk_mib": sizes.ephemeral_disk_mib }),
            ),
            Call::CreateDisk(request) => disk::create(self, scope, &request).map(|cid| json!(cid)),
            Call::FindDisk(id) => {
                let cid = self.names.disk(&id);
                Ok(found(disk::exists(self, scope, &cid)?, cid))
            }
            Call::DeleteDisk(cid) => disk::delete(self, scope, &cid).map(done),
            Call::HasDisk(cid) => disk::exists(self, scope, &cid).map(|yes| json!(yes)),
            Call::AttachDisk(vm, disk) => disk::attach(self, scope, &vm, &disk),
            Call::DetachDisk(vm, disk) => disk::detach(self, scope, &vm, &disk).map(done),
            Call::SetDiskMetadata(cid, metadata) => disk::set_metadata(self, scope, &cid, metadata).map(done),
            Call::ResizeDisk(cid, size_mib) => disk::resize(self, scope, &cid, size_mib).map(done),
            Call::SnapshotDisk(request) => snapshot::take(self, scope, &request).map(|cid| json!(cid)),
            Call::FindSnapshot(id) => {
                let cid = self.names.snapshot(&id);
                Ok(found(snapshot::exists(self, scope, &cid)?, cid))
            }
            Call::DeleteSnapshot(cid) => snapshot::delete(self, scope, &cid).map(done),
            Call::CreateNetwork(request) => network::create(self, scope, &request).map(|made| json!(made)),
            Call::FindNetwork(subnet) => {
                let made = network::find(self, scope, &subnet)?;
                Ok(json!(Found::These(made.into_iter().collect())))
            }
            Call::DeleteNetwork(cid) => network::delete(self, scope, &cid).map(done),
        }
    }
}

fn found<T: serde::Serialize>(is_there: bool, cid: T) -> Value {
    json!(if is_there { Found::one(cid) } else { Found::none() })
}
