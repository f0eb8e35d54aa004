//! One Debian, made once, for several clouds: its root file system in a stemcell of another format.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::{DebianFormat, Disk, root};
use crate::TAR_FORMAT;
use crate::disk_image::{OwnFiles, RootArchive};
use crate::error::StemcellError;
use crate::manifest;

/// A Debian stemcell for another cloud, with the root file system of one that is there.
#[derive(Clone, Debug)]
pub struct RepackedDebian {
    /// The other stemcell, of the format `tar`.
    pub from: PathBuf,
    /// What the image is to be: a disk.
    pub format: DebianFormat,
    /// Another agent's program than the one that is in there, if wanted.
    pub dagent: Option<PathBuf>,
}

/// Writes a stemcell archive to `out`. Takes some seconds.
pub fn repack_debian(out: &Path, stemcell: &RepackedDebian) -> Result<(), StemcellError> {
    let RepackedDebian { from, format, dagent } = stemcell;
    let Some(disk) = format.disk() else {
        let disks = DebianFormat::ALL.into_iter().filter(|format| format.disk().is_some());
        let disks: Vec<String> = disks.map(|format| format.to_string()).collect();
        let message = format!(
            "a stemcell is packed anew as a disk, and `{format}` is none: name {}",
            disks.join(" or ")
        );
        return Err(StemcellError::refused(message));
    };
    let scratch = tempfile::tempdir().map_err(StemcellError::os("make a scratch directory for", out))?;
    let parts = unpack(from, scratch.path())?;
    let packages =
        fs::read(&parts.packages).map_err(StemcellError::os("find `packages.txt` in stemcell", from))?;
    let image = File::open(&parts.image).map_err(StemcellError::os("find an image in stemcell", from))?;
    let own = OwnFiles {
        agent_json: format.agent_json(),
        agent: dagent.as_deref().map(|program| (root::AGENT, program)),
    };
    let root = RootArchive { of: from, content: GzDecoder::new(BufReader::new(image)) };
    let disk = Disk { format: *format, written: disk, own };
    disk.write(out, &packages, root, scratch.path())
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
