//! The machine's SSH server, where nobody but the agent would start one: a container has no init of its own.
//!
//! It lets in whom `ssh` made ([`crate::platform`]), each by a key, and nobody else. Its host key is made by the machine
//! itself, on its first boot: what a stemcell brings along, everybody has who has the stemcell.
//!
//! Invariant: the server outlives the agent, and with it the sessions. The agent's next life finds it by its pidfile.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::agent_settings::AgentSettings;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::children;
use crate::durable::{self, Readers};
use crate::error::ActionError;
use crate::layout::Layout;
use crate::supervisor::Process;

/// Who may log in, and who may become root, are members of these; as BOSH's stemcells have them.
const GROUPS: [&str; 3] = ["bosh_sshers", "bosh_sudoers", "admin"];

/// Waits before a server that died, or can't be started, is started again.
const AGAIN: retry::Policy =
    retry::Policy { initial: Duration::from_millis(100), max: Duration::from_secs(30), total: None };

/// A server that has run this long was fine.
const PROVED_AFTER: Duration = Duration::from_secs(60);

/// How long a server may take until it listens. Slow machines have been seen to take two seconds for the key.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// How long a request may wait for the server: less than directors wait for the answer.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How often a server that starts is looked at: it tells nobody when it listens, but writes its pidfile then.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How the server fares.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Listening,
    Failed(String),
}

/// Where things are on the machine.
#[derive(Debug)]
struct Place {
    /// `/`, but for tests.
    root: PathBuf,
    layout: Layout,
    /// Where `sshd` and its like are.
    programs: OsString,
}

/// The SSH server of one machine.
pub(crate) struct SshServer {
    place: Place,
    addresses: Vec<String>,
    state: watch::Sender<State>,
}

/// Begins to keep the server running, where nobody else does, in `tasks`. Beside everything else: a key takes a moment, and
/// nobody has asked to log in yet.
pub(crate) fn start(settings: &AgentSettings, layout: &Layout, tasks: &OwnedTasks) -> Option<Arc<SshServer>> {
    let server = settings.keeps_ssh_server.then(|| Arc::new(SshServer::new(settings, layout)))?;
    let kept = server.clone();
    tasks.spawn("ssh server", OnExit::Ignore, |stop| kept.keep(stop));
    Some(server)
}

impl SshServer {
    /// Returns the server of this machine, which listens at the machine's own addresses.
    fn new(settings: &AgentSettings, layout: &Layout) -> Self {
        let programs = "/usr/sbin:/usr/bin:/sbin:/bin".into();
        let addresses = settings.networks.values().filter(|network| network["type"] != "vip");
        let addresses = addresses.filter_map(|network| network["ip"].as_str()).map(str::to_owned).collect();
        Self::at(Place { root: "/".into(), layout: layout.clone(), programs }, addresses)
    }

    fn at(place: Place, addresses: Vec<String>) -> Self {
        Self { place, addresses, state: watch::channel(State::Starting).0 }
    }

