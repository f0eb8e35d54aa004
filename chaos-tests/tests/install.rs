//! What `deploy/install.sh` leaves behind: units that systemd understands, and configurations that a replica runs with, as
//! the user whom the unit names.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{SETTLE, free_ports};
use chaos_tests::needs::{self, Need};
use chaos_tests::processes::{Process, all_of, end_all_of};
use chaos_tests::workload::{Hello, Net, ReleaseFolder, build_stemcell, cloud_config};
use chaos_tests::{programs, wait};
use tokio::net::TcpStream;

/// Installs into a folder, from the programs under test.
fn install(root: &Path, arguments: &[&str]) -> Result<()> {
    let from = root.join("from");
    fs::create_dir_all(&from)?;
    for (name, path) in
        [("directord", programs::directord()), ("dagent", programs::dagent()), ("dctl", programs::dctl())]
    {
        fs::copy(path, from.join(name))?;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install.sh");
    let mut command = Command::new(script);
    command.arg("--from").arg(&from).args(arguments).env("DESTDIR", root.join("root"));
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Has systemd look at a unit, with its drop-in if there is one, as it will be once it is where it belongs.
fn verify(root: &Path) -> Result<()> {
    let unit = root.join("root/usr/lib/systemd/system/directord@.service");
    let text = fs::read_to_string(&unit)?;
    // The program is not in /usr/bin of this machine.
    let text = text.replace("ExecStart=/usr/bin/", &format!("ExecStart={}/root/usr/bin/", root.display()));
    let looked_at = root.join("directord@.service");
    fs::write(&looked_at, text)?;
    let dropin = root.join("root/etc/systemd/system/directord@.service.d");
    if dropin.is_dir() {
        fs::create_dir_all(root.join("directord@.service.d"))?;
        fs::copy(dropin.join("local-cloud.conf"), root.join("directord@.service.d/local-cloud.conf"))?;
    }
    let output = Command::new("systemd-analyze").arg("verify").arg(&looked_at).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("directord")).collect();
    ensure!(ours.is_empty(), "{ours:#?}");
    Ok(())
}

#[test]
fn systemd_understands_what_is_installed() -> Result<()> {
    if !needs::met(&[Need::SystemdAnalyze]) {
        return Ok(());
    }
    for arguments in [&[][..], &["--local-fleet", "3"]] {
        let folder = tempfile::tempdir()?;
        install(folder.path(), arguments)?;
        verify(folder.path())?;
        let etc = folder.path().join("root/etc/directord");
        let configurations = fs::read_dir(&etc)?.count();
        assert_eq!(configurations, if arguments.is_empty() { 1 } else { 3 });
        let mode = fs::metadata(etc.join("director-1.toml"))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "the service's user reads it");
        // What an operator has written is not overwritten.
        fs::write(etc.join("director-1.toml"), "mine")?;
        install(folder.path(), arguments)?;
        assert_eq!(fs::read_to_string(etc.join("director-1.toml"))?, "mine");
    }
    Ok(())
}

/// Everybody has this user, and nothing belongs to it.
const NOBODY: u32 = 65534;

/// A replica of an installed fleet, with the paths of the installation in a folder of this test.
struct Installed {
    root: PathBuf,
    config: PathBuf,
    api: String,
}

