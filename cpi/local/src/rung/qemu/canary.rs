//! Whether the processor helps: only where a kernel has been seen to boot with its help.
//!
//! That `/dev/kvm` opens means little: there are hosts on which it does, and no kernel ever gets to its first program. So one is
//! booted, to a single line, before the first machine is; the answer holds for that kernel, that QEMU, and until the host is
//! booted again.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cpi_host::records::{self, Durability};
use cpi_host::{HostError, Scope};
use serde::{Deserialize, Serialize};

use super::image::BootFiles;
use super::{PROGRAM, version};
use crate::cloud::Cloud;
use crate::process::ProcessId;

/// How long a kernel may take to its first program. With help it takes a second.
const SINGS_WITHIN: Duration = Duration::from_secs(10);
/// What it says then.
const SONG: &str = "directorate-canary";
/// Where the answer is kept in the cloud's folder.
const KEPT: &str = "accelerator.json";

/// Who runs a machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, by translating them: ten to thirty times slower.
    Tcg,
}

/// An answer and what it holds for.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    boot: u64,
    qemu: String,
    kernel: PathBuf,
    accelerator: Accelerator,
    why: String,
}

impl Accelerator {
    /// Returns it as QEMU's arguments.
    pub fn arguments(self) -> &'static str {
        match self {
            Self::Kvm => "-accel kvm -cpu host",
            // Without a bound, what was translated grows until it takes more than the machine.
            Self::Tcg => "-accel tcg,thread=multi,tb-size=64 -cpu max",
        }
    }
}

/// Returns who is to run a machine that boots these files.
pub(super) fn accelerator(cloud: &Cloud, scope: &Scope, boot: &BootFiles) -> Result<Accelerator, HostError> {
    if !cloud.options.kvm {
        return Ok(Accelerator::Tcg);
    }
    let path = cloud.store.root().join(KEPT);
    let _lock = cloud.store.lock("accelerator.lock", scope)?;
    let qemu = version().unwrap_or_default();
    let holds = |answer: &Answer| {
        answer.boot == ProcessId::boot_now() && answer.qemu == qemu && answer.kernel == boot.kernel
    };
    if let Some(answer) = records::read::<Answer>(&path)?.filter(holds) {
        return Ok(answer.accelerator);
    }
    let (accelerator, why) = match sings(boot) {
        Ok(()) => (Accelerator::Kvm, "a kernel booted with KVM".to_owned()),
        Err(why) => (Accelerator::Tcg, why),
    };
    tracing::info!(?accelerator, why, "machines by QEMU");
    let answer = Answer { boot: ProcessId::boot_now(), qemu, kernel: boot.kernel.clone(), accelerator, why };
    records::write(&path, &answer, Durability::UntilReboot)?;
    Ok(accelerator)
}

/// Says what is known of the cloud in `root`, for people.
pub(super) fn known(root: &Path) -> String {
    match records::read::<Answer>(&root.join(KEPT)) {
        Ok(Some(Answer { accelerator: Accelerator::Kvm, why, .. })) => format!("with KVM: {why}"),
        Ok(Some(Answer { accelerator: Accelerator::Tcg, why, .. })) => format!("without KVM, so slow: {why}"),
        Ok(None) | Err(_) => match openable() {
            Ok(()) => "/dev/kvm opens; the first machine will show whether a kernel boots with it".into(),
            Err(why) => format!("without KVM, so slow: {why}"),
        },
    }
}

fn openable() -> Result<(), String> {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| format!("/dev/kvm: {error}"))
}

/// Boots a kernel with KVM to its first line, or says why it did not come to that.
fn sings(boot: &BootFiles) -> Result<(), String> {
    openable()?;
    let arguments = "-nodefaults -no-user-config -display none -machine q35 -m 256 -no-reboot -serial stdio";
    let mut qemu = Command::new("timeout")
        .args(["--signal=KILL", &SINGS_WITHIN.as_secs().to_string(), PROGRAM])
        .args(arguments.split(' ').chain(Accelerator::Kvm.arguments().split(' ')))
        .arg("-kernel")
        .arg(&boot.kernel)
        .arg("-initrd")
        .arg(&boot.initrd)
        .args(["-append", "console=ttyS0 panic=-1 directorate.canary"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("timeout: {error}"))?;
    let mut said = String::new();
    if let Some(mut serial) = qemu.stdout.take() {
        let mut bytes = Vec::new();
        // Ends with QEMU, which `timeout` ends.
        let _ = serial.read_to_end(&mut bytes);
        said = String::from_utf8_lossy(&bytes).into_owned();
    }
    let output = qemu.wait_with_output().map_err(|error| format!("{PROGRAM}: {error}"))?;
    if said.contains(SONG) {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().next_back().unwrap_or("it was silent");
    Err(format!("no kernel boots with KVM here: {last}"))
}
