//! The file of those who may speak on the bus, for the NATS server beside this replica.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use agent_client_nats::users::authorization;
use anyhow::Context as _;
use model::AgentId;
use rustix::process::{Pid, Signal, kill_process};
use state::State;
use state::log::CommandLog as _;
use tracing::{info, warn};

use super::AGAIN;
use crate::config::NatsConfig;
use crate::files::write_private;
use crate::fleet::log::RaftLog;

/// How long changes are gathered: looking at all VMs costs something, and an agent that is not let in tries again.
const GATHER: Duration = Duration::from_secs(1);

/// Returns the agents of BOSH's whose VMs there are, or may be: a VM is in the state before it is created.
pub fn authorised(log: &RaftLog) -> BTreeSet<AgentId> {
    let view = log.view();
    let vms = State::new(&*view).all_vms().into_iter();
    vms.filter(|vm| vm.stemcell.has_bosh_s_agent()).map(|vm| vm.agent).collect()
}

/// Writes the file whenever somebody comes or goes, and tells the server.
pub async fn keep(config: &NatsConfig, log: RaftLog) {
    let Some(file) = &config.users_file else { return };
    let (mut seen, mut written) = (log.revision(), None);
    loop {
        let agents = authorised(&log);
        if written.as_ref() != Some(&agents) {
            match write(file, config.server_pid_file.as_deref(), &agents) {
                Ok(()) => {
                    info!(agents = agents.len(), "who may speak on NATS is written");
                    written = Some(agents);
                }
                Err(error) => {
                    warn!(error = format!("{error:#}"), "who may speak on NATS is not written");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
        }
        seen = log.changed(seen).await;
        tokio::time::sleep(GATHER).await;
    }
}

/// Writes the file, and has the server read it.
fn write(file: &Path, server_pid_file: Option<&Path>, agents: &BTreeSet<AgentId>) -> anyhow::Result<()> {
    let text = authorization(agents);
    let written = write_private(file, text.as_bytes());
    // The server may run as another user. There are no secrets in it.
    let written = written.and_then(|()| std::fs::set_permissions(file, Permissions::from_mode(0o644)));
    written.with_context(|| format!("write `{}`", file.display()))?;
    let Some(pid_file) = server_pid_file else { return Ok(()) };
    let text = match std::fs::read_to_string(pid_file) {
        Ok(text) => text,
        // It does not run: it reads the file when it starts.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read `{}`", pid_file.display())),
    };
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.with_context(|| format!("`{}` names no process", pid_file.display()))?;
    kill_process(pid, Signal::HUP).context("tell the NATS server to read its users again")
}
