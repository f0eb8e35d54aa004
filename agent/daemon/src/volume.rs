//! `dagent volume`: brings a disk into a container that already runs, and takes it out again.
//!
//! Runs in a container beside it, which has the disk as a volume, sees the other one's processes and may do what that one
//! may not. The mount is copied here and put down there: in between lies the step into the other's mount namespace, which
//! concerns a whole process and can only be taken before it has threads. Not here: who starts us, see `cpi/docker`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

/// The mount namespace of the container that we stand beside: its first process is ours, too.
const NAMESPACE: &str = "/proc/1/ns/mnt";

/// The directory of a volume that is used as the disk. Where a volume is not mounted there is none: nobody takes the place
/// itself for it.
const DATA: &str = "data";

/// How long those may take who still use a disk that is to go.
const IN_USE_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether they have gone.
const IN_USE_AGAIN: Duration = Duration::from_millis(50);

/// What to do with a disk.
#[derive(Debug, clap::Subcommand)]
pub enum Volume {
    /// Puts what is mounted at `volume` here down at `place` there.
    Show {
        /// Where the volume is here.
        volume: PathBuf,
        /// Where it is to be there.
        place: PathBuf,
    },
    /// Takes away what is mounted at `place` there.
    Hide {
        /// Where it is there.
        place: PathBuf,
    },
}

impl Volume {
    /// Does it; twice is once. The process must have one thread, and is in the other mount namespace afterwards.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Show { volume, place } => show(volume, place),
            Self::Hide { place } => hide(place),
        }
    }
}

fn show(volume: &Path, place: &Path) -> anyhow::Result<()> {
    let data = volume.join(DATA);
    fs::create_dir_all(&data).with_context(|| format!("create `{}`", data.display()))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, volume, flags).with_context(|| format!("copy mount `{}`", volume.display()))?;
    enter()?;
    if is_mounted(place)? {
        return Ok(());
    }
    fs::create_dir_all(place).with_context(|| format!("create `{}` there", place.display()))?;
    move_mount(&tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("mount at `{}` there", place.display()))
}

fn hide(place: &Path) -> anyhow::Result<()> {
    enter()?;
    let begun = Instant::now();
    while is_mounted(place)? {
        match unmount(place, UnmountFlags::NOFOLLOW) {
            // Lazily it would go at once, and be written to while the next VM has it.
            Err(rustix::io::Errno::BUSY) if begun.elapsed() < IN_USE_MAX => sleep(IN_USE_AGAIN),
            ended => ended.with_context(|| format!("unmount `{}` there", place.display()))?,
        }
    }
    match fs::remove_dir(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove `{}` there", place.display()))
        }
        _ => Ok(()),
    }
}

fn enter() -> anyhow::Result<()> {
    let namespace = File::open(NAMESPACE).context("open the mounts of the container beside us")?;
    setns(namespace, CloneFlags::CLONE_NEWNS).context("enter the mounts of the container beside us")
}

/// Returns whether something is mounted at a place whose path has nothing in it that mountinfo would escape.
fn is_mounted(place: &Path) -> anyhow::Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read what is mounted there")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| Path::new(at) == place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_mounted_only_if_it_is_one_itself() {
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}
