//! The users that operators log in as, each for one session.
//!
//! Only users whose names begin with [`PREFIX`] are ever made or removed, whatever a director asks for.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;
use nix::unistd::{Gid, Uid, chown};
use regex::Regex;

use super::sessions::Sessions;
use crate::children;
use crate::error::ActionError;

/// What the names of operators' users begin with.
pub(crate) const PREFIX: &str = "bosh_";

/// Groups that an operator joins, as far as the stemcell has them: those who may become root among them.
const GROUPS: [&str; 4] = ["vcap", "admin", "bosh_sudoers", "bosh_sshers"];

/// Where users are filed, and the programs that file them.
#[derive(Debug)]
pub(super) struct Users {
    pub passwd: PathBuf,
    pub group: PathBuf,
    pub host_key: PathBuf,
    pub proc: PathBuf,
    /// Where `useradd` and its like are.
    pub programs: OsString,
}

impl Default for Users {
    fn default() -> Self {
        Self {
            passwd: "/etc/passwd".into(),
            group: "/etc/group".into(),
            host_key: "/etc/ssh/ssh_host_rsa_key.pub".into(),
            proc: "/proc".into(),
            programs: "/usr/sbin:/usr/bin:/sbin:/bin".into(),
        }
    }
}

/// A line of `passwd`.
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl Users {
    /// Makes a user who may log in with this key, and returns by which key the machine is known. A user who is there with the
    /// same key is left as it is: a repeat of what an agent did not get to answer. One with another key is an error.
    pub async fn add(&self, name: &str, public_key: &str, homes: &Path) -> Result<String, ActionError> {
        let host_key = fs::read_to_string(&self.host_key).map_err(|error| {
            let path = self.host_key.display();
            ActionError::failed(format!("this machine has no SSH host key: cannot read `{path}`: {error}"))
        })?;
        if self.find(name)?.is_none() {
            fs::create_dir_all(homes).map_err(ActionError::file("create", homes))?;
            let base = homes.display().to_string();
            self.run("useradd", &["-m", "-b", &base, "-s", "/bin/bash", name]).await?;
        }
        let missing = || ActionError::failed(format!("user `{name}` was made, and is not there"));
        let user = self.find(name)?.ok_or_else(missing)?;
        if !user.home.starts_with(homes) {
            return Err(ActionError::failed(format!("user `{name}` is there, and is not an operator's")));
        }
        let keys = user.home.join(".ssh/authorized_keys");
        match fs::read_to_string(&keys) {
            Ok(there) if there.trim_end() == public_key => return Ok(host_key),
            Ok(_) => return Err(ActionError::failed(format!("user `{name}` is there, with another key"))),
            Err(_) => {}
        }
        let groups = self.groups()?;
        if !groups.is_empty() {
            self.run("usermod", &["-G", &groups.join(","), name]).await?;
        }
        user.authorize(public_key)?;
        Ok(host_key)
    }

    /// Removes the operators' users whose names match, and ends their sessions. None is fine, too.
    pub async fn remove(&self, names: &Regex) -> Result<(), ActionError> {
        let all = self.all()?;
        let chosen = all.iter().filter(|user| is_operators(&user.name) && names.is_match(&user.name));
        let mut failed = Ok(());
        for user in chosen {
            // One that can't be removed keeps nobody else here.
            failed = failed.and(self.remove_one(user, &all).await);
        }
        failed
    }

    fn all(&self) -> Result<Vec<User>, ActionError> {
        let text = fs::read_to_string(&self.passwd).map_err(ActionError::file("read", &self.passwd))?;
        Ok(text.lines().filter_map(user).collect())
    }

    fn find(&self, name: &str) -> Result<Option<User>, ActionError> {
        Ok(self.all()?.into_iter().find(|user| user.name == name))
    }

    /// Returns those of [`GROUPS`] that there are.
    fn groups(&self) -> Result<Vec<&'static str>, ActionError> {
        let text = fs::read_to_string(&self.group).map_err(ActionError::file("read", &self.group))?;
        let known: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).collect();
        Ok(GROUPS.into_iter().filter(|group| known.contains(group)).collect())
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<(), ActionError> {
        children::run(program, arguments, &self.programs).await
    }

    /// Removes a user. Nobody gets in as it any more before whoever is in is put out.
    async fn remove_one(&self, user: &User, all: &[User]) -> Result<(), ActionError> {
        self.run("usermod", &["-e", "1", &user.name]).await?;
        // A number that others have, too, says nothing about whose a process is.
        let is_its_own = user.uid != 0 && all.iter().filter(|other| other.uid == user.uid).count() == 1;
        let sessions = Sessions { proc: &self.proc, name: &user.name, uid: is_its_own.then_some(user.uid) };
        sessions.end().await?;
        self.run("userdel", &["-r", "-f", &user.name]).await?;
        // Whoever was let in by a server that had looked before we did.
        sessions.end().await
    }
}

