//! A daemon of one's own, for tests: in namespaces where it disturbs nobody, ended with its value and all that runs there.
//!
//! It is held by a pipe: whoever started it may be killed, and it ends all the same.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// What it needs beside itself, and the package that brings it.
const PROGRAMS: [(&str, &str); 4] =
    [("dockerd", "docker.io"), ("ip", "iproute2"), ("iptables", "iptables"), ("unshare", "util-linux")];

/// How long it may take to come up on a machine that is busy.
const UP_WITHIN: Duration = Duration::from_secs(30);

/// How long it may take to say that it is there before it is looked whether it still is.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Runs the daemon until the standard input ends. What runs there then has lost its test, and goes with the process
/// namespace whose first process this is.
const SCRIPT: &str = r#"ip link set lo up
dockerd "$@" >log 2>&1 </dev/null &
cat >/dev/null
kill $!
wait $!"#;

/// The daemon.
pub struct OwnDaemon {
    folder: PathBuf,
    child: Child,
    /// Its end is the daemon's.
    hold: Option<ChildStdin>,
}

/// Where the daemon's network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A namespace that nothing leads into or out of.
    Apart,
    /// That of the thread that starts it.
    Here,
}

/// Returns why there can be no such daemon here, if there can't.
pub fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("a Docker daemon of one's own needs root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    let absent = |program: &str| !folders.iter().any(|folder| folder.join(program).is_file());
    let (program, package) = PROGRAMS.into_iter().find(|(program, _)| absent(program))?;
    Some(format!("there is no `{program}` here (apt-get install {package})"))
}

impl OwnDaemon {
    /// Starts it with all that is its own below `folder`, and waits until it answers; its last words if it does not.
    pub fn start(folder: &Path, network: Network) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        if network == Network::Apart {
            command.arg("--net");
        }
        command.args(["--", "sh", "-c", SCRIPT, "dockerd"]);
        let own = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
        command.args([own("data-root", "data"), own("exec-root", "exec"), own("pidfile", "pid")]);
        command.arg(format!("--host=unix://{}", folder.join("socket").display()));
        command.arg("--shutdown-timeout=1");
        let mut child = command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let hold = child.stdin.take();
        let mut daemon = Self { folder: folder.to_owned(), child, hold };
        daemon.wait_until_up()?;
        Ok(daemon)
    }

    /// Returns where it answers.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Returns where it keeps what is on a volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.folder.join("data/volumes").join(name).join("_data")
    }

    /// Returns how many containers it has, whether they run or not.
    pub fn containers(&self) -> io::Result<usize> {
        Ok(fs::read_dir(self.folder.join("data/containers"))?.count())
    }

    /// Returns a path in a container, by the number that the daemon knows its first process by.
    pub fn inside(&self, pid: i64, path: &str) -> io::Result<PathBuf> {
        let unshare = self.child.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
        let first = children.trim();
        Ok(PathBuf::from(format!("/proc/{first}/root/proc/{pid}/root/{}", path.trim_start_matches('/'))))
    }

    fn wait_until_up(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        while !self.answers() {
            if self.child.try_wait()?.is_some() || begun.elapsed() > UP_WITHIN || self.has_given_up() {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(io::Error::other(format!("dockerd does not come up: {}", last.join(" / "))));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Returns whether it answers: it listens long before.
    fn answers(&self) -> bool {
        let ask = || -> io::Result<String> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        ask().is_ok_and(|answer| answer.contains(" 200 OK"))
    }

    fn has_given_up(&self) -> bool {
        fs::read_to_string(self.folder.join("log")).is_ok_and(|log| log.contains("failed to start daemon"))
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        drop(self.hold.take());
        let _ = self.child.wait();
    }
}

/// What a root file system is made of: files of the host.
#[derive(Default)]
pub struct Rootfs {
    /// Programs, which bring the libraries that they are linked with.
    pub programs: Vec<PathBuf>,
    /// Other files.
    pub files: Vec<PathBuf>,
    /// Of these only the libraries: they are put in later.
    pub guests: Vec<PathBuf>,
}

impl Rootfs {
    /// Writes it to `out`, as plain tar.
    pub fn write(&self, out: &Path) -> io::Result<()> {
        let listed = Command::new("ldd").args(self.programs.iter().chain(&self.guests)).output()?.stdout;
        let listed = String::from_utf8_lossy(&listed);
        let libraries = listed.split_ascii_whitespace().filter(|word| word.starts_with("/lib"));
        let libraries = libraries.map(|word| PathBuf::from(word.trim_end_matches(':')));
        let mut archive = tar::Builder::new(File::create(out)?);
        // The daemon knows no archives with holes.
        archive.sparse(false);
        for folder in ["tmp", "proc", "sys", "dev", "etc", "var"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(if folder == "tmp" { 0o1777 } else { 0o755 });
            header.set_size(0);
            archive.append_data(&mut header, folder, io::empty())?;
        }
        // Where the host has links at its root, so does this.
        for link in ["bin", "sbin", "lib", "lib64"] {
            if let Ok(target) = fs::read_link(Path::new("/").join(link)) {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, link, target)?;
            }
        }
        let mut seen = BTreeSet::new();
        for path in self.programs.iter().chain(&self.files).cloned().chain(libraries) {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let place = folder.canonicalize()?.join(name);
            if seen.insert(place.clone()) {
                let place = place.strip_prefix("/").unwrap_or(&place);
                archive.append_path_with_name(path.canonicalize()?, place)?;
            }
        }
        archive.into_inner()?.sync_all()
    }
}
