//! What can be wrong with a machine: its clock, its disk.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{FallocateFlags, fallocate};
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

/// Libraries with which each replica has a clock and a disk that can be told to go wrong while it runs.
pub struct Preload {
    libraries: String,
}

impl Preload {
    /// Builds them in `folder`.
    pub fn build(folder: &Path) -> Result<Self> {
        let clock = build(folder, "clock", include_str!("clock.c"))?;
        let disk = build(folder, "disk", include_str!("disk.c"))?;
        Ok(Self { libraries: format!("{clock}:{disk}") })
    }

    /// Returns the environment of whoever is to have the machine whose state is in `folder`.
    pub fn environment(&self, folder: &Path) -> Vec<(&'static str, String)> {
        let machine = Machine::of(folder);
        let file = |wrong| machine.file(wrong).to_string_lossy().into_owned();
        vec![
            ("LD_PRELOAD", self.libraries.clone()),
            ("CLOCK_OFFSET_FILE", file(Wrong::Clock)),
            ("FSYNC_SLOW_FILE", file(Wrong::SlowSync)),
            ("FSYNC_FAILS_WHILE", file(Wrong::FailingSync)),
        ]
    }
}

/// What of a machine can go wrong while a replica runs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Its clock is so many seconds ahead.
    Clock,
    /// Each sync takes so many milliseconds longer.
    SlowSync,
    /// Syncs fail, whatever the number.
    FailingSync,
}

/// The machine of one replica that was started with a [`Preload`].
pub struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// Returns the machine whose state is in a folder.
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// From here on it is wrong, by so much.
    pub fn harm(&self, wrong: Wrong, by: i64) -> Result<()> {
        let _ = fs::remove_file(self.reached(wrong));
        // Put into place whole: whoever looks meanwhile sees nothing or all of it.
        let (file, draft) = (self.file(wrong), self.file(wrong).with_extension("draft"));
        fs::write(&draft, by.to_string())?;
        Ok(fs::rename(draft, file)?)
    }

    /// Returns whether the replica has felt it.
    pub fn was_felt(&self, wrong: Wrong) -> bool {
        self.reached(wrong).exists()
    }

    /// From here on it is right again.
    pub fn heal(&self, wrong: Wrong) -> Result<()> {
        Ok(fs::remove_file(self.file(wrong))?)
    }

    fn file(&self, wrong: Wrong) -> PathBuf {
        self.folder.join(match wrong {
            Wrong::Clock => "clock-ahead",
            Wrong::SlowSync => "sync-slow",
            Wrong::FailingSync => "sync-fails",
        })
    }

    fn reached(&self, wrong: Wrong) -> PathBuf {
        self.file(wrong).with_extension("reached")
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

    /// Returns whether disks of one's own can be mounted here.
    pub fn is_possible() -> bool {
        let Ok(folder) = tempfile::tempdir() else { return false };
        Self::mount(folder.path(), 1).is_ok_and(|disk| disk.is_some())
    }

    /// Fills it to the last byte, and returns the file that does.
    pub fn fill(&self) -> Result<PathBuf> {
        give_back_reserves(&self.place)?;
        let filler = self.place.join("filler");
        let mut file = fs::File::create(&filler)?;
        // Smaller and smaller pieces, until not even a byte has room.
        for piece in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; piece]).is_ok() {}
        }
        Ok(filler)
    }
}

/// Gives back what databases have reserved behind the ends of their logs: with that they could write on for long after
/// the disk is full. What they write meanwhile stays: it comes long before where this begins.
fn give_back_reserves(folder: &Path) -> Result<()> {
    /// Kept behind the end: far more than is written while this runs.
    const KEPT: i64 = 1 << 20;
    /// Given back behind that: more than any reserve.
    const RESERVE_MAX: i64 = 1 << 30;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            give_back_reserves(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "log") {
            // It may have been deleted since we looked: its time was over.
            let Ok(file) = fs::OpenOptions::new().write(true).open(&path) else { continue };
            let from = i64::try_from(file.metadata()?.len())? + KEPT;
            let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&file, how, from, RESERVE_MAX).with_context(|| format!("punch {}", path.display()))?;
        }
    }
    Ok(())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whatever still has it open keeps it until it ends.
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}
