//! A Debian with our agent in it: the root file system of containers, and of machines that boot a kernel.
//!
//! [`root`] makes the root file system once for everybody, with a kernel and its modules below `/boot` and `/lib/modules`.
//! As it is, it has no disk: whoever boots it hands the kernel over, and in a container that is not booted the agent's unit
//! means nothing; there the host starts its own agent. For other clouds it becomes a disk that boots by itself
//! (`disk_image`), with what [`DebianFormat`] says is different there.
//!
//! The same mirror and the same agent give the same bytes.

mod agent;
mod format;
mod repack;
mod root;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::archive::{Contents, add, pack};
use crate::disk_image::{self, OwnFiles, RootArchive, qcow2};
use crate::error::StemcellError;
pub use format::DebianFormat;
use format::DiskFormat;
pub use repack::{RepackedDebian, repack_debian};
pub(crate) use root::digest_of_parts;

/// What goes into a Debian stemcell.
#[derive(Clone, Debug)]
pub struct DebianStemcell {
    /// What its image is.
    pub format: DebianFormat,
    /// Our agent's program, made for a Debian of this release or an older one.
    pub dagent: PathBuf,
    /// Packages for jobs and for compiling.
    pub tools: Vec<String>,
}

impl DebianStemcell {
    /// Returns the archive of a root file system, with the usual tools.
    pub fn new(dagent: impl Into<PathBuf>) -> Self {
        let tools = TOOLS.map(str::to_owned).to_vec();
        Self { format: DebianFormat::Tar, dagent: dagent.into(), tools }
    }
}

/// What jobs and packaging scripts expect.
const TOOLS: [&str; 4] = ["build-essential", "curl", "rsync", "psmisc"];

/// How large a root disk is said to be where none is in the image, in MiB.
const DISK_MIB: u64 = 8192;

/// Writes a stemcell archive to `out`, made by `mmdebstrap` from the mirror that apt is set to. Takes some minutes.
pub fn build_debian(out: &Path, stemcell: &DebianStemcell) -> Result<(), StemcellError> {
    let scratch = tempfile::tempdir().map_err(StemcellError::os("make a scratch directory for", out))?;
    let root = scratch.path().join("root.tar");
    let packages = root::make(&root, stemcell, scratch.path())?;
    let open = |path: &Path| File::open(path).map_err(StemcellError::os("open", path));
    match stemcell.format.disk() {
        None => {
            let image = scratch.path().join("image.tgz");
            compress(&root, &image).map_err(StemcellError::os("compress", &root))?;
            write(out, stemcell.format, DISK_MIB, &packages, &image)
        }
        Some(disk) => {
            let own = OwnFiles { agent_json: stemcell.format.agent_json(), agent: None };
            let disk = Disk { format: stemcell.format, written: disk, own };
            let archive = RootArchive { of: &root, content: BufReader::new(open(&root)?) };
            disk.write(out, &packages, archive, scratch.path())
        }
    }
}

/// A stemcell whose image is a disk.
struct Disk<'a> {
    format: DebianFormat,
    written: DiskFormat,
    own: OwnFiles<'a>,
}

impl Disk<'_> {
    /// Writes an archive with this root file system; `scratch` is a folder to work in.
    fn write(
        &self,
        out: &Path,
        packages: &[u8],
        root: RootArchive<'_, impl Read>,
        scratch: &Path,
    ) -> Result<(), StemcellError> {
        let [raw, other, image] = ["disk.raw", "disk.other", "disk.tgz"].map(|name| scratch.join(name));
        let disk_mib = disk_image::write(&raw, root, &self.own)?;
        let content = match self.written {
            DiskFormat::Raw => &raw,
            DiskFormat::Qcow2 => {
                qcow2::write(&other, &raw).map_err(StemcellError::os("write", &other))?;
                &other
            }
        };
        wrap(content, &image).map_err(StemcellError::os("compress", content))?;
        write(out, self.format, disk_mib, packages, &image)
    }
}

fn write(
    out: &Path,
    format: DebianFormat,
    disk_mib: u64,
    packages: &[u8],
    image: &Path,
) -> Result<(), StemcellError> {
    let (names, properties) = (format.names(), format.properties(disk_mib));
    let manifest = format.manifest(&names, &properties);
    let contents = Contents { manifest, packages, image };
    pack(out, &contents, Compression::none()).map_err(StemcellError::os("write stemcell", out))
}

/// What a disk is called in the archive that BOSH's CPIs unpack.
const DISK_NAME: &str = "root.img";

fn wrap(disk: &Path, to: &Path) -> io::Result<()> {
    let mut archive =
        tar::Builder::new(GzEncoder::new(BufWriter::new(File::create(to)?), Compression::fast()));
    let file = File::open(disk)?;
    add(&mut archive, DISK_NAME, 0o644, file.metadata()?.len(), BufReader::new(file))?;
    let out = archive.into_inner()?.finish()?;
    out.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut out = GzEncoder::new(BufWriter::new(File::create(to)?), Compression::fast());
    io::copy(&mut BufReader::new(File::open(from)?), &mut out)?;
    out.finish()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
}
