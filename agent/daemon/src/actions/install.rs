//! Installs jobs and packages below `data`, whole or not at all, and links to them.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::BlobDigest;
use walkdir::WalkDir;

use super::upload_blob;
use crate::archive::{self, Scratch};
use crate::digest;
use crate::error::{ActionError, blocking};
use crate::layout::{BASE_DIR, Layout};
use crate::platform::Platform;
use crate::real::RealMachine;
use crate::spec::{ApplySpec, Package, Template};

/// Files larger than this are not looked through for paths: rendered templates are small.
const REWRITTEN_BYTES_MAX: u64 = 16 << 20;

/// A blob on this machine. One that was downloaded goes when it is dropped; an uploaded one when it has been installed.
struct LocalBlob {
    path: PathBuf,
    _downloaded: Option<Scratch>,
}

/// Gets a blob: from what was uploaded to this VM, else from a director. Its digest is verified either way.
async fn fetch(machine: &RealMachine, blob_id: &str, digest: &str) -> Result<LocalBlob, ActionError> {
    let uploaded = upload_blob::path(&machine.layout.sensitive_blobs(), blob_id).filter(|path| path.exists());
    let blob = match uploaded {
        Some(path) => LocalBlob { path, _downloaded: None },
        None => {
            let scratch = Scratch::new(&machine.layout.tmp())?;
            let path = scratch.path().join("blob");
            machine.blobs.fetch(&BlobDigest::from(blob_id), &path).await?;
            LocalBlob { path, _downloaded: Some(scratch) }
        }
    };
    let (path, wanted) = (blob.path.clone(), digest.to_owned());
    let matches =
        blocking(move || digest::file_matches(&path, &wanted).map_err(ActionError::file("verify", &path)))
            .await?;
    if !matches {
        return Err(ActionError::failed(format!("blob {blob_id} does not have digest `{digest}`")));
    }
    Ok(blob)
}

/// Returns where a job's files are.
fn job_directory(layout: &Layout, spec: &ApplySpec, job: &Template) -> PathBuf {
    layout.data_jobs().join(&job.name).join(spec.job_version_hash(job))
}

/// Returns where a package's files are.
fn package_directory(layout: &Layout, package: &Package) -> PathBuf {
    layout.data_packages().join(&package.name).join(package.version_hash())
}

/// Installs the jobs of a spec that are not installed yet.
pub(super) async fn jobs(machine: &RealMachine, spec: &ApplySpec) -> Result<(), ActionError> {
    let layout = machine.layout.clone();
    check_names(spec)?;
    let archive_spec = &spec.rendered_templates_archive;
    if spec.jobs().iter().any(|job| !job_directory(&layout, spec, job).is_dir()) {
        let blob = fetch(machine, &archive_spec.blobstore_id, &archive_spec.sha1).await?;
        let installing = Installing {
            layout: layout.clone(),
            platform: machine.platform.clone(),
            rewrite_to: machine.settings.path_rewrite.then(|| layout.base().to_owned()),
        };
        let (path, spec) = (blob.path.clone(), spec.clone());
        blocking(move || installing.jobs(&path, &spec)).await?;
    }
    // Installed, so its secrets need not lie about any longer.
    if let Some(path) = upload_blob::path(&layout.sensitive_blobs(), &archive_spec.blobstore_id)
        && path.exists()
    {
        fs::remove_file(&path).map_err(ActionError::file("remove", &path))?;
    }
    Ok(())
}

/// Names become paths: they must stay below their directories.
fn check_names(spec: &ApplySpec) -> Result<(), ActionError> {
    let jobs = spec.jobs().iter().map(|job| (&job.name, &job.version));
    let packages = spec.packages.values().map(|package| (&package.name, &package.version));
    for (name, version) in jobs.chain(packages) {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(ActionError::failed(format!("`{name}` is no name for a job or package")));
        }
        if version.is_empty() {
            return Err(ActionError::failed(format!("`{name}` has no version")));
        }
    }
    Ok(())
}

struct Installing {
    layout: Layout,
    platform: Arc<dyn Platform>,
    rewrite_to: Option<PathBuf>,
}

impl Installing {
    fn jobs(&self, archive: &Path, spec: &ApplySpec) -> Result<(), ActionError> {
        let scratch = Scratch::new(&self.layout.tmp())?;
        archive::unpack(archive, scratch.path())?;
        for job in spec.jobs() {
            let unpacked = scratch.path().join(&job.name);
            if !unpacked.is_dir() {
                return Err(ActionError::failed(format!(
                    "job `{}` is not among the rendered templates",
                    job.name
                )));
            }
            self.protect(&unpacked)?;
            archive::put_in_place(&unpacked, &job_directory(&self.layout, spec, job))?;
        }
        Ok(())
    }

    /// Makes a job's files readable for jobs, writable for nobody else, and its programs executable.
    fn protect(&self, job: &Path) -> Result<(), ActionError> {
        let packages = job.join("packages");
        fs::create_dir_all(&packages).map_err(ActionError::file("create", &packages))?;
        let programs = job.join("bin");
        for entry in WalkDir::new(job) {
            let entry = entry.map_err(|error| ActionError::file("list", job)(error.into()))?;
            let path = entry.path();
            if entry.file_type().is_symlink() {
                continue;
            }
            let is_file = entry.file_type().is_file();
            if is_file && let Some(base) = &self.rewrite_to {
                rewrite(path, base)?;
            }
            let mode = if is_file && !path.starts_with(&programs) { 0o640 } else { 0o750 };
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(path, permissions).map_err(ActionError::file("protect", path))?;
            self.platform.give(path).map_err(ActionError::file("give away", path))?;
        }
        Ok(())
    }
}

