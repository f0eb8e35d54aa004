//! The first process inside a VM: puts its root together, moves in, and keeps the agent running.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cpi_host::HostError;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::{HelperError, InsideSpec, LaunchSpec, Realm, agent, leave_starter, say, wait_for_go};
use crate::mounts;

/// Character devices that programs expect, with their numbers.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// User and group id of vcap where the stemcell has none.
const VCAP_ID: u32 = 1000;

/// Parts of /proc through which root inside could change the host.
const PROC_READ_ONLY: [&str; 3] = ["sys", "sysrq-trigger", "irq"];

/// Runs a VM from inside.
pub(super) fn run(spec: &LaunchSpec) -> Result<(), HelperError> {
    let inside = spec.inside.as_ref().ok_or(HelperError::NoSpec)?;
    // Without its shepherd a VM can't reach a director: better gone, and noticed, than a hermit.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(HostError::os("follow the shepherd of", &spec.console))?;
    wait_for_go()?;
    // Only now, when we are in our control groups: they become the top of what we see.
    if unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP).is_err() {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(HostError::os("make a mount namespace for", &spec.console))?;
    }
    furnish(inside)?;
    move_in(&inside.mount_point)?;
    nix::unistd::sethostname(&inside.hostname).map_err(HostError::os("name the VM", &inside.hostname))?;
    settle(inside)?;
    agent::keep_running(spec, || {
        say("ready");
        leave_starter();
    })?;
    Ok(())
}

/// Builds a root below `scratch` and moves in, once.
pub(super) fn probe(scratch: &Path, realm: Realm) -> Result<(), HelperError> {
    let lower = match realm {
        Realm::Host => "/".into(),
        Realm::UserNamespace => scratch.join("lower"),
    };
    let inside = InsideSpec {
        hostname: "probe".into(),
        realm,
        lower,
        shared: match realm {
            Realm::Host => vec![],
            Realm::UserNamespace => vec!["/usr".into()],
        },
        upper: scratch.join("upper"),
        work: scratch.join("work"),
        mount_point: scratch.join("root"),
        binds: vec![],
        hidden: vec!["/root".into()],
        endpoints: PathBuf::new(),
        publish: vec![],
        address: None,
        resolver: None,
    };
    for dir in [&inside.lower, &inside.upper, &inside.work, &inside.mount_point] {
        fs::create_dir_all(dir).map_err(HostError::os("create", dir))?;
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(HostError::os("make a mount namespace for", scratch))?;
    furnish(&inside)?;
    move_in(&inside.mount_point)?;
    say("ready");
    Ok(())
}

/// Mounts the root and everything in it, where nobody else sees it.
fn furnish(spec: &InsideSpec) -> Result<(), HostError> {
    let private = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>);
    private.map_err(HostError::os("make private", "/"))?;
    let root = &spec.mount_point;
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}{}",
        spec.lower.display(),
        spec.upper.display(),
        spec.work.display(),
        match spec.realm {
            Realm::Host => "",
            // What an overlay remembers of its files it can't write where only the host's root may.
            Realm::UserNamespace => ",userxattr",
        }
    );
    mount_at("overlay", root, MsFlags::empty(), &layers)?;
    mount_at("proc", &root.join("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, "")?;
    for name in PROC_READ_ONLY {
        read_only(&root.join("proc").join(name))?;
    }
    mount_at("sysfs", &root.join("sys"), MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "")?;
    devices(&root.join("dev"), spec.realm)?;
    let scratch = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at("tmpfs", &root.join("run"), scratch, "mode=755")?;
    for shared in &spec.shared {
        share(shared, &within(root, shared))?;
    }
    // Before the binds: what is bound may lie in what is hidden, never the other way round.
    for hidden in &spec.hidden {
        let place = within(root, hidden);
        if place.is_dir() {
            mount_at("tmpfs", &place, scratch, if is_shared(hidden) { "mode=1777" } else { "mode=755" })?;
        }
    }
    for (host, inside) in &spec.binds {
        let place = within(root, inside);
        bind(host, &place)?;
        // Against accidents: root in there can undo it, and so has a copy of the agent's program that is its VM's alone.
        if spec.realm == Realm::UserNamespace && host.is_file() {
            protect(&place)?;
        }
    }
    Ok(())
}

fn devices(dev: &Path, realm: Realm) -> Result<(), HostError> {
    mount_at("tmpfs", dev, MsFlags::MS_NOSUID, "mode=755,size=1m")?;
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        if realm == Realm::UserNamespace {
            bind(&Path::new("/dev").join(name), &path)?;
            continue;
        }
        // The file mode passes the umask; what is left out here is put right after.
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))
            .map_err(HostError::os("create", &path))?;
        set_mode(&path, 0o666)?;
    }
    mount_at(
        "devpts",
        &dev.join("pts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620",
    )?;
    mount_at("tmpfs", &dev.join("shm"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ];
    for (name, target) in links {
        symlink(target, dev.join(name)).map_err(HostError::os("link", dev.join(name)))?;
    }
    Ok(())
}

/// Makes `root` the root and lets go of the host's.
fn move_in(root: &Path) -> Result<(), HostError> {
    std::env::set_current_dir(root).map_err(HostError::os("enter", root))?;
    // Old root on top of the new one, then away with it: no directory is needed to put it.
    nix::unistd::pivot_root(".", ".").map_err(HostError::os("pivot to", root))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(HostError::os("let go of the host below", root))?;
    std::env::set_current_dir("/").map_err(HostError::os("enter", "/"))
}

/// Makes the root a VM's: its name, and the user that jobs run as.
fn settle(spec: &InsideSpec) -> Result<(), HostError> {
    let name = &spec.hostname;
    fs::create_dir_all("/etc").map_err(HostError::os("create", "/etc"))?;
    let hosts = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {name}\n");
    for (path, content) in [("/etc/hostname", format!("{name}\n")), ("/etc/hosts", hosts)] {
        fs::write(path, content).map_err(HostError::os("write", path))?;
    }
    if let Some(resolver) = spec.resolver {
        let path = Path::new("/etc/resolv.conf");
        // A stemcell may have a link there that leads to where nobody has written yet.
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HostError::os("remove", path)(error));
            }
            _ => fs::write(path, format!("nameserver {resolver}\n")).map_err(HostError::os("write", path))?,
        }
    }
    let accounts = [
        ("/etc/group", "vcap:x:1000:\n"),
        ("/etc/passwd", "vcap:x:1000:1000:BOSH system user:/home/vcap:/bin/bash\n"),
        ("/etc/shadow", "vcap:*:19000:0:99999:7:::\n"),
    ];
    for (path, line) in accounts {
        add_account(Path::new(path), line)?;
    }
    // The stemcell's own homes may be hidden, and jobs that run as vcap expect theirs.
    let home = Path::new("/home/vcap");
    fs::create_dir_all(home).map_err(HostError::os("create", home))?;
    std::os::unix::fs::chown(home, Some(VCAP_ID), Some(VCAP_ID)).map_err(HostError::os("give away", home))
}

