//! The locks of a worker, put on between `fork` and `exec`.
//!
//! What a template can reach is decided here and nowhere else: limits, another uid, and where the machine allows it
//! namespaces with a file system of their own. Everything that needs memory is prepared in [`Jail::prepare`]; the child
//! of a process with threads may only make system calls.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, mkdir, pivot_root, setgroups, setresgid, setresuid, symlinkat};

/// How far a worker is locked in, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// Limits on time, memory and output only.
    Limits,
    /// Also another uid, that owns nothing.
    OtherUser,
    /// Also namespaces: no network, no other processes, and a file system that holds nothing but Ruby.
    Contained,
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Limits => "limits",
            Self::OtherUser => "other user",
            Self::Contained => "contained",
        })
    }
}

/// The uid and gid of nobody: every distribution keeps them free of files.
const NOBODY: u32 = 65534;

/// Processes of the worker's user. Ruby needs one and its children a few; a fork bomb hits this.
const PROCESSES_MAX: u64 = 256;

/// Bytes of a file that a template writes into its own `/tmp`.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Open files of a worker process.
const FILES_MAX: u64 = 128;

/// What Ruby needs of the file system: itself, its libraries, its gems, and the files that libraries read.
const VISIBLE: &[&str] = &[
    "/usr",
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/var/lib/gems",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/certs",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
];

/// Folders that exist everywhere and that nothing in [`VISIBLE`] lives under: one is covered by the new root.
const MOUNT_POINTS: &[&str] = &["/mnt", "/media", "/tmp"];

/// The locks of one kind of worker, ready to be put on.
pub(super) struct Jail {
    isolation: Isolation,
    is_root: bool,
    memory_bytes_max: u64,
    root: CString,
    entries: Vec<Entry>,
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
}

/// A step of building the worker's file system. Targets are relative to the new root.
enum Entry {
    Folder(CString),
    File(CString),
    Bind { from: CString, to: CString },
    Symlink { text: CString, at: CString },
}

impl Jail {
    /// Looks at what is visible on this machine, so that the child only has to act.
    pub(super) fn prepare(isolation: Isolation, memory_bytes_max: u64, ruby: &Path) -> io::Result<Self> {
        let root = MOUNT_POINTS.iter().find(|p| Path::new(p).is_dir()).copied().unwrap_or("/tmp");
        let mut visible: Vec<PathBuf> = VISIBLE.iter().map(PathBuf::from).collect();
        // A Ruby outside of /usr brings its own prefix (`/opt/ruby/bin/ruby`).
        let prefix = ruby.parent().and_then(Path::parent).filter(|p| p.components().count() > 2);
        visible.extend(prefix.filter(|p| !p.starts_with("/usr")).map(Path::to_owned));
        let mut entries = Vec::new();
        for path in &visible {
            add_entry(&mut entries, path)?;
        }
        Ok(Self {
            isolation,
            is_root: Uid::effective().is_root(),
            memory_bytes_max,
            root: CString::new(root)?,
            entries,
            uid_map: format!("{NOBODY} {} 1", Uid::effective()).into_bytes(),
            gid_map: format!("{NOBODY} {} 1", Gid::effective()).into_bytes(),
        })
    }

    /// Makes `command` start locked in.
    pub(super) fn lock_in(self, command: &mut Command) {
        command.process_group(0);
        let enter = move || self.enter().map_err(io::Error::from);
        // SAFETY: `enter` runs in the child between fork and exec, where another thread may have held any lock. It
        // makes system calls on memory that was allocated before the fork; it neither allocates nor takes locks nor
        // touches anything that the parent shares.
        unsafe { command.pre_exec(enter) };
    }

    fn enter(&self) -> nix::Result<()> {
        self.limit()?;
        match self.isolation {
            Isolation::Limits => {}
            Isolation::OtherUser => become_nobody()?,
            Isolation::Contained => self.contain()?,
        }
        prctl::set_no_new_privs()?;
        // Set last: a change of uid clears it.
        prctl::set_pdeathsig(Signal::SIGKILL)
    }

    fn limit(&self) -> nix::Result<()> {
        let set = |what, max| setrlimit(what, max, max);
        set(Resource::RLIMIT_CORE, 0)?;
        set(Resource::RLIMIT_AS, self.memory_bytes_max)?;
        set(Resource::RLIMIT_FSIZE, FILE_BYTES_MAX)?;
        set(Resource::RLIMIT_NOFILE, FILES_MAX)?;
        // Counted per user, so it would hit the director's own processes if they are the same user's.
        let own_count = self.isolation != Isolation::Limits;
        if own_count { set(Resource::RLIMIT_NPROC, PROCESSES_MAX) } else { Ok(()) }
    }

