//! What opens machines for one command: a key of its own, and a user who has it. Both go with the command.

use std::fs::{self, DirBuilder};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use camino::Utf8PathBuf;
use proto::v1::follow_task_request::Kind as Output;
use proto::v1::instances_client::InstancesClient;
use proto::v1::ssh_request::Command as Wish;
use proto::v1::{SshCleanup, SshRequest, SshSetup};
use serde::Deserialize;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::line::{Gateway, Host};
use crate::args::InstanceSlug;
use crate::call;
use crate::client::request_id;
use crate::commands::Context;
use crate::commands::deployments::selector;
use crate::error::Error;
use crate::follow;

/// A folder for key and known hosts, which nobody else can look into. It goes when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("dctl-{}", uuid::Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::file("create", utf8(&path)))?;
        Ok(Self(path))
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn utf8(path: &Path) -> Utf8PathBuf {
    path.to_string_lossy().into_owned().into()
}

/// An answer of a machine, as it stands in the task's result.
#[derive(Deserialize)]
struct Told {
    status: String,
    ip: String,
    #[serde(default)]
    host_public_key: String,
    job: String,
    id: String,
    #[serde(default)]
    gateway_host: Option<String>,
    #[serde(default)]
    gateway_user: Option<String>,
}

/// What opens the machines.
pub(super) struct Door {
    pub folder: Folder,
    pub user: String,
    pub hosts: Vec<Host>,
}

/// Has a user made on the machines that are meant, does the deed, and has the user removed, however that ended.
pub(super) async fn open<T>(
    context: &mut Context<'_>,
    instances: Option<InstanceSlug>,
    deed: impl AsyncFnOnce(&mut Context<'_>, &Door) -> Result<T, Error>,
) -> Result<T, Error> {
    let deployment = context.deployment()?;
    let wish = |command: Wish| SshRequest {
        request_id: request_id(),
        deployment: deployment.clone(),
        instances: instances.clone().map(selector),
        command: Some(command),
    };
    let folder = Folder::create()?;
    let id = uuid::Uuid::new_v4().simple().to_string();
    // As long as BOSH's own CLI makes them.
    let user = format!("bosh_{}", &id[..15]);
    let public_key = make_key(folder.path()).await?;
    let setup = wish(Wish::Setup(SshSetup { user: user.clone(), public_key }));
    let ended = tokio::select! {
        ended = async {
            let hosts = set_up(context, setup).await?;
            let known: String = hosts.iter().map(|host| format!("{} {}\n", host.ip, host.key)).collect();
            let path = folder.path().join("known_hosts");
            fs::write(&path, known).map_err(Error::file("write", utf8(&path)))?;
            deed(context, &Door { folder, user: user.clone(), hosts }).await
        } => ended,
        interrupted = interrupted() => Err(interrupted.map_or_else(Error::Output, |()| Error::Interrupted)),
    };
    // Nobody waits for the task: the user may be out of reach just now, and is removed when it is not.
    let cleanup = wish(Wish::Cleanup(SshCleanup { user_regex: format!("^{user}$") }));
    let cleaned = call!(context.fleet, InstancesClient.ssh(cleanup)).await;
    match (ended, cleaned) {
        (Ok(done), Ok(_)) => Ok(done),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Ok(_)) => Err(error),
        (Err(error), Err(left)) => {
            let text = format!("user `{user}` was not removed: {}", crate::error::chain(&left));
            writeln!(context.console.err, "{text}")?;
            Err(error)
        }
    }
}

/// Waits until somebody wants us to end. The terminal may be gone, too.
async fn interrupted() -> std::io::Result<()> {
    let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

/// Makes a pair of keys, and returns the public one.
async fn make_key(folder: &Path) -> Result<String, Error> {
    let key = folder.join("key");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "dctl", "-f"]).arg(&key);
    let made = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let made = made.map_err(Error::file("run", "ssh-keygen"))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        return Err(Error::Usage(format!("`ssh-keygen` failed: {}", said.trim())));
    }
    let public = key.with_extension("pub");
    fs::read_to_string(&public).map_err(Error::file("read", utf8(&public)))
}

async fn set_up(context: &mut Context<'_>, request: SshRequest) -> Result<Vec<Host>, Error> {
    let started = call!(context.fleet, InstancesClient.ssh(request)).await?;
    let task = follow::quietly(&context.fleet, started.task_id).await?;
    let result = follow::read(&context.fleet, task.id, Output::Result).await?;
    hosts(&result)
}

fn hosts(result: &[u8]) -> Result<Vec<Host>, Error> {
    let broken = |what: &str| Error::Protocol(format!("the result of ssh {what}"));
    let told: Vec<Told> = serde_json::from_slice(result).map_err(|_| broken("can't be read"))?;
    let host = |told: Told| {
        let name = format!("{}/{}", told.job, told.id);
        let key = told.host_public_key.trim();
        // A second line would be about somebody else.
        if told.status != "success" || key.is_empty() || key.chars().any(char::is_control) {
            return Err(broken(&format!("says nothing of use about {name}")));
        }
        let ip: IpAddr = told.ip.parse().map_err(|_| broken(&format!("has no address of {name}")))?;
        let user = told.gateway_user.unwrap_or_default();
        let gateway = told.gateway_host.filter(|host| !host.is_empty()).map(|host| Gateway { host, user });
        Ok(Host { name, ip, key: key.to_owned(), gateway })
    };
    let hosts: Vec<Host> = told.into_iter().map(host).collect::<Result<_, _>>()?;
    if hosts.is_empty() { Err(broken("names nobody")) } else { Ok(hosts) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(with: serde_json::Value) -> Vec<u8> {
        let mut row = json!({
            "command": "setup", "status": "success", "ip": "10.0.0.2", "host_public_key": "ssh-rsa AAAA root@x\n",
            "id": "u", "index": 0, "job": "web",
        });
        row.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        json!([row]).to_string().into_bytes()
    }

    #[test]
    fn machines_say_how_to_reach_and_to_know_them() {
        let plain = hosts(&told(json!({}))).unwrap().remove(0);
        assert_eq!((plain.name.as_str(), plain.key.as_str()), ("web/u", "ssh-rsa AAAA root@x"));
        assert_eq!(plain.gateway, None);
        let gateway =
            hosts(&told(json!({ "gateway_host": "gw", "gateway_user": "vcap" }))).unwrap().remove(0);
        assert_eq!(gateway.gateway, Some(Gateway { host: "gw".into(), user: "vcap".into() }));
        for bad in [
            json!({ "ip": "-oProxyCommand=x" }),
            json!({ "host_public_key": "ssh-rsa A\n10.0.0.3 ssh-rsa B" }),
            json!({ "host_public_key": "" }),
            json!({ "status": "perhaps" }),
        ] {
            hosts(&told(bad)).unwrap_err();
        }
        hosts(b"[]\n").unwrap_err();
    }
}
