//! Stemcells: images. One holds what the stemcell brings; another, made of it for each agent, holds the agent too, and is
//! what VMs and errands run on. So creating a VM copies no programs, and nobody in a VM can change what errands run.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bollard::Docker;
use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters as query;
use cpi_api::{CpiErrorKind, CreateStemcell};
use cpi_host::Scope;
use futures::TryStreamExt as _;
use model::StemcellCid;
use sha2::{Digest as _, Sha256};
use tokio_util::io::ReaderStream;

use crate::cloud::Cloud;
use crate::error::DockerError;
use crate::names::{Kind, STEMCELL};
use crate::settings::{AGENT, File as Packed, pack};

/// Formats that VMs can be made from: archives of a root file system.
pub(crate) const FORMATS: [&str; 3] = ["directorate-tar", "warden-tar", "general-tar"];

/// Where a tar archive says that it is one, and how.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

/// Registers an image. The cid follows from the content and the properties, name and version among them: a repeat
/// registers nothing new.
pub(crate) fn create(
    cloud: &Cloud,
    scope: &Scope,
    request: &CreateStemcell,
) -> Result<StemcellCid, DockerError> {
    check(&request.image)?;
    let digest = digest(&request.image, &request.cloud_properties.to_string())?;
    let cid = StemcellCid::new(format!("{}:{digest}", cloud.names.stemcells()));
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if !cloud.daemon.has_image(cid.as_str())? {
        import(cloud, &request.image, &cid, &digest)?;
    }
    with_agent(cloud, &cid)?;
    Ok(cid)
}

/// Forgets a stemcell. VMs that were made from it must be gone.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &StemcellCid) -> Result<(), DockerError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let of_it = cloud.names.filter(Kind::Vm, Some((STEMCELL, cid.as_str())));
    let options = query::ListContainersOptionsBuilder::new().all(true).filters(&of_it).build();
    let list = async |docker: Docker| docker.list_containers(Some(options)).await;
    if let Some(vm) = cloud.daemon.ask("list the VMs of", cid.as_str(), list)?.into_iter().next() {
        let name = vm.names.and_then(|names| names.into_iter().next()).unwrap_or_default();
        let message = format!("stemcell `{cid}` is below VM `{}`", name.trim_start_matches('/'));
        return Err(DockerError::refused(CpiErrorKind::Other, message));
    }
    let of_it = cloud.names.filter(Kind::Stemcell, Some((STEMCELL, cid.as_str())));
    let options = query::ListImagesOptionsBuilder::new().filters(&of_it).build();
    let list = async |docker: Docker| docker.list_images(Some(options)).await;
    for image in cloud.daemon.ask("list the images of", cid.as_str(), list)? {
        for tag in image.repo_tags {
            cloud.daemon.remove_image(&tag)?;
        }
    }
    cloud.daemon.remove_image(cid.as_str())?;
    lock.retire();
    Ok(())
}

/// Returns the image that VMs of a stemcell run on, making it if this agent has not been in one yet.
pub(crate) fn image(cloud: &Cloud, scope: &Scope, cid: &StemcellCid) -> Result<String, DockerError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if !cloud.daemon.has_image(cid.as_str())? {
        let message = format!("stemcell `{cid}` does not exist");
        return Err(DockerError::refused(CpiErrorKind::VmCreationFailed, message));
    }
    with_agent(cloud, cid)
}

fn import(cloud: &Cloud, image: &Path, cid: &StemcellCid, tag: &str) -> Result<(), DockerError> {
    let repository = cloud.names.stemcells();
    let options = query::CreateImageOptionsBuilder::new().from_src("-").repo(&repository).tag(tag).build();
    let import = async |docker: Docker| {
        let file = tokio::fs::File::open(image).await?;
        let content = bollard::body_try_stream(ReaderStream::new(file));
        docker.create_image(Some(options), Some(content), None).try_for_each(async |_| Ok(())).await
    };
    cloud.daemon.ask("import stemcell", cid.as_str(), import)
}

