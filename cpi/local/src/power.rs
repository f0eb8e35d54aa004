//! Bringing a VM up and down: the processes behind a record.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cpi_api::CpiErrorKind;
use cpi_host::records::{self, Durability};
use cpi_host::{HostError, Scope};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cloud::Cloud;
use crate::helper::{AGENT_INSIDE, LaunchSpec, Started, VCAP};
use crate::network::has_own_network;
use crate::process::marked;
use crate::record::{VmProcesses, VmRecord};
use crate::rung::{self, Rung};
use crate::{settings, vm};

/// Environment variable that marks the processes of a VM.
const MARK: &str = "DIRECTORATE_VM";

/// Starts a VM's processes and waits until its agent runs, or its kernel. On an error something may be left: [`down`] it.
pub(crate) fn up(cloud: &Cloud, vm: &mut VmRecord, scope: &Scope) -> Result<(), HostError> {
    let way_in = match vm.rung {
        Rung::UserNamespaces => Some(rung::user_namespaces::way_in(cloud, scope)?),
        _ => None,
    };
    let spec = match vm.rung {
        Rung::Qemu => rung::qemu::prepare(cloud, vm, scope)?,
        _ => LaunchSpec { lab: way_in.as_ref().map(|way_in| way_in.spec(vm)), ..launch_spec(cloud, vm)? },
    };
    let mut reins = launch(cloud, vm, &spec)?;
    let line = reins.hear(scope)?;
    let started: Started = serde_json::from_str(&line).map_err(|_| failed(&line))?;
    vm.processes = Some(started.into());
    // Before `go`: until then the processes end by themselves if we die, from then on somebody must know them.
    cloud.store.put_vm(vm, Durability::UntilReboot)?;
    drop(way_in);
    if vm.rung == Rung::Qemu {
        reins.go()?;
        return rung::qemu::run(cloud, vm, scope);
    }
    if has_own_network(vm.rung) {
        rung::equip(cloud, vm, scope)?;
    }
    reins.go()?;
    match reins.hear(scope)?.as_str() {
        "ready" => Ok(()),
        line => Err(failed(line)),
    }
}

/// Ends a VM's processes, all of them, and waits for it. Idempotent.
pub(crate) fn down(cloud: &Cloud, vm: &mut VmRecord, scope: &Scope) -> Result<(), HostError> {
    if let Some(VmProcesses { supervisor, init }) = vm.processes {
        match has_own_network(vm.rung) {
            // Everything inside ends with the first process: it is the kernel that sees to it, or the machine itself.
            true => init.kill(scope).and_then(|()| supervisor.kill(scope))?,
            false => supervisor.kill_tree(scope)?,
        }
    }
    if has_own_network(vm.rung) {
        rung::unequip(cloud, vm, scope)?;
    } else {
        // The supervisor may have been killed by somebody else: then its tree has no root any more.
        for process in marked(&mark(cloud, vm), &cloud.store.vm_dir(&vm.cid)) {
            process.kill(scope)?;
        }
    }
    vm.processes = None;
    Ok(())
}

fn mark(cloud: &Cloud, vm: &VmRecord) -> String {
    format!("{MARK}={}", cloud.store.vm_dir(&vm.cid).display())
}

fn failed(line: &str) -> HostError {
    HostError::refused(CpiErrorKind::VmCreationFailed, format!("the VM did not start: {line}"))
}

/// A helper that waits for our word.
struct Reins {
    /// Dropping it without a word makes the helper end.
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
    console: PathBuf,
}

fn launch(cloud: &Cloud, vm: &VmRecord, spec: &LaunchSpec) -> Result<Reins, HostError> {
    let dir = cloud.store.vm_dir(&vm.cid);
    let (spec_path, console) = (dir.join("launch.json"), dir.join("console.log"));
    records::write(&spec_path, spec, Durability::UntilReboot)?;
    let errors = std::fs::File::options().create(true).append(true).open(&console);
    let errors = errors.map_err(HostError::os("open", &console))?;
    let [program, first_args @ ..] = cloud.options.helper.as_slice() else {
        return Err(HostError::refused(CpiErrorKind::VmCreationFailed, "no helper program is configured"));
    };
    let mut launcher: Child = Command::new(program)
        .args(first_args)
        .arg("launch")
        .arg(&spec_path)
        .current_dir(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(HostError::os("start helper", program))?;
    let pipes = launcher.stdin.take().zip(launcher.stdout.take());
    let (words, answers) = pipes.expect("both were asked for just now");
    // It starts the supervisor and ends; what matters comes through the pipes.
    launcher.wait().map_err(HostError::os("wait for helper", program))?;
    Ok(Reins { words, answers: BufReader::new(answers), console })
}

fn launch_spec(cloud: &Cloud, vm: &VmRecord) -> Result<LaunchSpec, HostError> {
    let dir = cloud.store.vm_dir(&vm.cid);
    let (agent, base, inside) = match has_own_network(vm.rung) {
        true => (AGENT_INSIDE.into(), VCAP.into(), Some(rung::inside(cloud, vm)?)),
        false => (cloud.options.dagent.clone(), vm::base_dir(cloud, vm), None),
    };
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Ok(LaunchSpec {
        helper_args: cloud.helper_args(),
        agent,
        agent_args: vec![
            "--settings".into(),
            settings::path(&base).to_string_lossy().into_owned(),
            "--base-dir".into(),
            base.to_string_lossy().into_owned(),
        ],
        agent_env: [("PATH", path.to_owned()), ("HOME", "/root".into()), (MARK, dir.display().to_string())]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        agent_dir: base,
        console: dir.join("console.log"),
        inside,
        lab: None,
        machine: None,
    })
}

impl Reins {
    /// Waits for the helper's next line.
    fn hear(&mut self, scope: &Scope) -> Result<String, HostError> {
        if !self.answers.buffer().contains(&b'\n') {
            self.wait_readable(scope)?;
        }
        let mut line = String::new();
        // Helpers write whole lines at once: readable means that one is there, or the end.
        self.answers.read_line(&mut line).map_err(HostError::os("hear from the helper of", &self.console))?;
        match line.trim_end() {
            "" => Err(failed(&format!("its first process ended; see {}", self.console.display()))),
            line => Ok(line.to_owned()),
        }
    }

    fn wait_readable(&self, scope: &Scope) -> Result<(), HostError> {
        let milliseconds = scope.time_left().as_millis().min(60_000) as u16;
        let mut wanted = [PollFd::new(self.answers.get_ref().as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::from(milliseconds)) {
            Ok(0) => {
                Err(HostError::refused(CpiErrorKind::TimedOut, "the VM's first process does not answer"))
            }
            Ok(_) => Ok(()),
            Err(errno) => Err(HostError::os("wait for the helper of", &self.console)(errno)),
        }
    }

    fn go(&mut self) -> Result<(), HostError> {
        self.words.write_all(b"go\n").map_err(HostError::os("start the VM of", &self.console))
    }
}
