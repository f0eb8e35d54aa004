//! Stemcells: what VMs have below their own files.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use cpi_api::{CpiErrorKind, CreateStemcell};
use cpi_host::records::{self, Durability};
use cpi_host::{HostError, Scope};
use model::StemcellCid;
use sha2::{Digest as _, Sha256};
use stemcell::{HOST_FORMAT, TAR_FORMAT};

use crate::cloud::Cloud;
use crate::helper::Errand;
use crate::network::has_own_network;
use crate::record::{StemcellKind, StemcellRecord};
use crate::rung::Rung;

/// How much of an image is looked at to tell what it is.
const MARKER_BYTES_MAX: u64 = 64;

/// Returns the formats that VMs of a rung can be made from.
pub(crate) fn formats(rung: Rung) -> &'static [&'static str] {
    match has_own_network(rung) {
        true => &[HOST_FORMAT, TAR_FORMAT, "warden-tar", "general-tar"],
        false => &[HOST_FORMAT],
    }
}

/// Registers an image. The cid follows from the content and the properties, name and version among them: a repeat
/// registers nothing new.
pub(crate) fn create(
    cloud: &Cloud,
    scope: &Scope,
    request: &CreateStemcell,
) -> Result<StemcellCid, HostError> {
    let image = &request.image;
    let kind = kind_of(image)?;
    if kind == StemcellKind::Tar && !has_own_network(cloud.rung) {
        let message =
            format!("a VM on the rung `{}` has no root of its own: use a {HOST_FORMAT} stemcell", cloud.rung);
        return Err(HostError::refused(CpiErrorKind::NotSupported, message));
    }
    let cid = StemcellCid::new(format!("stemcell-{}", digest(request)?));
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if cloud.store.stemcell(&cid)?.is_some() {
        return Ok(cid);
    }
    let dir = cloud.store.stemcell_dir(&cid);
    cloud.store.discard(&dir)?;
    fs::create_dir_all(&dir).map_err(HostError::os("create", &dir))?;
    let rootfs = dir.join("rootfs");
    match (kind, cloud.rung) {
        (StemcellKind::Host, _) => {}
        // Its files belong to many, whom only root of a namespace with their ids can give them to.
        (StemcellKind::Tar, Rung::UserNamespaces) => {
            Errand::Unpack { image: image.clone(), to: rootfs }.run(&cloud.options.helper)?;
        }
        (StemcellKind::Tar, _) => unpack(image, &rootfs)?,
    }
    // The record comes last: what has one is whole.
    let record = StemcellRecord { kind, tags: request.tags.clone() };
    records::write(&dir.join("stemcell.json"), &record, Durability::Synced)?;
    Ok(cid)
}

/// Forgets a stemcell. VMs that were made from it must be gone.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &StemcellCid) -> Result<(), HostError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if let Some(vm) = cloud.store.vms()?.into_iter().find(|vm| vm.stemcell == *cid) {
        let message = format!("stemcell `{cid}` is below VM `{}`", vm.cid);
        return Err(HostError::refused(CpiErrorKind::Other, message));
    }
    cloud.store.discard(&cloud.store.stemcell_dir(cid))?;
    lock.retire();
    Ok(())
}

fn kind_of(image: &Path) -> Result<StemcellKind, HostError> {
    let mut start = Vec::new();
    let file = File::open(image).map_err(HostError::os("open stemcell image", image))?;
    file.take(MARKER_BYTES_MAX)
        .read_to_end(&mut start)
        .map_err(HostError::os("read stemcell image", image))?;
    match start.as_slice() {
        [0x1f, 0x8b, ..] => Ok(StemcellKind::Tar),
        text if text.trim_ascii() == HOST_FORMAT.as_bytes() => Ok(StemcellKind::Host),
        _ => {
            let message =
                "the stemcell's image is neither a gzipped tar of a root file system nor a host marker";
            Err(HostError::refused(CpiErrorKind::NotSupported, message))
        }
    }
}

fn digest(request: &CreateStemcell) -> Result<String, HostError> {
    let image = &request.image;
    let mut hasher = Sha256::new();
    let mut file = File::open(image).map_err(HostError::os("open stemcell image", image))?;
    io::copy(&mut file, &mut hasher).map_err(HostError::os("read stemcell image", image))?;
    hasher.update(request.cloud_properties.to_string());
    Ok(hasher.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Unpacks the archive of a root file system.
pub(crate) fn unpack(image: &Path, rootfs: &Path) -> Result<(), HostError> {
    let file = File::open(image).map_err(HostError::os("open stemcell image", image))?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(BufReader::new(file)));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.unpack(rootfs).map_err(HostError::os("unpack stemcell image", image))
}
