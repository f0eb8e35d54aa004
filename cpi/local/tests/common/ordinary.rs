//! Runs tests again as an ordinary user, where they were started by root.
//!
//! The user exists only for them: in a mount namespace of their own, with a passwd file and ranges of ids of their own in the
//! place of the machine's, which stays as it was.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]
#![allow(dead_code, reason = "each test file is a crate of its own and uses what it needs")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user's number and name.
const USER: (u32, &str) = (61_803, "directorate-test");
/// The first of its further ids; nobody else's, most likely.
const FIRST_ID: u32 = 1_879_048_192;
/// Set where root runs the same tests, too.
const ROOT_RUNS_THEM_TOO: &str = "DIRECTORATE_TESTS_OF_ROOT_TOO";
/// Exit code of a run that could not be.
const SKIPPED: i32 = 77;

/// Puts the user's files in the place of the machine's and becomes the user.
const SCRIPT: &str = r#"
skip() { echo "skipped: $1"; exit 77; }
etc=$1; programs=$2; shift 2
for file in passwd group subuid subgid; do
  mount --bind "$etc/$file" "/etc/$file" || skip "/etc/$file can't be replaced for a moment"
done
# A machine with a partition of its own there.
mount --bind /usr/local /usr/local
command -v newuidmap > /dev/null || skip "there is no newuidmap (apt-get install uidmap)"
become="setpriv --reuid USER --regid USER --clear-groups --pdeathsig KILL"
for program in "$1" $programs; do
  $become test -x "$program" || skip "an ordinary user can't run $program"
done
exec $become "$@"
"#;

/// Returns whether it is an ordinary user who runs this test. If it is root, [`run_the_others`] has it run again.
pub fn does_it() -> bool {
    !nix::unistd::geteuid().is_root()
}

/// Returns whether root runs the same tests, so that nobody has to tell that it takes root.
pub fn root_does_it_too() -> bool {
    std::env::var_os(ROOT_RUNS_THEM_TOO).is_some()
}

/// Runs the other tests of this file as an ordinary user, who must be able to run `programs`. `own_name` is the test that asks
/// for it.
pub fn run_the_others(own_name: &str, programs: &[PathBuf]) {
    run_again(&["--skip", own_name], programs);
}

/// Runs tests of this file as an ordinary user, those that `chosen` leaves of them. The user must be able to run `programs`.
///
/// Does nothing where an ordinary user runs them anyway.
pub fn run_again(chosen: &[&str], programs: &[PathBuf]) {
    if does_it() {
        return;
    }
    let programs: Vec<_> = programs.iter().map(|program| program.display().to_string()).collect();
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let etc = scratch.path().join("etc");
    fs::create_dir(&etc).unwrap();
    let (uid, name) = USER;
    let home = scratch.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(uid), Some(uid)).unwrap();
    let read = |file: &str| fs::read_to_string(Path::new("/etc").join(file)).unwrap();
    let ids = format!("{name}:{FIRST_ID}:65536\n");
    let passwd = format!("{}{name}:x:{uid}:{uid}::{}:/bin/sh\n", read("passwd"), home.display());
    let files = [
        ("passwd", passwd),
        ("group", format!("{}{name}:x:{uid}:\n", read("group"))),
        ("subuid", ids.clone()),
        ("subgid", ids),
    ];
    for (file, content) in files {
        fs::write(etc.join(file), content).unwrap();
    }
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &SCRIPT.replace("USER", &uid.to_string()), "sh"])
        .arg(&etc)
        .arg(programs.join(" "))
        .arg(std::env::current_exe().unwrap())
        .args(["--nocapture", "--test-threads=2"])
        .args(chosen)
        .env(ROOT_RUNS_THEM_TOO, "1")
        .env("TMPDIR", &home)
        .env("HOME", &home)
        .current_dir(&home)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return println!("skipped: unshare: {error}"),
    };
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    println!("{}{}", said[0], said[1]);
    assert!(
        output.status.success() || output.status.code() == Some(SKIPPED),
        "an ordinary user's tests fail"
    );
    assert!(!said[0].contains("running 0 tests"), "there is no test that {chosen:?} leaves");
    // Nobody here can remove what the user's VMs have left but us: so they must have left nothing.
    let left: Vec<_> = fs::read_dir(&home).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