impl Installed {
    fn new(root: &Path) -> Result<Self> {
        install(root, &["--local-fleet", "1"])?;
        let (data, config) = (root.join("var"), root.join("root/etc/directord/director-1.toml"));
        fs::create_dir(&data)?;
        chown(&data, Some(NOBODY), Some(NOBODY))?;
        let mut text = fs::read_to_string(&config)?
            .replace("/var/lib/directord", data.to_str().context("UTF-8")?)
            .replace("/usr/bin/dagent", root.join("root/usr/bin/dagent").to_str().context("UTF-8")?)
            .replace("isolation = \"auto\"", "isolation = \"process\"");
        // A fleet may be installed on this very machine.
        let ports = free_ports()?;
        for (installed, free) in (25_555..).zip(ports) {
            let (installed, free) = (format!("127.0.0.1:{installed}"), format!("127.0.0.1:{free}"));
            ensure!(text.contains(&installed), "{installed} is not in {text}");
            text = text.replace(&installed, &free);
        }
        fs::write(&config, text)?;
        Ok(Self { root: root.to_owned(), config, api: format!("127.0.0.1:{}", ports[0]) })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.root.join("root/usr/bin/directord"));
        command.args(arguments).arg("--config").arg(&self.config).current_dir("/").stdin(Stdio::null());
        command
    }

    /// Where `init` leaves the admin's login.
    fn profile(&self) -> PathBuf {
        self.root.join("var/profile.json")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.join("log")).unwrap_or_default()
    }

    /// Starts it as its service does.
    fn run(&self) -> Result<Process> {
        let log = fs::File::create(self.root.join("log"))?;
        let mut run = self.command(&["run"]);
        let child = run.uid(NOBODY).gid(NOBODY).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Process::new("director-1", child))
    }

    /// Runs `dctl` to its end, which must be a good one; returns what it printed.
    fn operate(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.root.join("root/usr/bin/dctl"));
        command.env("DCTL_PROFILE", self.profile()).arg("--yes").args(arguments).stdin(Stdio::null());
        let output = command.output()?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "dctl {}:\n{stdout}{stderr}\n{}", arguments.join(" "), self.log());
        Ok(stdout.into_owned())
    }

    /// Writes a file for `dctl`.
    fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.root.join(name);
        fs::write(&path, text)?;
        path.to_str().map(str::to_owned).context("UTF-8")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // VMs outlive the replica, also that of a test that fails.
        end_all_of(&self.root);
    }
}

#[tokio::test]
async fn an_installed_replica_runs_as_the_user_of_its_service() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let installed = Installed::new(folder.path())?;
    let data = folder.path().join("var/director-1");
    fs::create_dir(&data)?;
    chown(&data, Some(NOBODY), Some(NOBODY))?;
    // As root, `init` would leave a key that the service can't read.
    let as_root = installed.command(&["init"]).output()?;
    let said = String::from_utf8_lossy(&as_root.stderr);
    assert!(!as_root.status.success() && said.contains("belongs to nobody"), "{said}");

    let profile = installed.profile();
    let init = installed
        .command(&["init", "--profile", profile.to_str().context("UTF-8")?])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()?;
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let mut process = installed.run()?;
    let answered = wait::until_true("it answers", SETTLE, async || {
        ensure!(process.is_alive(), "{}", installed.log());
        Ok(TcpStream::connect(&installed.api).await.is_ok()
            && installed.operate(&["cluster", "status"])?.contains("leader"))
    })
    .await;
    answered.with_context(|| installed.log())?;
    deploy_and_delete(&installed)?;
    process.terminate(SETTLE).await
}

/// Has VMs made, by nobody and as nobody, and has them go again.
fn deploy_and_delete(installed: &Installed) -> Result<()> {
    let root = &installed.root;
    // Other tests' VMs have addresses in 127.2.0.0/16 and above.
    let config = installed.file("cloud-config.yml", &cloud_config(Net::Loopback(1)))?;
    let hello = installed.file("hello.yml", &Hello::default().manifest())?;
    let (stemcell, release) = (build_stemcell(root)?, ReleaseFolder::copy_of_hello(root)?.archive()?);
    installed.operate(&["update-cloud-config", &config])?;
    installed.operate(&["upload-stemcell", stemcell.to_str().context("UTF-8")?])?;
    installed.operate(&["upload-release", release.to_str().context("UTF-8")?])?;
    installed.operate(&["-d", "hello", "deploy", &hello])?;
    let instances = installed.operate(&["-d", "hello", "instances"])?;
    assert_eq!(instances.matches("running").count(), 2, "{instances}");

    let cloud = root.join("var/cloud/vms");
    assert_eq!(fs::read_dir(&cloud)?.count(), 2, "a VM for each instance");
    let of_vms = all_of(&cloud);
    assert!(of_vms.len() >= 2, "{of_vms:?}");
    for pid in of_vms {
        let owner = fs::metadata(format!("/proc/{pid}"))?.uid();
        assert_eq!(owner, NOBODY, "process {pid} of a VM is somebody else's");
    }
    installed.operate(&["-d", "hello", "delete-deployment"])?;
    assert_eq!(fs::read_dir(&cloud)?.count(), 0, "no VM is left");
    let left = all_of(&cloud);
    assert!(left.is_empty(), "processes of deleted VMs: {left:?}");
    Ok(())
}
