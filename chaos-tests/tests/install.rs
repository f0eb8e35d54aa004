//! What `deploy/install.sh` leaves behind: units that systemd understands, and configurations that a replica runs with, as
//! the user whom the unit names.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::SETTLE;
use chaos_tests::needs::{self, Need};
use chaos_tests::processes::Process;
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
}

impl Installed {
    fn new(root: &Path) -> Result<Self> {
        install(root, &["--local-fleet", "1"])?;
        let (data, config) = (root.join("var"), root.join("root/etc/directord/director-1.toml"));
        fs::create_dir(&data)?;
        chown(&data, Some(NOBODY), Some(NOBODY))?;
        let text = fs::read_to_string(&config)?
            .replace("/var/lib/directord", data.to_str().context("UTF-8")?)
            .replace("/usr/bin/dagent", root.join("root/usr/bin/dagent").to_str().context("UTF-8")?)
            .replace("isolation = \"auto\"", "isolation = \"process\"");
        fs::write(&config, text)?;
        Ok(Self { root: root.to_owned(), config })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.root.join("root/usr/bin/directord"));
        command.args(arguments).arg("--config").arg(&self.config).current_dir("/").stdin(Stdio::null());
        command
    }
}

#[tokio::test]
async fn an_installed_replica_runs_as_the_user_of_its_service() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
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

    let profile = folder.path().join("var/profile.json");
    let init = installed
        .command(&["init", "--profile", profile.to_str().context("UTF-8")?])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()?;
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let log = fs::File::create(folder.path().join("log"))?;
    let mut run = installed.command(&["run"]);
    let child = run.uid(NOBODY).gid(NOBODY).stdout(log.try_clone()?).stderr(log).spawn()?;
    let mut process = Process::new("director-1", child);
    let answered = wait::until_true("it answers", SETTLE, async || {
        ensure!(process.is_alive(), "{}", fs::read_to_string(folder.path().join("log"))?);
        Ok(TcpStream::connect("127.0.0.1:25555").await.is_ok() && {
            let status = Command::new(folder.path().join("root/usr/bin/dctl"))
                .env("DCTL_PROFILE", &profile)
                .args(["cluster", "status"])
                .output()?;
            status.status.success() && String::from_utf8_lossy(&status.stdout).contains("leader")
        })
    })
    .await;
    answered.with_context(|| fs::read_to_string(folder.path().join("log")).unwrap_or_default())?;
    process.terminate(SETTLE).await
}