    fn contain(&self) -> nix::Result<()> {
        let spaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        if self.is_root {
            unshare(spaces)?;
        } else {
            unshare(spaces | CloneFlags::CLONE_NEWUSER)?;
            write_file(c"/proc/self/setgroups", b"deny")?;
            write_file(c"/proc/self/uid_map", &self.uid_map)?;
            write_file(c"/proc/self/gid_map", &self.gid_map)?;
        }
        self.build_root()?;
        enter_pid_namespace()?;
        if self.is_root { become_nobody() } else { Ok(()) }
    }

    /// Replaces the whole file system by a small one in memory that shows Ruby's folders.
    fn build_root(&self) -> nix::Result<()> {
        let none: Option<&CStr> = None;
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(c"tmpfs"), self.root.as_c_str(), Some(c"tmpfs"), flags, Some(c"size=4m,mode=755"))?;
        chdir(self.root.as_c_str())?;
        umask(Mode::empty());
        for entry in &self.entries {
            entry.make()?;
        }
        exists_is_fine(mkdir(c"tmp", Mode::from_bits_truncate(0o1777)))?;
        mount(Some(c"tmpfs"), c"tmp", Some(c"tmpfs"), flags, Some(c"size=64m,mode=1777"))?;
        // Without root the worker owns what it has just built, so modes alone would not keep it from changing it.
        let read_only = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, self.root.as_c_str(), none, read_only, none)?;
        pivot_root(c".", c".")?;
        umount2(c".", MntFlags::MNT_DETACH)?;
        chdir(c"/tmp")
    }
}

impl Entry {
    fn make(&self) -> nix::Result<()> {
        let none: Option<&CStr> = None;
        match self {
            Self::Folder(at) => exists_is_fine(mkdir(at.as_c_str(), Mode::from_bits_truncate(0o755))),
            Self::File(at) => write_file(at, b""),
            Self::Symlink { text, at } => {
                exists_is_fine(symlinkat(text.as_c_str(), nix::fcntl::AT_FDCWD, at.as_c_str()))
            }
            Self::Bind { from, to } => {
                let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(Some(from.as_c_str()), to.as_c_str(), none, bind, none)?;
                // Nobody may write there anyway; where the mount's flags are locked this cannot be said twice.
                let read_only =
                    MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
                let _ = mount(none, to.as_c_str(), none, read_only, none);
                Ok(())
            }
        }
    }
}

fn add_entry(entries: &mut Vec<Entry>, path: &Path) -> io::Result<()> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(()) }; // Not on this machine.
    let relative = path.strip_prefix("/").expect("visible paths are absolute");
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
    let mut parents: Vec<&Path> =
        relative.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
    parents.reverse();
    for parent in parents {
        entries.push(Entry::Folder(text(parent)?));
    }
    let at = text(relative)?;
    if metadata.is_symlink() {
        entries.push(Entry::Symlink { text: text(&path.read_link()?)?, at });
        return Ok(());
    }
    entries.push(if metadata.is_dir() { Entry::Folder(at.clone()) } else { Entry::File(at.clone()) });
    entries.push(Entry::Bind { from: text(path)?, to: at });
    Ok(())
}

fn exists_is_fine(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Gives up root for a user that owns nothing, including the way back.
fn become_nobody() -> nix::Result<()> {
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Continues as the first process of the new PID namespace: when it dies, the kernel kills everything in there. The
/// process that was here stays outside, does nothing but wait, and is what the director sees as its child.
fn enter_pid_namespace() -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // SAFETY: this process has one thread. The child goes on to exec. The parent only closes, waits and exits, all of
    // them plain system calls, and never returns into code that could allocate.
    unsafe {
        match libc::fork() {
            -1 => Err(Errno::last()),
            0 => Ok(()),
            child => {
                // Including the pipe over which `exec` reports success: an open copy would block the director.
                libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
                let mut status = 0;
                while libc::waitpid(child, &mut status, 0) == -1 && Errno::last() == Errno::EINTR {}
                libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1 })
            }
        }
    }
}

fn write_file(path: &CStr, content: &[u8]) -> nix::Result<()> {
    // SAFETY: `path` is a C string and `content` a live buffer of the given length; the descriptor is ours alone.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC, 0o644);
        Errno::result(fd)?;
        let written = Errno::result(libc::write(fd, content.as_ptr().cast(), content.len()));
        libc::close(fd);
        written.map(drop)
    }
}
