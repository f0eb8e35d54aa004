//! A machine with a root of its own: real mounts, owners and users.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use nix::mount::{MntFlags, MsFlags};
use nix::unistd::{Gid, Group, Uid, User, chown};
use regex::Regex;

use super::users::Users;
use super::{Credentials, DiskSource, FileSystem, Platform, Unmounted};
use crate::children;
use crate::error::ActionError;

/// The user that jobs run as.
const VCAP: &str = "vcap";

/// A busy disk is tried again this often, each a second apart. BOSH's agent holds on for ten minutes, during which
/// nobody learns why.
const UNMOUNT_TRIES: u32 = 60;

/// How long a disk may take to appear, as in BOSH's agent.
const APPEARS_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked for: nobody tells.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module's header.
#[derive(Debug)]
pub struct LinuxPlatform {
    vcap: Option<Credentials>,
}

impl LinuxPlatform {
    /// Looks the `vcap` user up; without one, everything belongs to root.
    pub fn new() -> Self {
        let user = User::from_name(VCAP).ok().flatten();
        let vcap = user.map(|user| Credentials { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
        Self { vcap }
    }
}

impl Default for LinuxPlatform {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Platform for LinuxPlatform {
    fn give(&self, path: &Path) -> std::io::Result<()> {
        let Some(vcap) = self.vcap else { return Ok(()) };
        // Links are left alone: what they lead to has been given by its own path.
        if path.is_symlink() {
            return Ok(());
        }
        chown(path, Some(Uid::from_raw(0)), Some(Gid::from_raw(vcap.gid))).map_err(std::io::Error::from)
    }

    fn hosts(&self) -> Option<&'static Path> {
        Some(Path::new("/etc/hosts"))
    }

    fn credentials(
        &self,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Credentials>, ActionError> {
        let Some(user) = user else { return Ok(None) };
        let found = User::from_name(user).ok().flatten();
        let found = found.ok_or_else(|| ActionError::failed(format!("there is no user `{user}`")))?;
        let gid = match group {
            None => found.gid,
            Some(group) => {
                let found = Group::from_name(group).ok().flatten();
                found.ok_or_else(|| ActionError::failed(format!("there is no group `{group}`")))?.gid
            }
        };
        Ok(Some(Credentials { uid: found.uid.as_raw(), gid: gid.as_raw() }))
    }

    fn is_mounted(&self, at: &Path) -> bool {
        mount_points().contains(&std::path::absolute(at).unwrap_or_else(|_| at.to_owned()))
    }

    async fn mount(
        &self,
        source: &DiskSource,
        at: &Path,
        file_system: &FileSystem,
    ) -> Result<(), ActionError> {
        std::fs::create_dir_all(at).map_err(ActionError::file("create", at))?;
        match source {
            DiskSource::Directory(directory) => {
                nix::mount::mount(Some(directory), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                    .map_err(|errno| ActionError::file("mount", directory)(errno.into()))
            }
            DiskSource::Device(device) => {
                appears(device).await?;
                let device = partition_of(device);
                let kind = match file_system_on(&device).await? {
                    Some(kind) => kind,
                    None => make_file_system(&device, file_system).await?,
                };
                let mut arguments = vec!["-t".to_owned(), kind.clone()];
                if !file_system.options.is_empty() {
                    arguments.extend(["-o".to_owned(), file_system.options.join(",")]);
                }
                arguments.extend([device.display().to_string(), at.display().to_string()]);
                run("mount", &arguments).await?;
                grow(&kind, &device, at).await;
                Ok(())
            }
        }
    }

    async fn unmount(&self, at: &Path) -> Result<Unmounted, ActionError> {
        if !self.is_mounted(at) {
            return Ok(Unmounted::Already);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match nix::mount::umount2(at, MntFlags::empty()) {
                Ok(()) => return Ok(Unmounted::Now),
                Err(nix::errno::Errno::EBUSY) if tries < UNMOUNT_TRIES => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(errno) => return Err(ActionError::file("unmount", at)(errno.into())),
            }
        }
    }

    async fn make_read_only(&self, at: &Path) -> Result<(), ActionError> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_BIND;
        let superblock = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        // A bind mount may be made read-only without touching the file system behind it.
        nix::mount::mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
            .or_else(|_| nix::mount::mount(None::<&str>, at, None::<&str>, superblock, None::<&str>))
            .map_err(|errno| ActionError::file("make read-only", at)(errno.into()))
    }

    async fn trust(&self, certificates: &[String], _bosh: &Path) -> Result<(), ActionError> {
        let directory = Path::new("/usr/local/share/ca-certificates");
        // It takes seconds, and nearly always nothing has changed.
        if !super::write_trusted(directory, certificates)? {
            return Ok(());
        }
        // A stemcell without certificates has nobody who reads them.
        if Path::new("/usr/sbin/update-ca-certificates").exists() {
            run("update-ca-certificates", &["--fresh".into()]).await?;
        }
        super::trusted_in_use(directory)
    }

    async fn add_operator(&self, user: &str, public_key: &str, homes: &Path) -> Result<String, ActionError> {
        Users::default().add(user, public_key, homes).await
    }

    async fn remove_operators(&self, names: &Regex) -> Result<(), ActionError> {
        Users::default().remove(names).await
    }
}

/// Returns every mount point of our mount namespace.
fn mount_points() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .collect()
}

/// Turns mountinfo's `\040` into a blank.
fn unescape(path: &str) -> String {
    let mut plain = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                plain.push(byte.into());
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain + rest
}

/// Returns the first partition where there is one: disks that BOSH's own agent has used are partitioned, ours are not.
fn partition_of(device: &Path) -> PathBuf {
    let text = device.display().to_string();
    let suffix = match text.as_str() {
        t if t.starts_with("/dev/nvme") || t.starts_with("/dev/loop") => "p1",
        t if t.starts_with("/dev/mapper") => "-part1",
        _ => "1",
    };
    let partition = PathBuf::from(format!("{text}{suffix}"));
    if partition.exists() { partition } else { device.to_owned() }
}

/// Waits for a device: one that was attached just now may still be on its way.
async fn appears(device: &Path) -> Result<(), ActionError> {
    let there = async {
        while !device.exists() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let missing = |_| ActionError::failed(format!("disk `{}` is not there", device.display()));
    tokio::time::timeout(APPEARS_WITHIN, there).await.map_err(missing)
}

/// Returns the kind of file system on a device; `None` only when it is certain that there is none.
async fn file_system_on(device: &Path) -> Result<Option<String>, ActionError> {
    let mut command = tokio::process::Command::new("blkid");
    command.args(["-p", "-o", "value", "-s", "TYPE"]).arg(device).kill_on_drop(true);
    let output = command.output().await.map_err(ActionError::file("look for a file system on", device))?;
    let kind = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) if !kind.is_empty() => Ok(Some(kind)),
        // 2: nothing was found. Anything else is doubt, and in doubt nothing may be formatted.
        Some(2) => Ok(None),
        _ => Err(ActionError::failed(format!("cannot tell what is on disk `{}`", device.display()))),
    }
}

async fn make_file_system(device: &Path, wanted: &FileSystem) -> Result<String, ActionError> {
    let kind = wanted.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("ext4");
    let path = device.display().to_string();
    match kind {
        "ext4" => run("mkfs.ext4", &["-q".into(), "-F".into(), "-m".into(), "0".into(), path]).await?,
        "xfs" => run("mkfs.xfs", &["-q".into(), path]).await?,
        _ => return Err(ActionError::failed(format!("file system `{kind}` is neither ext4 nor xfs"))),
    }
    Ok(kind.to_owned())
}

/// Grows a file system to its disk. What can't be grown still works at its old size, and says so.
async fn grow(kind: &str, device: &Path, at: &Path) {
    let grown = match kind {
        "ext4" => run("resize2fs", &[device.display().to_string()]).await,
        "xfs" => run("xfs_growfs", &[at.display().to_string()]).await,
        _ => Ok(()),
    };
    if let Err(error) = grown {
        tracing::warn!(device = %device.display(), error = error.chain(), "a disk's file system can't be grown");
    }
}

async fn run(program: &str, arguments: &[String]) -> Result<(), ActionError> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    children::run(program, &arguments, OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_blanks() {
        assert_eq!(unescape(r"/a\040b\011c\x"), "/a b\tc\\x");
        assert!(mount_points().contains(&PathBuf::from("/proc")));
    }

    /// Says why a test that mounts is skipped, if it must be.
    fn may_mount(at: &Path) -> bool {
        let probe = nix::mount::mount(Some(at), at, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        match probe {
            Ok(()) => nix::mount::umount(at).is_ok(),
            Err(errno) => {
                println!("skipped: nothing can be mounted here: {errno}");
                false
            }
        }
    }

    #[tokio::test]
    async fn a_directory_is_mounted_made_read_only_and_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, at) = (dir.path().join("disk"), dir.path().join("store"));
        std::fs::create_dir(&disk).unwrap();
        if !may_mount(&disk) {
            return;
        }
        let platform = LinuxPlatform::new();
        let source = DiskSource::Directory(disk.clone());
        platform.mount(&source, &at, &FileSystem::default()).await.unwrap();
        std::fs::write(at.join("row"), "x").unwrap();
        platform.make_read_only(&at).await.unwrap();
        assert!(std::fs::write(at.join("row"), "y").is_err());
        assert!(platform.is_mounted(&at));
        assert_eq!(platform.unmount(&at).await.unwrap(), Unmounted::Now);
        assert_eq!(platform.unmount(&at).await.unwrap(), Unmounted::Already);
        assert_eq!(std::fs::read_to_string(disk.join("row")).unwrap(), "x");
    }