impl User {
    /// Gives the user a key. Nobody has been able to log in before, so nothing in the home is the user's own.
    fn authorize(&self, public_key: &str) -> Result<(), ActionError> {
        let folder = self.home.join(".ssh");
        let keys = folder.join("authorized_keys");
        fs::create_dir_all(&folder).map_err(ActionError::file("create", &folder))?;
        for folder in [&self.home, &folder] {
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(folder, private).map_err(ActionError::file("protect", folder))?;
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(O_NOFOLLOW);
        // Whole under another name first: who finds it later finds the key, or nothing.
        let unfinished = folder.join(".authorized_keys");
        let _ = fs::remove_file(&unfinished);
        let mut file = options.open(&unfinished).map_err(ActionError::file("create", &unfinished))?;
        writeln!(file, "{public_key}").map_err(ActionError::file("write", &unfinished))?;
        for path in [&folder, &unfinished] {
            chown(path, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
                .map_err(|errno| ActionError::file("give", path)(errno.into()))?;
        }
        fs::rename(&unfinished, &keys).map_err(ActionError::file("write", &keys))
    }
}

/// Returns whether a name is one of an operator's user, and of no other.
pub(crate) fn is_operators(name: &str) -> bool {
    /// What `useradd` takes.
    const NAME_BYTES_MAX: usize = 32;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let own = name.strip_prefix(PREFIX).unwrap_or_default();
    !own.is_empty() && name.len() <= NAME_BYTES_MAX && own.bytes().all(plain)
}

fn user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
    Some(User { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3Nz operator";

    /// A machine with three users and programs that file others as the real ones do.
    struct Machine {
        folder: tempfile::TempDir,
        users: Users,
    }

    impl Machine {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::write(
                at("passwd"),
                "root:x:0:0::/root:/bin/sh\nbosh:x:1:1::/bosh:/bin/sh\nvcap:x:2:2::/v:\n",
            )
            .unwrap();
            fs::write(at("group"), "root:x:0:\nvcap:x:2:\nbosh_sudoers:x:3:\n").unwrap();
            fs::write(at("host.pub"), "ssh-rsa HOST\n").unwrap();
            let passwd = at("passwd").display().to_string();
            let log = format!("echo \"$(basename $0) $*\" >> {}", at("log").display());
            for (program, deed) in [
                ("useradd", format!("mkdir -p $3/$6; echo $6:x:$(id -u):$(id -g)::$3/$6:$5 >> {passwd}")),
                ("usermod", String::new()),
                ("userdel", format!("sed -i \"/^$3:/d\" {passwd}")),
            ] {
                let path = at(program);
                fs::write(&path, format!("#!/bin/sh\nset -e\n{log}\n{deed}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            let programs = format!("{}:/usr/bin:/bin", folder.path().display()).into();
            let (passwd, group, host_key) = (at("passwd"), at("group"), at("host.pub"));
            let proc = at("proc");
            fs::create_dir(&proc).unwrap();
            Self { users: Users { passwd, group, host_key, proc, programs }, folder }
        }

        fn log(&self) -> Vec<String> {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            log.lines().map(str::to_owned).collect()
        }

        fn homes(&self) -> PathBuf {
            self.folder.path().join("homes")
        }

        async fn add(&self, name: &str, key: &str) -> Result<String, ActionError> {
            self.users.add(name, key, &self.homes()).await
        }

        fn names(&self) -> Vec<String> {
            self.users.all().unwrap().into_iter().map(|user| user.name).collect()
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_user_gets_a_home_a_key_and_the_groups_that_there_are() {
        let machine = Machine::new();
        assert_eq!(machine.add("bosh_1a", KEY).await.unwrap(), "ssh-rsa HOST\n");
        let home = machine.homes().join("bosh_1a");
        let keys = home.join(".ssh/authorized_keys");
        assert_eq!(fs::read_to_string(&keys).unwrap(), format!("{KEY}\n"));
        assert_eq!((mode(&home), mode(&home.join(".ssh")), mode(&keys)), (0o700, 0o700, 0o600));
        let homes = machine.homes().display().to_string();
        let once = [
            format!("useradd -m -b {homes} -s /bin/bash bosh_1a"),
            "usermod -G vcap,bosh_sudoers bosh_1a".to_owned(),
        ];
        assert_eq!(machine.log(), once);
        machine.add("bosh_1a", KEY).await.unwrap();
        assert_eq!(machine.log(), once, "a repeat does nothing");
        let other = machine.add("bosh_1a", "ssh-ed25519 BBBB").await.unwrap_err().to_string();
        assert!(other.contains("with another key"), "{other}");
    }

    #[tokio::test]
    async fn an_interrupted_setup_is_gone_on_with() {
        let machine = Machine::new();
        machine
            .users
            .run(
                "useradd",
                &["-m", "-b", &machine.homes().display().to_string(), "-s", "/bin/bash", "bosh_1a"],
            )
            .await
            .unwrap();
        machine.add("bosh_1a", KEY).await.unwrap();
        assert!(machine.homes().join("bosh_1a/.ssh/authorized_keys").exists());
    }

    #[tokio::test]
    async fn only_operators_users_are_removed_and_all_that_match() {
        let machine = Machine::new();
        for name in ["bosh_1a", "bosh_2b", "bosh_1c"] {
            machine.add(name, KEY).await.unwrap();
        }
        machine.users.remove(&Regex::new("^bosh_1").unwrap()).await.unwrap();
        assert_eq!(machine.names(), ["root", "bosh", "vcap", "bosh_2b"]);
        let last = &machine.log()[machine.log().len() - 2..];
        assert_eq!(last, ["usermod -e 1 bosh_1c", "userdel -r -f bosh_1c"], "nobody gets in meanwhile");
        machine.users.remove(&Regex::new(".*").unwrap()).await.unwrap();
        assert_eq!(machine.names(), ["root", "bosh", "vcap"]);
        machine.users.remove(&Regex::new(".*").unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_machine_without_sshd_says_so_and_makes_nobody() {
        let machine = Machine::new();
        fs::remove_file(machine.folder.path().join("host.pub")).unwrap();
        let error = machine.add("bosh_1a", KEY).await.unwrap_err().to_string();
        assert!(error.contains("no SSH host key"), "{error}");
        assert_eq!(machine.log(), [""; 0]);
    }

    #[test]
    fn names_are_those_of_operators_only() {
        for (name, expect) in [
            ("bosh_a8653e759f6a4bd", true),
            ("bosh_", false),
            ("bosh", false),
            ("root", false),
            ("bosh_a b", false),
            ("bosh_a/../b", false),
            ("bosh_A", false),
            ("bosh_a:0:0", false),
            ("-r bosh_a", false),
            ("bosh_0123456789012345678901234567", false),
        ] {
            assert_eq!(is_operators(name), expect, "{name}");
        }
    }
}