fn add_account(path: &Path, line: &str) -> Result<(), HostError> {
    // A small stemcell may have no accounts at all.
    let file = File::options().read(true).append(true).create(true).open(path);
    let mut file = file.map_err(HostError::os("open", path))?;
    let mut known = String::new();
    file.read_to_string(&mut known).map_err(HostError::os("read", path))?;
    if known.lines().any(|known| known.starts_with("vcap:")) {
        return Ok(());
    }
    file.write_all(line.as_bytes()).map_err(HostError::os("write", path))
}

fn bind(host: &Path, place: &Path) -> Result<(), HostError> {
    if host.is_dir() {
        fs::create_dir_all(place).map_err(HostError::os("create", place))?;
    } else {
        let dir = place.parent().unwrap_or(place);
        fs::create_dir_all(dir).map_err(HostError::os("create", dir))?;
        File::options().create(true).append(true).open(place).map_err(HostError::os("create", place))?;
    }
    mount(Some(host), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(HostError::os("bind", host))
}

fn read_only(place: &Path) -> Result<(), HostError> {
    if !place.exists() {
        return Ok(());
    }
    bind(place, place)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>).map_err(HostError::os("protect", place))
}

/// Shows a directory of the host, with what is mounted below: an ordinary user may not have it without.
fn share(host: &Path, place: &Path) -> Result<(), HostError> {
    fs::create_dir_all(place).map_err(HostError::os("create", place))?;
    mount(Some(host), place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(HostError::os("bind", host))?;
    let all = mounts::own()?.into_iter().filter(|mount| mount.place.starts_with(place));
    all.map(|mount| mount.place).try_for_each(|place| protect(&place))
}

/// Makes a mount of the host's read-only. What else the host has forbidden there stays so: nobody but its root may lift it.
fn protect(place: &Path) -> Result<(), HostError> {
    let there = statvfs(place).map_err(HostError::os("look up the mount of", place))?.flags();
    let forbidden = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ];
    let kept = forbidden.into_iter().filter(|(flag, _)| there.contains(*flag)).map(|(_, flag)| flag);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | kept.collect::<MsFlags>();
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>).map_err(HostError::os("protect", place))
}

fn mount_at(kind: &str, place: &Path, flags: MsFlags, options: &str) -> Result<(), HostError> {
    fs::create_dir_all(place).map_err(HostError::os("create", place))?;
    mount(Some(kind), place, Some(kind), flags, Some(options)).map_err(HostError::os("mount", place))
}

fn within(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn is_shared(path: &Path) -> bool {
    path == Path::new("/tmp") || path == Path::new("/var/tmp")
}

fn set_mode(path: &Path, mode: u32) -> Result<(), HostError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(HostError::os("set the mode of", path))
}
