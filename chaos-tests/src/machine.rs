//! What can be wrong with a machine: its clock, its disk.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A library that makes the clock of whoever is started with it wrong.
pub struct WrongClock {
    library: String,
    seconds: String,
}

impl WrongClock {
    /// Builds it in `folder`, for a clock that is so many seconds ahead.
    pub fn build(folder: &Path, seconds: i64) -> Result<Self> {
        let library = build(folder, "clock", include_str!("clock.c"))?;
        Ok(Self { library, seconds: seconds.to_string() })
    }

    /// Returns the environment in which the clock is wrong.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("CLOCK_OFFSET_SECONDS", &self.seconds)]
    }
}

/// A library with which whoever is started has a disk that can be told to sync no more.
pub struct FailingSync {
    library: String,
    mark: String,
}

impl FailingSync {
    /// Builds it in `folder`. The disk is sound for now.
    pub fn build(folder: &Path) -> Result<Self> {
        let library = build(folder, "disk", include_str!("disk.c"))?;
        let mark = folder.join("fsync-fails").to_str().context("UTF-8")?.to_owned();
        Ok(Self { library, mark })
    }

    /// Returns the environment in which the disk is this one.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("FSYNC_FAILS_WHILE", &self.mark)]
    }

    /// From here on nothing is synced any more.
    pub fn fail(&self) -> Result<()> {
        Ok(fs::write(&self.mark, "")?)
    }

    /// From here on the disk is sound again.
    pub fn heal(&self) -> Result<()> {
        Ok(fs::remove_file(&self.mark)?)
    }
}

/// Builds a library out of a C source; returns its path.
fn build(folder: &Path, name: &str, text: &str) -> Result<String> {
    let (source, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    fs::write(&source, text)?;
    let mut compiler = Command::new("gcc");
    let built = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
    let built = built.context("run gcc")?;
    ensure!(built.status.success(), "gcc: {}", String::from_utf8_lossy(&built.stderr));
    Ok(library.to_str().context("UTF-8")?.to_owned())
}

/// A disk of its own, in memory; gone with this value.
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of so many MiB at `place`; none where that is not allowed.
    pub fn mount(place: &Path, mebibytes: u32) -> Result<Option<Self>> {
        fs::create_dir_all(place)?;
        let size = format!("size={mebibytes}m");
        match mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())) {
            Ok(()) => Ok(Some(Self { place: place.to_owned() })),
            Err(error) => {
                eprintln!("skipped: a disk of its own can't be mounted here ({error}); root may");
                Ok(None)
            }
        }
    }

    /// Fills it to the last byte, and returns the file that does.
    pub fn fill(&self) -> Result<PathBuf> {
        let filler = self.place.join("filler");
        let mut file = fs::File::create(&filler)?;
        // Smaller and smaller pieces, until not even a byte has room.
        for piece in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; piece]).is_ok() {}
        }
        Ok(filler)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whatever still has it open keeps it until it ends.
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}