    /// Keeps the server running until `stop`, which ends only the looking after.
    async fn keep(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = self.keep_running() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Waits until the server listens, and says why it does not.
    pub async fn ready(&self) -> Result<(), ActionError> {
        let mut state = self.state.subscribe();
        let told = tokio::time::timeout(READY_WITHIN, state.wait_for(|state| *state != State::Starting));
        match told.await.map(|told| told.map(|state| state.clone())) {
            Ok(Ok(State::Failed(why))) => Err(ActionError::failed(format!("nobody can log in: {why}"))),
            // The sender lives in `self`.
            Ok(_) => Ok(()),
            Err(_) => Err(ActionError::failed("the SSH server does not get to listen")),
        }
    }

    async fn keep_running(&self) {
        if !self.place.has("sshd") {
            info!("the stemcell has no SSH server");
            self.state.send_replace(State::Failed("the stemcell has no SSH server".into()));
            return;
        }
        let mut waits = AGAIN.waits();
        loop {
            let begun = Instant::now();
            match self.run().await {
                Ok(()) => warn!("the SSH server has died"),
                Err(error) => {
                    warn!(error = error.chain(), "the SSH server can't be started");
                    self.state.send_replace(State::Failed(error.chain()));
                }
            }
            if begun.elapsed() > PROVED_AFTER {
                waits.reset();
            }
            tokio::time::sleep(waits.next().unwrap_or(AGAIN.max)).await;
        }
    }

    /// Runs the server until its death.
    async fn run(&self) -> Result<(), ActionError> {
        let server = match Process::behind(&self.place.pidfile()) {
            Some(left_by_the_agents_former_life) => left_by_the_agents_former_life,
            None => {
                self.place.prepare(&self.addresses).await?;
                self.start().await?
            }
        };
        self.state.send_replace(State::Listening);
        server.died().await;
        self.state.send_replace(State::Starting);
        Ok(())
    }

    async fn start(&self) -> Result<Process, ActionError> {
        let place = &self.place;
        let (config, log) = (place.layout.sshd_config(), place.layout.sshd_log());
        let (config, log) = (config.display().to_string(), log.display().to_string());
        let server = place.program("sshd");
        // What is wrong with the configuration is told here; from then on it writes its log.
        place.run(&server, &["-t", "-f", &config]).await?;
        place.run(&server, &["-f", &config, "-E", &log]).await?;
        let listens = async {
            loop {
                match Process::behind(&place.pidfile()) {
                    Some(server) => return server,
                    None => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        let late = |_| ActionError::failed(format!("the SSH server does not listen; `{log}` says why"));
        tokio::time::timeout(LISTENS_WITHIN, listens).await.map_err(late)
    }
}

impl Place {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn host_key(&self) -> PathBuf {
        self.path("etc/ssh/ssh_host_rsa_key")
    }

    fn pidfile(&self) -> PathBuf {
        self.path("run/sshd/pid")
    }

    fn has(&self, program: &str) -> bool {
        std::env::split_paths(&self.programs).any(|folder| folder.join(program).exists())
    }

    /// Returns where a program is: `sshd` wants to be called by its whole path.
    fn program(&self, name: &str) -> String {
        let all = std::env::split_paths(&self.programs).map(|folder| folder.join(name));
        all.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into()).display().to_string()
    }

    /// Makes what the server wants to find. Twice is fine.
    async fn prepare(&self, addresses: &[String]) -> Result<(), ActionError> {
        self.make_groups().await?;
        self.let_operators_become_root()?;
        self.make_host_key().await?;
        // Whoever asks for a login runs without rights in this one, for a moment.
        let empty = self.path("run/sshd");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&empty)
            .map_err(ActionError::file("create", &empty))?;
        let log = self.layout.sshd_log();
        let logs = log.parent().unwrap_or(&log);
        fs::create_dir_all(logs).map_err(ActionError::file("create", logs))?;
        let config = self.layout.sshd_config();
        let text = configuration(addresses, &self.host_key(), &self.pidfile());
        durable::write(&config, text.as_bytes(), Readers::Owner).map_err(ActionError::file("write", &config))
    }

    async fn make_groups(&self) -> Result<(), ActionError> {
        let path = self.path("etc/group");
        let text = fs::read_to_string(&path).map_err(ActionError::file("read", &path))?;
        let is_there = |group: &str| text.lines().any(|line| line.split(':').next() == Some(group));
        for group in GROUPS.into_iter().filter(|group| !is_there(group)) {
            self.run("groupadd", &["--system", group]).await?;
        }
        Ok(())
    }

    fn let_operators_become_root(&self) -> Result<(), ActionError> {
        let folder = self.path("etc/sudoers.d");
        // A stemcell without sudo has nobody who reads it.
        if !folder.is_dir() {
            return Ok(());
        }
        let path = folder.join("bosh_sudoers");
        durable::write(&path, b"%bosh_sudoers ALL=(ALL) NOPASSWD: ALL\n", Readers::Owner)
            .map_err(ActionError::file("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440))
            .map_err(ActionError::file("protect", &path))
    }

    /// Makes the machine's host key, unless the one that is there is one that we have made.
    async fn make_host_key(&self) -> Result<(), ActionError> {
        let (key, made) = (self.host_key(), self.layout.ssh_host_key());
        let public = key.with_extension("pub");
        let known = fs::read(&made).ok().filter(|known| !known.is_empty());
        if known.is_some() && known == fs::read(&public).ok() && key.exists() {
            return Ok(());
        }
        let folder = self.path("etc/ssh");
        let entries = fs::read_dir(&folder).map_err(ActionError::file("read", &folder))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ssh_host_")) {
                fs::remove_file(&path).map_err(ActionError::file("remove", &path))?;
            }
        }
        self.run(
            "ssh-keygen",
            &["-q", "-t", "rsa", "-b", "3072", "-N", "", "-f", &key.display().to_string()],
        )
        .await?;
        let text = fs::read(&public).map_err(ActionError::file("read", &public))?;
        // Last: a key that is not on record is made anew, and nobody has been told of it.
        durable::write(&made, &text, Readers::All).map_err(ActionError::file("write", &made))
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<(), ActionError> {
        children::run(program, arguments, &self.programs).await
    }
}

/// Returns the whole configuration; the stemcell's own is not read. One host key: clients are told of that one, and a server
/// with others might show them another.
fn configuration(addresses: &[String], host_key: &Path, pidfile: &Path) -> String {
    let at = |address: &String| match address.contains(':') {
        true => format!("ListenAddress [{address}]:22\n"),
        false => format!("ListenAddress {address}:22\n"),
    };
    let listen: String = addresses.iter().map(at).collect();
    format!(
        "# Written by the agent whenever it starts the server.\n{listen}HostKey {}\nPidFile {}\n\
         AllowGroups bosh_sshers\nPermitRootLogin no\nAuthenticationMethods publickey\nPubkeyAuthentication yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nHostbasedAuthentication no\n\
         PermitEmptyPasswords no\nPermitUserEnvironment no\nUsePAM yes\nStrictModes yes\nLoginGraceTime 30\n\
         MaxAuthTries 3\nX11Forwarding no\nUseDNS no\nPrintMotd no\nPrintLastLog no\nAcceptEnv LANG LC_*\n\
         ClientAliveInterval 60\nClientAliveCountMax 3\nSubsystem sftp internal-sftp\n",
        host_key.display(),
        pidfile.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A machine whose programs leave files and processes behind as the real ones do.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for folder in ["etc/ssh", "etc/sudoers.d", "bin", "run/sshd"] {
                fs::create_dir_all(machine.path(folder)).unwrap();
            }
            fs::write(machine.path("etc/group"), "root:x:0:\nadmin:x:117:\n").unwrap();
            fs::write(machine.path("etc/ssh/ssh_host_rsa_key"), "the stemcell's").unwrap();
            fs::write(machine.path("etc/ssh/ssh_host_rsa_key.pub"), "the stemcell's").unwrap();
            fs::write(machine.path("etc/ssh/ssh_host_ed25519_key"), "the stemcell's").unwrap();
            machine.program("groupadd", "true");
            machine
                .program("ssh-keygen", "for key; do :; done; echo private > $key; echo public $$ > $key.pub");
            let pidfile = machine.path("run/sshd/pid");
            let listen =
                format!("setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > {}", pidfile.display());
            machine.program("sshd", &format!("[ \"$1\" = -t ] && exit 0\n{listen}"));
            machine
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn program(&self, name: &str, deed: &str) {
            let (path, log) = (self.path("bin").join(name), self.path("log"));
            fs::write(&path, format!("#!/bin/sh\necho {name} $* >> {}\n{deed}\n", log.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn count(&self, program: &str) -> usize {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            log.lines().filter(|line| line.starts_with(program)).count()
        }

        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.path(path)).unwrap()
        }

        fn server(&self) -> Arc<SshServer> {
            let programs = format!("{}:/usr/bin:/bin", self.path("bin").display()).into();
            let (root, layout) = (self.0.path().to_owned(), Layout::new(self.path("vcap")));
            Arc::new(SshServer::at(
                Place { root, layout, programs },
                vec!["10.0.0.2".into(), "fd00::2".into()],
            ))
        }

        fn running(&self) -> Option<Process> {
            Process::behind(&self.path("run/sshd/pid"))
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            if let Some(server) = self.running() {
                server.kill();
            }
        }
    }

    fn keep(server: &Arc<SshServer>) -> OwnedTasks {
        let (tasks, server) = (OwnedTasks::new(), server.clone());
        tasks.spawn("ssh server", OnExit::Ignore, |stop| server.keep(stop));
        tasks
    }

    #[tokio::test]
    async fn a_machine_makes_its_host_key_itself_and_once() {
        let machine = Machine::new();
        let server = machine.server();
        let tasks = keep(&server);
        server.ready().await.unwrap();
        assert!(machine.text("etc/ssh/ssh_host_rsa_key.pub").starts_with("public "));
        assert!(!machine.path("etc/ssh/ssh_host_ed25519_key").exists(), "everybody has the stemcell's");
        let config = machine.text("vcap/bosh/sshd_config");
        for line in ["ListenAddress 10.0.0.2:22", "ListenAddress [fd00::2]:22", "PasswordAuthentication no"] {
            assert!(config.lines().any(|has| has == line), "{config}");
        }
        assert_eq!(machine.text("etc/sudoers.d/bosh_sudoers"), "%bosh_sudoers ALL=(ALL) NOPASSWD: ALL\n");
        assert_eq!(machine.count("groupadd"), 2, "one is there");
        // The agent dies, and then the whole machine.
        tasks.stop(PATIENCE).await;
        let before = machine.running().expect("the server outlives the agent").pid();
        let server = machine.server();
        let tasks = keep(&server);
        server.ready().await.unwrap();
        assert_eq!(machine.running().unwrap().pid(), before);
        tasks.stop(PATIENCE).await;
        let running = machine.running().unwrap();
        running.kill();
        running.died().await;
        let server = machine.server();
        let tasks = keep(&server);
        server.ready().await.unwrap();
        assert_eq!((machine.count("ssh-keygen"), machine.count("sshd -f")), (1, 2));
        tasks.stop(PATIENCE).await;
    }

    #[tokio::test]
    async fn a_server_that_dies_is_started_again() {
        let machine = Machine::new();
        let server = machine.server();
        let tasks = keep(&server);
        server.ready().await.unwrap();
        let first = machine.running().unwrap();
        let mut state = server.state.subscribe();
        first.kill();
        let listens_again = async {
            state.wait_for(|state| *state == State::Starting).await.unwrap();
            state.wait_for(|state| *state == State::Listening).await.unwrap();
        };
        tokio::time::timeout(PATIENCE, listens_again).await.expect("it is started again");
        assert_ne!(machine.running().unwrap().pid(), first.pid());
        tasks.stop(PATIENCE).await;
    }

    #[tokio::test]
    async fn whoever_can_not_be_let_in_is_told_why() {
        let machine = Machine::new();
        machine.program("sshd", "echo line 7: Bad configuration >&2; exit 255");
        let server = machine.server();
        let tasks = keep(&server);
        let error = server.ready().await.unwrap_err().to_string();
        assert!(error.contains("line 7: Bad configuration"), "{error}");
        tasks.stop(PATIENCE).await;
        fs::remove_file(machine.path("bin/sshd")).unwrap();
        let server = Arc::new(SshServer {
            place: Place { programs: machine.path("bin").into(), ..Arc::into_inner(server).unwrap().place },
            addresses: vec![],
            state: watch::channel(State::Starting).0,
        });
        let tasks = keep(&server);
        let error = server.ready().await.unwrap_err().to_string();
        assert!(error.contains("no SSH server"), "{error}");
        tasks.stop(PATIENCE).await;
    }
}
