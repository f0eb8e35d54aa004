//! A machine in memory, for thousands of agents in one process: it says what a real one would and does nothing.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agent_api::JobState;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::error::ActionError;
use crate::machine::{Machine, Order, Report, Work};
use crate::method::Method;

/// How a simulated machine behaves.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// How long every action but the ones that only look takes.
    pub action_takes: Duration,
    /// Methods that fail, by name, with this message.
    pub fails: std::collections::BTreeMap<String, String>,
}

#[derive(Default)]
struct Inside {
    spec: Value,
    job_state: Option<JobState>,
    attached: BTreeSet<String>,
    mounted: Vec<String>,
    deeds: u64,
}

impl Inside {
    /// Returns an address that the apply spec gives the machine.
    fn ip(&self) -> Value {
        let networks = self.spec["networks"].as_object();
        let ip = networks.and_then(|all| all.values().find_map(|network| network.get("ip")));
        ip.cloned().unwrap_or_else(|| json!("127.0.0.1"))
    }
}

/// See the module's header.
pub struct SimulatedMachine {
    agent: model::AgentId,
    behaviour: Mutex<Behaviour>,
    inside: Mutex<Inside>,
    changes: watch::Sender<u64>,
}

impl SimulatedMachine {
    /// Returns a machine without jobs.
    pub fn new(agent: model::AgentId, behaviour: Behaviour) -> Self {
        let (behaviour, inside) = (Mutex::new(behaviour), Mutex::new(Inside::default()));
        Self { agent, behaviour, inside, changes: watch::channel(0).0 }
    }

    /// Changes how it behaves from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// Returns how many actions other than the ones that only look it has done.
    pub fn deeds(&self) -> u64 {
        self.inside().deeds
    }

    /// Makes the jobs be in this state until the next `start` or `stop`.
    pub fn set_job_state(&self, job_state: JobState) {
        self.inside().job_state = Some(job_state);
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, inside: &Inside) -> Value {
        let mut state = if inside.spec.is_object() { inside.spec.clone() } else { json!({ "networks": {} }) };
        state["agent_id"] = json!(self.agent);
        state["job_state"] = json!(inside.job_state.unwrap_or(JobState::Running));
        state["vm"] = json!({ "name": format!("vm-{}", self.agent) });
        state
    }

    fn act(&self, order: &Order) -> Result<Value, ActionError> {
        let mut inside = self.inside();
        inside.deeds += 1;
        Ok(match order.method {
            Method::Prepare => json!("prepared"),
            Method::Apply => {
                inside.spec = order.argument(0, "a spec")?;
                json!("applied")
            }
            Method::Start => {
                inside.job_state = Some(JobState::Running);
                json!("started")
            }
            // It stays there to be asked, with nothing that runs.
            Method::Stop | Method::Shutdown => {
                inside.job_state = Some(JobState::Stopped);
                json!("stopped")
            }
            Method::Drain => json!(0),
            Method::UpdateSettings => {
                let settings: Value = order.argument(0, "settings")?;
                let associations = settings["disk_associations"].as_array().into_iter().flatten();
                for cid in associations.filter_map(|association| association["cid"].as_str()) {
                    must_be_attached(&inside, cid)?;
                }
                json!("ok")
            }
            Method::UploadBlob => order.argument::<Value>(0, "a map")?["blob_id"].clone(),
            Method::RunErrand => json!({ "exit_code": 0, "stdout": "", "stderr": "" }),
            Method::CompilePackage => {
                // Content-addressed: the same package always gives the same blob.
                let digest = crate::digest::sha256_hex(&json!([order.text(2)?, order.text(3)?]).to_string());
                json!({ "result": { "blobstore_id": digest, "sha1": format!("sha256:{digest}"), "size": 0 } })
            }
            // It has none.
            Method::FetchLogs => json!({ "blobstore_id": null, "sha1": null }),
            Method::Ssh if order.text(0)? == "setup" => json!({
                "command": "setup", "status": "success", "ip": inside.ip(), "host_public_key": "ssh-rsa SIMULATED\n",
            }),
            Method::Ssh => json!({ "command": "cleanup", "status": "success" }),
            Method::AddPersistentDisk => {
                inside.attached.insert(order.text(0)?.to_owned());
                json!({})
            }
            Method::RemovePersistentDisk => {
                inside.attached.remove(order.text(0)?);
                json!({})
            }
            // Jobs that would look for it are none.
            Method::AddDynamicDisk | Method::RemoveDynamicDisk => {
                order.text(0)?;
                json!({})
            }
            Method::MountDisk => mount(&mut inside, order.text(0)?)?,
            Method::UnmountDisk => unmount(&mut inside, order.text(0)?),
            Method::MigrateDisk => {
                if inside.mounted.len() == 2 {
                    inside.mounted.remove(0);
                }
                json!({})
            }
            Method::RunScript => json!({}),
            // Nothing runs there that would ask for a name.
            Method::SyncDns | Method::SyncDnsHealth => json!("synced"),
            Method::Ping | Method::Info | Method::GetState | Method::ListDisk => Value::Null,
        })
    }
}

fn must_be_attached(inside: &Inside, cid: &str) -> Result<(), ActionError> {
    if inside.attached.contains(cid) {
        return Ok(());
    }
    Err(ActionError::failed(format!("Persistent disk with volume id '{cid}' could not be found")))
}

fn mount(inside: &mut Inside, cid: &str) -> Result<Value, ActionError> {
    must_be_attached(inside, cid)?;
    if !inside.mounted.iter().any(|mounted| mounted == cid) {
        inside.mounted.push(cid.to_owned());
    }
    Ok(json!({}))
}

fn unmount(inside: &mut Inside, cid: &str) -> Value {
    let before = inside.mounted.len();
    inside.mounted.retain(|mounted| mounted != cid);
    let message = if inside.mounted.len() < before {
        format!("Unmounted partition of {cid}")
    } else {
        format!("Partition of {cid} is not mounted")
    };
    json!({ "message": message })
}

#[async_trait]
impl Machine for SimulatedMachine {
    async fn boot(&self) -> Result<(), ActionError> {
        Ok(())
    }

    async fn perform(&self, order: Order, work: &Work) -> Result<Value, ActionError> {
        let behaviour = self.behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(message) = behaviour.fails.get(order.method.name()) {
            return Err(ActionError::failed(message));
        }
        match order.method {
            Method::Ping => return Ok(json!("pong")),
            Method::Info => return Ok(json!({ "api_version": 1 })),
            Method::GetState => return Ok(self.state(&self.inside())),
            Method::ListDisk => return Ok(json!(self.inside().mounted)),
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(behaviour.action_takes) => {}
            () = work.cancel.cancelled() => return Err(ActionError::Cancelled),
        }
        let done = self.act(&order);
        if matches!(order.method, Method::Start | Method::Stop) {
            self.changes.send_modify(|changes| *changes += 1);
        }
        done
    }

    async fn report(&self) -> Report {
        let job_state = self.inside().job_state.unwrap_or(JobState::Running);
        Report { job_state, vitals: json!({}), processes: 1 }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
