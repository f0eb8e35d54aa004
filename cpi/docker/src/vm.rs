//! The life of a VM.
//!
//! It is made in three steps at the daemon: the container, the files in it, the start. One that was never started is
//! half-made, whoever made it; with its lock held it has lost its maker, and goes. Errors and deaths in between thus need
//! no list of what is to be undone.

use bollard::models::ContainerStateStatusEnum;
use cpi_api::{CpiErrorKind, CreateVm, Metadata};
use cpi_host::{HostError, Scope};
use model::VmCid;
use sha2::{Digest as _, Sha256};

use crate::cloud::Cloud;
use crate::error::DockerError;
use crate::names::{ID, Kind, STEMCELL, TOKEN};
use crate::network::{self, Wanted};
use crate::properties::VmProperties;
use crate::store::VmRecord;
use crate::{body, disk, settings, stemcell};

/// How often a VM is started whose network went away meanwhile, with the last of those who were in it.
const STARTS_MAX: u32 = 5;

/// A VM that is there.
pub(crate) struct Vm {
    pub cid: VmCid,
    /// The image that it runs on, by its digest.
    pub image: String,
    pub is_running: bool,
    token: Option<String>,
}

/// Makes the VM of an agent; one that is there already is the answer too, if its agent has the same token.
pub(crate) fn create(cloud: &Cloud, scope: &Scope, request: &CreateVm) -> Result<VmCid, DockerError> {
    let cid = cloud.names.vm(&request.agent_id);
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if let Some(vm) = settled(cloud, &cid)? {
        let is_ours = vm.token == Some(token_digest(request));
        return if is_ours { Ok(cid) } else { Err(HostError::MadeByAnotherCall { cid }.into()) };
    }
    match build(cloud, scope, &cid, request) {
        Ok(()) => Ok(cid),
        Err(error) => {
            // What can't be removed now was never started: whoever asks for this VM next removes it.
            match dismantle(cloud, &cid) {
                Ok(()) => lock.retire(),
                Err(left) => tracing::warn!(vm = %cid, error = %left, "a VM that failed to start is left"),
            }
            Err(error)
        }
    }
}

/// Returns whether the VM is there. Waits for whoever is working on it; removes what a dead one left half-made.
pub(crate) fn exists(cloud: &Cloud, scope: &Scope, cid: &VmCid) -> Result<bool, DockerError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let exists = settled(cloud, cid)?.is_some();
    if !exists {
        lock.retire();
    }
    Ok(exists)
}

/// Removes a VM. Its disks are detached and stay.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &VmCid) -> Result<(), DockerError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    dismantle(cloud, cid)?;
    disk::release(cloud, scope, cid)?;
    cloud.store.forget(cid.as_str())?;
    lock.retire();
    Ok(())
}

/// Ends everything in a VM and starts it again, with what is on its disks.
pub(crate) fn reboot(cloud: &Cloud, scope: &Scope, cid: &VmCid) -> Result<(), DockerError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let vm = existing(cloud, cid)?;
    cloud.daemon.restart(cid.as_str())?;
    disk::show_again(cloud, scope, &vm)
}

/// Replaces a VM's metadata. Labels never change, so it is kept beside the daemon.
pub(crate) fn set_metadata(
    cloud: &Cloud,
    scope: &Scope,
    cid: &VmCid,
    metadata: Metadata,
) -> Result<(), DockerError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    existing(cloud, cid)?;
    cloud.store.put_record(cid.as_str(), &VmRecord { metadata })
}

/// Returns a VM that is there. The caller holds its lock.
pub(crate) fn existing(cloud: &Cloud, cid: &VmCid) -> Result<Vm, DockerError> {
    let missing = || DockerError::refused(CpiErrorKind::VmNotFound, format!("VM `{cid}` does not exist"));
    settled(cloud, cid)?.ok_or_else(missing)
}

