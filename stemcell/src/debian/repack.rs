//! One Debian, made once, for several clouds and agents: its root file system in another stemcell.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::{DISK_MIB, DebianFormat, Disk, DiskFormat, agent, root, write};
use crate::TAR_FORMAT;
use crate::disk_image::{OwnFiles, RootArchive};
use crate::error::StemcellError;
use crate::manifest;

/// A Debian stemcell with the root file system of one that is there: for another cloud, or with another agent.
#[derive(Clone, Debug)]
pub struct RepackedDebian {
    /// The other stemcell, of the format `tar`.
    pub from: PathBuf,
    /// What the image is to be.
    pub format: DebianFormat,
    /// Another agent's program than the one that is in there, if wanted.
    pub dagent: Option<PathBuf>,
}

/// What is different in the other stemcell.
enum Change<'a> {
    /// The image is a disk; with another agent, if there is one.
    Disk(DiskFormat, Option<&'a Path>),
    Agent(&'a Path),
}

impl RepackedDebian {
    fn change(&self) -> Result<Change<'_>, StemcellError> {
        let agent = self.dagent.as_deref();
        if let Some(disk) = self.format.disk() {
            return Ok(Change::Disk(disk, agent));
        }
        agent.map(Change::Agent).ok_or_else(|| {
            let disks = DebianFormat::ALL.into_iter().filter(|format| format.disk().is_some());
            let disks: Vec<String> = disks.map(|format| format.to_string()).collect();
            StemcellError::refused(format!(
                "nothing would be different, if the format is `{}` and the agent the same: name another agent, or {} as the \
                 format",
                self.format,
                disks.join(" or ")
            ))
        })
    }
}

/// Writes a stemcell archive to `out`. Takes some seconds.
pub fn repack_debian(out: &Path, stemcell: &RepackedDebian) -> Result<(), StemcellError> {
    let (change, from, format) = (stemcell.change()?, &stemcell.from, stemcell.format);
    let scratch = tempfile::tempdir().map_err(StemcellError::os("make a scratch directory for", out))?;
    let scratch = scratch.path();
    let parts = unpack(from, scratch)?;
    let packages =
        fs::read(&parts.packages).map_err(StemcellError::os("find `packages.txt` in stemcell", from))?;
    let image = File::open(&parts.image).map_err(StemcellError::os("find an image in stemcell", from))?;
    let root = RootArchive { of: from, content: GzDecoder::new(BufReader::new(image)) };
    match change {
        Change::Disk(written, dagent) => {
            let own = OwnFiles {
                agent_json: format.agent_json(),
                agent: dagent.map(|program| (root::AGENT, program)),
            };
            Disk { format, written, own }.write(out, &packages, root, scratch)
        }
        Change::Agent(dagent) => {
            let image = scratch.join("image.tgz");
            agent::exchange(root, dagent, &image)?;
            write(out, format, DISK_MIB, &packages, &image)
        }
    }
}

/// Where the parts of a stemcell are that matter here, if it has them.
struct Parts {
    image: PathBuf,
    packages: PathBuf,
}

/// Unpacks a stemcell whose image is the archive of a root file system, and no other.
fn unpack(from: &Path, to: &Path) -> Result<Parts, StemcellError> {
    let stemcell = File::open(from).map_err(StemcellError::os("open stemcell", from))?;
    let [image, packages, manifest] = ["image", "packages.txt", "stemcell.MF"].map(|name| to.join(name));
    let unpack = || -> io::Result<()> {
        for entry in tar::Archive::new(GzDecoder::new(BufReader::new(stemcell))).entries()? {
            let mut entry = entry?;
            let name = entry.path()?.file_name().map(OsStr::to_owned);
            let mut parts = [&image, &packages, &manifest].into_iter();
            if let Some(to) = parts.find(|path| path.file_name() == name.as_deref()) {
                io::copy(&mut entry, &mut File::create(to)?)?;
            }
        }
        Ok(())
    };
    unpack().map_err(StemcellError::os("unpack stemcell", from))?;
    let refuse = |why: String| {
        let format = DebianFormat::Tar;
        StemcellError::refused(format!("`{}` is no stemcell of the format `{format}`: {why}", from.display()))
    };
    let manifest = fs::read_to_string(manifest).map_err(|_| refuse("it has no `stemcell.MF`".into()))?;
    let formats = manifest::formats(&manifest);
    match formats.contains(&TAR_FORMAT) {
        true => Ok(Parts { image, packages }),
        false => {
            Err(refuse(format!("its `stemcell.MF` lists [{}] and not `{TAR_FORMAT}`", formats.join(", "))))
        }
    }
}
