//! Errands: short deeds that only root of a user namespace can do, for a cloud without root on the host.
//!
//! Each is a process of its own, since becoming root of a namespace concerns a whole process. What is done with files needs the
//! user's ids and nothing else, so a new namespace does; what is done in a VM needs the VM's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cpi_api::CpiErrorKind;
use cpi_host::HostError;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use serde::{Deserialize, Serialize};

use super::{Entrance, HelperError, realm, say};
use crate::{reach, snapshot, stemcell};

/// How long those may take who still use a disk that is to go.
const IN_USE_MAX: Duration = Duration::from_secs(3);
/// How long an errand in a VM may take in all. Somewhat more than those who use a disk: a VM may have mounted what never answers.
const IN_VM_MAX: Duration = Duration::from_secs(10);
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
        let mut command = self.command(helper)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(HostError::os("start helper", "errand"))?;
        if let Some(bound) = self.bound() {
            end_after(&mut child, bound).map_err(HostError::os("wait for helper", "errand"))?;
        }
        let output = child.wait_with_output().map_err(HostError::os("wait for helper", "errand"))?;
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
        let order = Order { starter: std::process::id(), errand: self.clone() };
        let deed = serde_json::to_string(&order).map_err(unwritable)?;
        let mut command = Command::new(program);
        command.args(first_args).arg("errand").arg(deed);
        Ok(command)
    }

    /// Returns how long it may take, where it has to do with a VM's mounts and not with how many files there are.
    fn bound(&self) -> Option<Duration> {
        match self {
            Self::Show { .. } | Self::Hide { .. } => Some(IN_VM_MAX),
            Self::Unpack { .. } | Self::Remove { .. } | Self::Copy { .. } | Self::Reach { .. } => None,
        }
    }
}

/// An errand, and whose it is.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    starter: u32,
    errand: Errand,
}

/// Kills an errand that says nothing for so long: the last thing it does is to speak.
fn end_after(child: &mut Child, bound: Duration) -> io::Result<()> {
    let Some(answers) = &child.stdout else { return Ok(()) };
    let timeout = PollTimeout::try_from(bound).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(answers.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
        child.kill()?;
    }
    Ok(())
}

/// Does an errand. `order` is its JSON.
pub(super) fn run(order: &Path) -> Result<(), HelperError> {
    let order = serde_json::from_slice(order.as_os_str().as_encoded_bytes());
    let Order { starter, errand } = order.map_err(|_| HelperError::NoSpec)?;
    // Whoever comes after one that was killed does it again, and must not meet us.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(HostError::os("follow the starter of", "errand"))?;
    if getppid().as_raw() as u32 != starter {
        // It has ended before that counted.
        return Err(HelperError::NoGo);
    }
    match errand {
        Errand::Unpack { image, to } => realm::found().and_then(|()| stemcell::unpack(&image, &to))?,
        Errand::Remove { dir } => {
            realm::found()?;
            fs::remove_dir_all(&dir).map_err(HostError::os("remove", &dir))?;
        }
        Errand::Copy { from, to } => realm::found().and_then(|()| snapshot::copy_directory(&from, &to))?,
        Errand::Show { mounts, dir, place } => show(&mounts, &dir, &place)?,
        Errand::Hide { mounts, place } => hide(&mounts, &place)?,
        Errand::Reach { network, address } => {
            return carry(&network, address).map_err(HelperError::Connection);
        }
    }
    say("done");
    Ok(())
}

/// Carries standard input and output: from here on, nothing else may be written there.
fn carry(there: &Entrance, address: SocketAddr) -> Result<(), HostError> {
    let inside = File::open(&there.other).map_err(HostError::os("open", &there.other))?;
    realm::enter(&there.users)?;
    reach::carry_to(&inside, address)
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
        let unmounted = unmount(place, UnmountFlags::NOFOLLOW);
        let is_late = begun.elapsed() >= IN_USE_MAX;
        match unmounted {
            // Several may lie upon each other.
            Ok(()) if !is_late => {}
            Ok(()) => return Err(mounted_again(place)),
            // Lazily it would go at once, and be written to while the next VM has it.
            Err(rustix::io::Errno::BUSY) if !is_late => sleep(IN_USE_AGAIN),
            Err(errno) => return Err(HostError::os("unmount in a VM", place)(errno)),
        }
    }
    match fs::remove_dir(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HostError::os("remove in a VM", place)(error))
        }
        _ => Ok(()),
    }
}

fn mounted_again(place: &Path) -> HostError {
    let message =
        format!("somebody in the VM mounts something at {} again and again: stop the job", place.display());
    HostError::refused(CpiErrorKind::Other, message)
}

/// Returns whether something is mounted at a place. Asked of the place itself: the `/proc` of a VM knows nothing of us.
fn is_mounted(place: &Path) -> Result<bool, HostError> {
    match statx(CWD, place, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(about) => Ok(about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(HostError::os("look at in a VM", place)(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended_after(script: &str, bound: Duration) -> std::process::ExitStatus {
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        end_after(&mut child, bound).unwrap();
        child.wait().unwrap()
    }

    #[test]
    fn an_errand_that_never_answers_is_killed_and_one_that_does_is_not() {
        let killed = ended_after("exec sleep 1000000", Duration::from_millis(10));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(Signal::SIGKILL as i32));
        assert!(ended_after("echo done", Duration::from_secs(60)).success());
    }
}