/// Replaces `/var/vcap` by the base directory in a text file.
pub(super) fn rewrite(path: &Path, base: &Path) -> Result<(), ActionError> {
    let file = fs::File::open(path).map_err(ActionError::file("open", path))?;
    let mut content = Vec::new();
    file.take(REWRITTEN_BYTES_MAX + 1).read_to_end(&mut content).map_err(ActionError::file("read", path))?;
    if content.len() as u64 > REWRITTEN_BYTES_MAX {
        return Ok(());
    }
    // What is not text is left alone.
    let Ok(text) = String::from_utf8(content) else { return Ok(()) };
    if !text.contains(BASE_DIR) {
        return Ok(());
    }
    let rewritten = text.replace(BASE_DIR, &base.display().to_string());
    fs::write(path, rewritten).map_err(ActionError::file("rewrite", path))
}

/// Unpacks a blob into an existing directory.
pub(super) async fn unpack_blob(
    machine: &RealMachine,
    blob_id: &str,
    digest: &str,
    to: &Path,
) -> Result<(), ActionError> {
    let blob = fetch(machine, blob_id, digest).await?;
    let (path, to) = (blob.path.clone(), to.to_owned());
    blocking(move || archive::unpack(&path, &to)).await
}

/// Installs packages that are not installed yet.
pub(super) async fn packages<'a>(
    machine: &RealMachine,
    packages: impl Iterator<Item = &'a Package>,
) -> Result<(), ActionError> {
    for package in packages {
        let place = package_directory(&machine.layout, package);
        if place.is_dir() {
            continue;
        }
        let blob = fetch(machine, &package.blobstore_id, &package.sha1).await?;
        let (layout, path) = (machine.layout.clone(), blob.path.clone());
        blocking(move || {
            let scratch = Scratch::new(&layout.tmp())?;
            archive::unpack(&path, scratch.path())?;
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(scratch.path(), open)
                .map_err(ActionError::file("open up", scratch.path()))?;
            archive::put_in_place(scratch.path(), &place)
        })
        .await?;
    }
    Ok(())
}

/// Links exactly the jobs of a spec, with their runtime directories and all its packages, and removes every other job.
pub(super) fn link_jobs(machine: &RealMachine, spec: &ApplySpec) -> Result<(), ActionError> {
    let layout = &machine.layout;
    let mut keep = Vec::new();
    for job in spec.jobs() {
        let directory = job_directory(layout, spec, job);
        let links = directory.join("packages");
        for package in spec.packages.values() {
            archive::link(&package_directory(layout, package), &links.join(&package.name))?;
        }
        prune_links(&links, |name| spec.packages.values().any(|package| package.name == name))?;
        for directory in [layout.log(), layout.run(), layout.data()].map(|parent| parent.join(&job.name)) {
            fs::create_dir_all(&directory).map_err(ActionError::file("create", &directory))?;
            let shared = fs::Permissions::from_mode(0o770);
            fs::set_permissions(&directory, shared).map_err(ActionError::file("open up", &directory))?;
            let given = machine.platform.give(&directory);
            given.map_err(ActionError::file("give away", &directory))?;
        }
        archive::link(&directory, &layout.job(&job.name))?;
        keep.push(directory);
    }
    prune_links(&layout.jobs(), |name| spec.jobs().iter().any(|job| job.name == name))?;
    prune_versions(&layout.data_jobs(), &keep)
}

/// Links exactly these packages and removes every other one.
pub(super) fn link_packages<'a>(
    layout: &Layout,
    packages: impl Iterator<Item = &'a Package>,
) -> Result<(), ActionError> {
    let (mut keep, mut names) = (Vec::new(), Vec::new());
    for package in packages {
        let directory = package_directory(layout, package);
        archive::link(&directory, &layout.packages().join(&package.name))?;
        keep.push(directory);
        names.push(package.name.clone());
    }
    prune_links(&layout.packages(), |name| names.iter().any(|kept| kept == name))?;
    prune_versions(&layout.data_packages(), &keep)
}

fn prune_links(directory: &Path, keep: impl Fn(&str) -> bool) -> Result<(), ActionError> {
    for entry in entries(directory)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_symlink() && !keep(&name) {
            fs::remove_file(&entry).map_err(ActionError::file("unlink", &entry))?;
        }
    }
    Ok(())
}

/// Removes what is installed as `<directory>/<name>/<version>`, except what is to be kept.
fn prune_versions(directory: &Path, keep: &[PathBuf]) -> Result<(), ActionError> {
    for named in entries(directory)? {
        for version in entries(&named)? {
            if !keep.contains(&version) {
                fs::remove_dir_all(&version).map_err(ActionError::file("remove", &version))?;
            }
        }
        // Only an empty one goes.
        let _ = fs::remove_dir(&named);
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, ActionError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(ActionError::file("list", directory)(error)),
    }
}
