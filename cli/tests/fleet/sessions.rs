//! `ssh`, `scp` and `logs --follow`: what is asked of directors and of OpenSSH, and that nobody is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use proto::v1::ssh_request::Command as Wish;
use proto::v1::*;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::director::{Director, Script, answer, parts};

const RESULT: &str = r#"[{"command":"setup","status":"success","ip":"10.0.0.2","host_public_key":"ssh-rsa AAAA\n","id":"u","index":0,"job":"web"}]
"#;

/// An operator's machine, with programs that only write down what they were asked.
struct Machine {
    folder: tempfile::TempDir,
    director: Director,
    asked: mpsc::Receiver<SshRequest>,
}

impl Machine {
    async fn new(ssh: &str) -> Self {
        let (say, asked) = mpsc::channel(8);
        let director = Director::start(Script {
            ssh: answer(move |request: SshRequest| {
                say.try_send(request).unwrap();
                Ok(TaskStarted { task_id: 7 })
            }),
            follow: answer(|request: FollowTaskRequest| {
                let content = if request.kind() == follow_task_request::Kind::Result { RESULT } else { "" };
                let piece = TaskOutput { data: content.as_bytes().to_vec().into(), ..TaskOutput::default() };
                let task = Task { id: 7, state: "done".into(), ..Task::default() };
                let last =
                    TaskOutput { offset: content.len() as u64, task: Some(task), ..TaskOutput::default() };
                Ok(parts(vec![Ok(piece), Ok(last)]))
            }),
            ..Script::default()
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let machine = Self { folder, director, asked };
        machine.program(
            "ssh-keygen",
            "for key; do :; done; echo secret > $key; echo ssh-ed25519 AAAA > $key.pub",
        );
        for name in ["ssh", "scp"] {
            let known = "for word; do case $word in UserKnownHostsFile=*) cat $(echo ${word#*=} | tr -d '\"');; esac; done";
            machine.program(name, &format!("{known} > {}\n{ssh}", machine.path("known").display()));
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, deed: &str) {
        let path = self.path(name);
        let log = self.path(&format!("{name}.log"));
        fs::write(&path, format!("#!/bin/sh\necho \"$*\" >> {}\n{deed}\n", log.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dctl"));
        let path = format!("{}:/usr/bin:/bin", self.folder.path().display());
        command.env_clear().env("PATH", path).env("TMPDIR", self.path("tmp")).kill_on_drop(true);
        command.args(["-e", &self.director.address(), "-d", "web"]).args(arguments).stdin(Stdio::null());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    fn log(&self, program: &str) -> String {
        fs::read_to_string(self.path(&format!("{program}.log"))).unwrap_or_default()
    }

    /// Returns the name of the user that was made and removed again, and of nobody else.
    fn one_user_came_and_went(&mut self) -> String {
        let made = self.asked.try_recv().unwrap();
        let Some(Wish::Setup(setup)) = made.command else { panic!("{made:?}") };
        assert_eq!(setup.public_key, "ssh-ed25519 AAAA\n");
        let removed = self.asked.try_recv().unwrap();
        assert_eq!(removed.instances, made.instances);
        let Some(Wish::Cleanup(cleanup)) = removed.command else { panic!("{removed:?}") };
        assert_eq!(cleanup.user_regex, format!("^{}$", setup.user));
        assert!(self.asked.try_recv().is_err());
        let left = fs::read_dir(self.path("tmp")).unwrap().count();
        assert_eq!(left, 0, "the key is gone");
        setup.user
    }
}

#[tokio::test]
async fn a_command_is_run_by_a_user_who_is_made_for_it() {
    let mut machine = Machine::new("echo from there; echo and beside it >&2").await;
    let output = machine.run(&["ssh", "web/0", "-c", "id", "--opts=-v"]).await;
    assert_eq!(String::from_utf8_lossy(&output.stderr), "and beside it\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from there\n");
    assert!(output.status.success());
    let user = machine.one_user_came_and_went();
    let line = machine.log("ssh");
    assert!(line.ends_with(&format!("-T -v -l {user} -- 10.0.0.2 id\n")), "{line}");
    assert_eq!(fs::read_to_string(machine.path("known")).unwrap(), "10.0.0.2 ssh-rsa AAAA\n");
}

#[tokio::test]
async fn a_command_that_fails_leaves_nobody_behind() {
    let mut machine = Machine::new("exit 3").await;
    let output = machine.run(&["ssh", "-c", "false"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("web/u ended with exit status: 3"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    machine.one_user_came_and_went();
}

#[tokio::test]
async fn who_is_interrupted_leaves_nobody_behind() {
    for signal in ["INT", "TERM", "HUP"] {
        let mut machine = Machine::new("touch $0.began; exec sleep 1000").await;
        let child =
            machine.command(&["logs", "-f", "web"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap();
        let began = machine.path("ssh.began");
        while !began.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let pid = child.id().unwrap().to_string();
        Command::new("/bin/kill").args(["-s", signal, &pid]).status().await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.trim()), (Some(130), "Error: interrupted"), "{signal}");
        machine.one_user_came_and_went();
        assert!(machine.log("ssh").contains("tail -n 10 -F"));
    }
}

#[tokio::test]
async fn files_go_there() {
    let mut machine = Machine::new("").await;
    let output = machine.run(&["scp", "-r", "here", "web/0:/tmp/there"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let user = machine.one_user_came_and_went();
    let line = machine.log("scp");
    assert!(line.ends_with(&format!("-r -- ./here {user}@10.0.0.2:/tmp/there\n")), "{line}");
    let nowhere = machine.run(&["scp", "here", "there"]).await;
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(machine.asked.try_recv().is_err(), "nobody is made for nothing");
}
