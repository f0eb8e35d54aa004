//! Errands: short deeds that only root of a user namespace can do, for a cloud without root on the host.
//!
//! Each is a process of its own, since becoming root of a namespace concerns a whole process. What is done with files needs the
//! user's ids and nothing else, so a new namespace does; what is done in a VM needs the VM's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cpi_api::CpiErrorKind;
use cpi_host::HostError;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use serde::{Deserialize, Serialize};

use super::{Entrance, HelperError, realm, say};
use crate::{reach, snapshot, stemcell};

/// How long those may take who still use a disk that is to go.
const IN_USE_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether they have gone.
const IN_USE_AGAIN: Duration = Duration::from_millis(50);

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Errand {
    /// Unpack a stemcell's image.
    Unpack { image: PathBuf, to: PathBuf },
    /// Remove a directory and all that is in it.
    Remove { dir: PathBuf },
    /// Copy a directory.
    Copy { from: PathBuf, to: PathBuf },
    /// Mount a directory of the host in a VM. Twice is once.
    Show { mounts: Entrance, dir: PathBuf, place: PathBuf },
    /// Unmount it. Twice is once.
    Hide { mounts: Entrance, place: PathBuf },
    /// Carry standard input and output to a port of a VM.
    Reach { network: Entrance, address: SocketAddr },
}

impl Errand {
    /// Has a helper do it, and waits for its end. `helper` is the program with its first arguments.
    pub fn run(&self, helper: &[OsString]) -> Result<(), HostError> {
        let output = self.command(helper)?.stdin(Stdio::null()).output();
        let output = output.map_err(HostError::os("start helper", "errand"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.trim().trim_start_matches("failed: ");
        let kind =
            if said.contains("No space left") { CpiErrorKind::NoDiskSpace } else { CpiErrorKind::Other };
        let message =
            if said.is_empty() { format!("an errand ended with {}", output.status) } else { said.into() };
        Err(HostError::refused(kind, message))
    }

    /// Returns how to start a helper that does it.
    pub fn command(&self, helper: &[OsString]) -> Result<Command, HostError> {
        let [program, first_args @ ..] = helper else {
            return Err(HostError::refused(CpiErrorKind::Other, "no helper program is configured"));
        };
        let unwritable = |source| HostError::Damaged { path: "errand".into(), source };
        let deed = serde_json::to_string(self).map_err(unwritable)?;
        let mut command = Command::new(program);
        command.args(first_args).arg("errand").arg(deed);
        Ok(command)
    }
}

/// Does an errand. `deed` is its JSON.
pub(super) fn run(deed: &Path) -> Result<(), HelperError> {
    // Whoever comes after one that was killed does it again, and must not meet us.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(HostError::os("follow the starter of", "errand"))?;
    let deed = serde_json::from_slice(deed.as_os_str().as_encoded_bytes());
    match deed.map_err(|_| HelperError::NoSpec)? {
        Errand::Unpack { image, to } => realm::found().and_then(|()| stemcell::unpack(&image, &to))?,
        Errand::Remove { dir } => {
            realm::found()?;
            fs::remove_dir_all(&dir).map_err(HostError::os("remove", &dir))?;
        }
        Errand::Copy { from, to } => realm::found().and_then(|()| snapshot::copy_directory(&from, &to))?,
        Errand::Show { mounts, dir, place } => show(&mounts, &dir, &place)?,
        Errand::Hide { mounts, place } => hide(&mounts, &place)?,
        Errand::Reach { network, address } => {
            let inside = File::open(&network.other).map_err(HostError::os("open", &network.other))?;
            realm::enter(&network.users)?;
            reach::carry_to(&inside, address)?;
            return Ok(());
        }
    }
    say("done");
    Ok(())
}

/// Copies the mount here and puts it down there: in between lies the step into the VM's mount namespace.
fn show(there: &Entrance, dir: &Path, place: &Path) -> Result<(), HostError> {
    let mounts = File::open(&there.other).map_err(HostError::os("open", &there.other))?;
    realm::enter(&there.users)?;
    // Only what is mounted in a namespace of ours is ours to copy.
    unshare(CloneFlags::CLONE_NEWNS).map_err(HostError::os("make a mount namespace for", dir))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(HostError::os("make private", "/"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, dir, flags).map_err(HostError::os("copy the mount of", dir))?;
    setns(&mounts, CloneFlags::CLONE_NEWNS).map_err(HostError::os("enter", &there.other))?;
    if is_mounted(place)? {
        return Ok(());
    }
    fs::create_dir_all(place).map_err(HostError::os("create in a VM", place))?;
    move_mount(&tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(HostError::os("mount in a VM at", place))
}

fn hide(there: &Entrance, place: &Path) -> Result<(), HostError> {
    let mounts = File::open(&there.other).map_err(HostError::os("open", &there.other))?;
    realm::enter(&there.users)?;
    setns(&mounts, CloneFlags::CLONE_NEWNS).map_err(HostError::os("enter", &there.other))?;
    let begun = Instant::now();
    while is_mounted(place)? {
        match unmount(place, UnmountFlags::NOFOLLOW) {
            // Lazily it would go at once, and be written to while the next VM has it.
            Err(rustix::io::Errno::BUSY) if begun.elapsed() < IN_USE_MAX => sleep(IN_USE_AGAIN),
            ended => ended.map_err(HostError::os("unmount in a VM", place))?,
        }
    }
    match fs::remove_dir(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HostError::os("remove in a VM", place)(error))
        }
        _ => Ok(()),
    }
}

/// Returns whether something is mounted at a place. Asked of the place itself: the `/proc` of a VM knows nothing of us.
fn is_mounted(place: &Path) -> Result<bool, HostError> {
    match statx(CWD, place, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(about) => Ok(about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(HostError::os("look at in a VM", place)(errno)),
    }
}