/// Returns the VM if it is whole. One that is not has lost its maker, since we hold the lock: it goes.
pub(crate) fn settled(cloud: &Cloud, cid: &VmCid) -> Result<Option<Vm>, DockerError> {
    let Some(container) = cloud.daemon.container(cid.as_str())? else { return Ok(None) };
    let config = container.config.unwrap_or_default();
    if !cloud.names.is_ours(config.labels.as_ref(), Kind::Vm) {
        return Ok(None);
    }
    match container.state.and_then(|state| state.status) {
        // Being removed, or it failed to be, and nothing of it runs.
        Some(ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::DEAD) => {
            dismantle(cloud, cid).map(|()| None)
        }
        status => Ok(Some(Vm {
            cid: cid.clone(),
            image: container.image.unwrap_or_default(),
            is_running: status == Some(ContainerStateStatusEnum::RUNNING),
            token: config.labels.and_then(|mut labels| labels.remove(TOKEN)),
        })),
    }
}

fn build(cloud: &Cloud, scope: &Scope, cid: &VmCid, request: &CreateVm) -> Result<(), DockerError> {
    let properties = VmProperties::parse(&request.cloud_properties)?;
    let wanted = network::wanted(cloud, &request.networks)?;
    warn_of_loopback(cid, request);
    let image = stemcell::image(cloud, scope, &request.stemcell)?;
    let archive = settings::archive(cid, request)?;
    let mut labels = cloud.names.labels(Kind::Vm);
    let more = [
        (ID, request.agent_id.to_string()),
        (STEMCELL, request.stemcell.to_string()),
        (TOKEN, token_digest(request)),
    ];
    labels.extend(more.map(|(key, value)| (key.to_owned(), value)));
    ensure_all(cloud, scope, &wanted)?;
    let first = wanted.first().map(|wanted| &wanted.place);
    let body = body::vm(&image, request.agent_id.as_str(), labels, &properties, first);
    cloud.daemon.create(cid.as_str(), body)?;
    for other in wanted.iter().skip(1) {
        network::connect(cloud, cid.as_str(), &other.place)?;
    }
    cloud.daemon.put(cid.as_str(), archive)?;
    start(cloud, scope, cid, &wanted)
}

/// Starts a container, making its networks again if they have gone with the last VM in them.
fn start(cloud: &Cloud, scope: &Scope, cid: &VmCid, wanted: &[Wanted]) -> Result<(), DockerError> {
    let mut starts = 0;
    loop {
        starts += 1;
        match cloud.daemon.start(cid.as_str()) {
            Err(error) if error.is_absent() && starts < STARTS_MAX => ensure_all(cloud, scope, wanted)?,
            outcome => return outcome,
        }
    }
}

fn ensure_all(cloud: &Cloud, scope: &Scope, wanted: &[Wanted]) -> Result<(), DockerError> {
    wanted.iter().try_for_each(|wanted| network::ensure(cloud, scope, wanted))
}

/// Removes whatever there is of a VM, and the networks that it was the last one in.
fn dismantle(cloud: &Cloud, cid: &VmCid) -> Result<(), DockerError> {
    cloud.daemon.remove(&cloud.names.errand(cid.as_str()))?;
    let Some(container) = cloud.daemon.container(cid.as_str())? else { return Ok(()) };
    let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
    if !cloud.names.is_ours(labels, Kind::Vm) {
        return Ok(());
    }
    cloud.daemon.remove(cid.as_str())?;
    let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    network::leave(cloud, networks.into_keys());
    Ok(())
}

/// A replica on the host's loopback is nowhere that a container could go: it will never be heard of, so say why.
fn warn_of_loopback(cid: &VmCid, request: &CreateVm) {
    let is_loopback = |endpoint: &&String| endpoint.starts_with("127.") || endpoint.starts_with("localhost:");
    if let Some(endpoint) = request.bootstrap.endpoints.iter().find(is_loopback) {
        tracing::warn!(vm = %cid, endpoint, "a VM at a Docker daemon can't reach a director on the host's loopback");
    }
}

fn token_digest(request: &CreateVm) -> String {
    let digest = Sha256::digest(request.bootstrap.token.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