/// Makes the image with our agent in it, if there is none. The caller holds the stemcell's lock.
fn with_agent(cloud: &Cloud, cid: &StemcellCid) -> Result<String, DockerError> {
    let program = &cloud.options.dagent;
    let tag = format!("{}-{}", tag_of(cid), cloud.agent.digest(program)?);
    let image = format!("{}:{tag}", cloud.names.stemcells());
    if cloud.daemon.has_image(&image)? {
        return Ok(image);
    }
    let mut labels = cloud.names.labels(Kind::Stemcell);
    labels.insert(STEMCELL.to_owned(), cid.to_string());
    let content = fs::read(program).map_err(DockerError::os("read", program))?;
    let archive = pack(&[Packed { path: AGENT, mode: 0o755, content: &content }], None)?;
    let name = cloud.names.errand(&tag);
    // One that died in here has left it.
    cloud.daemon.remove(&name)?;
    let body = ContainerCreateBody {
        image: Some(cid.to_string()),
        cmd: Some(vec![AGENT.to_owned()]),
        labels: Some(cloud.names.labels(Kind::Errand)),
        ..Default::default()
    };
    cloud.daemon.create(&name, body)?;
    let outcome = cloud.daemon.put(&name, archive).and_then(|()| {
        let options = query::CommitContainerOptionsBuilder::new()
            .container(&name)
            .repo(&cloud.names.stemcells())
            .tag(&tag)
            .build();
        let config = ContainerConfig { labels: Some(labels), ..Default::default() };
        let commit = async |docker: Docker| docker.commit_container(options, config).await;
        cloud.daemon.ask("commit image", &image, commit)
    });
    cloud.daemon.remove(&name)?;
    outcome.map(|_| image)
}

fn tag_of(cid: &StemcellCid) -> &str {
    cid.as_str().rsplit(':').next().unwrap_or_default()
}

fn check(image: &Path) -> Result<(), DockerError> {
    let (at, magic) = TAR_MAGIC;
    let mut start = Vec::new();
    let file = File::open(image).map_err(DockerError::os("open stemcell image", image))?;
    file.take((at + magic.len()) as u64)
        .read_to_end(&mut start)
        .map_err(DockerError::os("read stemcell image", image))?;
    if start.starts_with(GZIP_MAGIC) || start.get(at..) == Some(magic) {
        return Ok(());
    }
    let message = "a VM at a Docker daemon has a root of its own: the stemcell's image must be the archive of one, tar or \
                   gzipped tar";
    Err(DockerError::refused(CpiErrorKind::NotSupported, message))
}

/// The agent's program, by its content, which is read again only when it is another file.
#[derive(Default)]
pub(crate) struct Agent(Mutex<Option<(Stamp, String)>>);

/// Size, and time of the last change.
type Stamp = (u64, Option<SystemTime>);

impl Agent {
    fn digest(&self, program: &Path) -> Result<String, DockerError> {
        let metadata = fs::metadata(program).map_err(DockerError::os("look at", program))?;
        let stamp: Stamp = (metadata.len(), metadata.modified().ok());
        if let Some((known, digest)) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner)
            && *known == stamp
        {
            return Ok(digest.clone());
        }
        let digest = digest(program, "")?[..12].to_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, digest.clone()));
        Ok(digest)
    }
}

fn digest(file: &Path, more: &str) -> Result<String, DockerError> {
    let mut hasher = Sha256::new();
    let mut content = File::open(file).map_err(DockerError::os("open", file))?;
    io::copy(&mut content, &mut hasher).map_err(DockerError::os("read", file))?;
    hasher.update(more);
    Ok(hasher.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_archive_of_a_root_is_a_stemcell() {
        let dir = tempfile::tempdir().unwrap();
        let written = |content: &[u8]| {
            let path = dir.path().join("image");
            fs::write(&path, content).unwrap();
            check(&path)
        };
        let plain = tar::Builder::new(Vec::new());
        assert!(written(&plain.into_inner().unwrap()).is_err(), "an empty archive is no root");
        written(&pack(&[Packed { path: "/a", mode: 0o644, content: b"" }], None).unwrap()).unwrap();
        written(&[0x1f, 0x8b, 8]).unwrap();
        let error = written(b"directorate-host\n").unwrap_err().to_string();
        assert!(error.contains("a root of its own"), "{error}");
    }
}