    #[tokio::test]
    async fn a_disk_that_is_on_its_way_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("vdb");
        let comes = async { std::fs::write(&device, "").unwrap() };
        let (found, ()) = tokio::join!(appears(&device), comes);
        found.unwrap();
    }

    #[tokio::test]
    async fn a_device_is_formatted_once() {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("store"));
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let attached = std::process::Command::new("losetup").args(["-f", "--show"]).arg(&image).output();
        let device = match attached {
            Ok(output) if output.status.success() && may_mount(dir.path()) => {
                PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
            }
            other => return println!("skipped: no loop device can be had here: {other:?}"),
        };
        let (platform, source) = (LinuxPlatform::new(), DiskSource::Device(device.clone()));
        let outcome = async {
            platform.mount(&source, &at, &FileSystem::default()).await?;
            std::fs::write(at.join("row"), "precious").map_err(ActionError::file("write", &at))?;
            platform.unmount(&at).await?;
            platform.mount(&source, &at, &FileSystem::default()).await?;
            let row = std::fs::read_to_string(at.join("row")).map_err(ActionError::file("read", &at))?;
            platform.unmount(&at).await?;
            Ok::<_, ActionError>(row)
        };
        let outcome = outcome.await;
        std::process::Command::new("losetup").arg("-d").arg(&device).status().unwrap();
        assert_eq!(outcome.unwrap(), "precious");
    }

    #[test]
    fn a_missing_user_is_named() {
        let error = LinuxPlatform::new().credentials(Some("no-such-user"), None).unwrap_err();
        assert_eq!(error.to_string(), "there is no user `no-such-user`");
        assert_eq!(LinuxPlatform::new().credentials(None, None).unwrap(), None);
    }
}
