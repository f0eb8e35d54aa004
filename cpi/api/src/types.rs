//! What goes into and comes out of a [`crate::Cpi`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::instance::NetworkSettings;
use model::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who is calling, and until when the answer is of use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallContext {
    /// The fleet's uuid, as BOSH's `director_uuid`.
    pub director_uuid: String,
    /// Unique per call, for logs on both sides.
    pub request_id: RequestId,
    /// The epoch of the calling leader; a cloud that can compare refuses an older one.
    pub epoch: Epoch,
    /// The agent contract of the stemcell concerned, where there is one.
    pub stemcell_api_version: Option<u32>,
    /// How long the caller will wait.
    pub timeout: Duration,
    /// Where the cloud may tell what it does; it stays with the caller.
    #[serde(skip)]
    pub log: CallLog,
}

/// Where a cloud may tell what it does: the `cpi` output of a task. Best effort, and never a secret.
#[derive(Clone, Default)]
pub struct CallLog(Option<Arc<Write>>);

type Write = dyn Fn(&str) + Send + Sync;

impl CallLog {
    /// Makes one out of what takes a line.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(write)))
    }

    /// Tells a line.
    pub fn write(&self, line: &str) {
        if let Some(write) = &self.0 {
            write(line);
        }
    }
}

/// Two calls are the same, whoever listens.
impl PartialEq for CallLog {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl std::fmt::Debug for CallLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallLog")
    }
}

/// What a cloud says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpiInfo {
    /// The CPI contract version.
    pub api_version: u32,
    /// Stemcell formats it takes; empty means it does not say.
    pub stemcell_formats: Vec<String>,
}

/// Tags for VMs, disks and snapshots.
pub type Metadata = BTreeMap<String, String>;

/// Result of a search by our own id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found<T> {
    /// All that exists under the id. None, or one; more if the cloud carried out several calls, some of them late.
    ///
    /// A cloud that compares epochs makes nothing any more for the calls of older leaders. Others may: whoever has lost an
    /// answer looks again.
    These(Vec<T>),
    /// This cloud has no way to search.
    CannotTell,
}

impl<T> Found<T> {
    /// Returns that there is nothing.
    pub fn none() -> Self {
        Self::These(Vec::new())
    }

    /// Returns that there is exactly this.
    pub fn one(it: T) -> Self {
        Self::These(vec![it])
    }

    /// Changes what the ids are.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Found<U> {
        match self {
            Self::These(found) => Found::These(found.into_iter().map(change).collect()),
            Self::CannotTell => Found::CannotTell,
        }
    }
}

/// A stemcell to register.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateStemcell {
    /// The unpacked `image` file, readable during the call.
    pub image: std::path::PathBuf,
    /// `cloud_properties` of stemcell.MF.
    pub cloud_properties: Value,
    /// Tags (contract v3).
    pub tags: Metadata,
}

/// A VM to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateVm {
    /// The agent inside; also the handle by which the VM is found again.
    pub agent_id: AgentId,
    /// The stemcell to boot.
    pub stemcell: StemcellCid,
    /// Resolved cloud properties. May hold secrets: never log them.
    pub cloud_properties: Value,
    /// Networks in manifest order.
    pub networks: Vec<NetworkSettings>,
    /// Disks that will probably be attached: a hint for locality.
    pub disks: Vec<DiskCid>,
    /// Resolved env with the director's part merged in. May hold secrets: never log it.
    pub env: Value,
    /// What the agent needs to find us and to prove who it is.
    pub bootstrap: AgentBootstrap,
}

/// How a new agent finds its directors and proves who it is, once.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentBootstrap {
    /// `host:port` of every replica's agent port.
    pub endpoints: Vec<String>,
    /// PEM of the authorities that the replicas' certificates come from.
    pub authorities_pem: String,
    /// Single-use token bound to the agent id.
    pub token: String,
    /// For an agent of BOSH's, what it needs in the place of all that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mbus: Option<Mbus>,
    /// For such an agent, where its blobs are, if it has no other place for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobstore: Option<Blobstore>,
}

/// Where an agent of BOSH's finds blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blobstore {
    /// `https://host:port`, and a path.
    pub endpoint: String,
    /// PEM of the authority that its certificate comes from.
    pub authorities_pem: String,
    /// For an agent that is given no URLs of what it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// What opens a blobstore to one agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The agent.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Blobstore {
    /// Returns it as BOSH's agent reads it in the list `env.bosh.blobstores`, of which it uses the first.
    fn to_env(&self) -> Value {
        let mut options =
            json!({ "endpoint": self.endpoint, "tls": { "cert": { "ca": self.authorities_pem } } });
        if let Some(Credentials { user, password }) = &self.credentials {
            options["user"] = json!(user);
            options["password"] = json!(password);
        }
        json!({ "provider": "dav", "options": options })
    }
}

/// How an agent of BOSH's finds its bus and proves who it is.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Mbus {
    /// `nats://host:port` of each server.
    pub urls: Vec<String>,
    /// PEM of the authority that the servers' certificates come from.
    pub authorities_pem: String,
    /// The agent's certificate, PEM.
    pub certificate_pem: String,
    /// Its key, PEM.
    pub private_key_pem: String,
}

impl Mbus {
    /// Returns it as BOSH's agent reads it: below `env.bosh.mbus`, and in settings that are sent to it.
    pub fn to_settings(&self) -> Value {
        let (ca, certificate, key) = (&self.authorities_pem, &self.certificate_pem, &self.private_key_pem);
        json!({ "urls": self.urls, "cert": { "ca": ca, "certificate": certificate, "private_key": key } })
    }
}

impl std::fmt::Debug for Mbus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mbus").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// Where, below `env.bosh`, a VM finds what our agent needs if its cloud knows only BOSH's contract: it hands `env` on.
const BOOTSTRAP_KEY: &str = "directorate";

impl AgentBootstrap {
    /// Returns an env with this in it.
    pub fn into_env(&self, env: &Value) -> Value {
        let mut env = env.as_object().cloned().unwrap_or_default();
        let bosh = env.entry("bosh").or_insert_with(|| Value::Object(Default::default()));
        if let Value::Object(bosh) = bosh {
            match &self.mbus {
                Some(mbus) => bosh.insert("mbus".into(), mbus.to_settings()),
                None => bosh.insert(BOOTSTRAP_KEY.into(), serde_json::to_value(self).unwrap_or_default()),
            };
            if let Some(blobstore) = &self.blobstore {
                bosh.insert("blobstores".into(), json!([blobstore.to_env()]));
            }
        }
        env.into()
    }

    /// Reads it out of an env.
    pub fn in_env(env: &Value) -> Option<Self> {
        serde_json::from_value(env["bosh"][BOOTSTRAP_KEY].clone()).ok()
    }
}

impl std::fmt::Debug for AgentBootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentBootstrap").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// A VM that was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreatedVm {
    /// The cloud's id.
    pub cid: VmCid,
}

/// Wanted sizes of a VM (`vm_resources`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSizes {
    /// Number of CPUs.
    pub cpu: u32,
    /// Memory in MiB.
    pub ram_mib: u64,
    /// Ephemeral disk in MiB.
    pub ephemeral_disk_mib: u64,
}

/// A disk to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateDisk {
    /// Our id, by which it is found again.
    pub disk_id: DiskId,
    /// Size in MiB.
    pub size_mib: u64,
    /// Resolved cloud properties.
    pub cloud_properties: Value,
    /// The VM it will be attached to, for locality.
    pub vm: Option<VmCid>,
}

/// A snapshot to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotDisk {
    /// Our id, by which it is found again.
    pub snapshot_id: SnapshotId,
    /// The disk.
    pub disk: DiskCid,
    /// Whose disk it is.
    pub metadata: Metadata,
}

/// A network to make: what BOSH calls a subnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateNetwork {
    /// Our id, by which it is found again.
    pub subnet_id: SubnetId,
    /// Its addresses as CIDR, unless the cloud is to choose them.
    pub range: Option<String>,
    /// Its gateway, unless the cloud is to choose it.
    pub gateway: Option<String>,
    /// How large it is to be, if the cloud chooses.
    pub netmask_bits: Option<u8>,
    /// Resolved cloud properties. May hold secrets: never log them.
    pub cloud_properties: Value,
}

/// Where the agent finds an attached disk: text or a map, passed on untouched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskHint(pub Value);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_bosh_s_is_given_its_bus_and_nothing_of_ours() {
        let mbus = Mbus {
            urls: vec!["nats://10.0.0.6:4222".into(), "nats://10.0.0.7:4222".into()],
            authorities_pem: "CA".into(),
            certificate_pem: "CERT".into(),
            private_key_pem: "KEY".into(),
        };
        let (endpoint, authorities_pem) = ("https://10.0.0.2:25250".to_owned(), "FLEET".to_owned());
        let blobstore = Blobstore { endpoint, authorities_pem, credentials: None };
        let bootstrap = AgentBootstrap {
            token: "t".into(),
            mbus: Some(mbus),
            blobstore: Some(blobstore),
            ..AgentBootstrap::default()
        };
        let env = bootstrap.into_env(&json!({ "bosh": { "group": "web" } }));
        let expected = json!({ "bosh": { "group": "web", "mbus": {
            "urls": ["nats://10.0.0.6:4222", "nats://10.0.0.7:4222"],
            "cert": { "ca": "CA", "certificate": "CERT", "private_key": "KEY" },
        }, "blobstores": [{ "provider": "dav", "options": {
            "endpoint": "https://10.0.0.2:25250", "tls": { "cert": { "ca": "FLEET" } },
        } }] } });
        assert_eq!(env, expected);
        let mut older = bootstrap.clone();
        let credentials = Credentials { user: "a".into(), password: "secret".into() };
        older.blobstore.as_mut().unwrap().credentials = Some(credentials);
        let options = older.into_env(&json!({}))["bosh"]["blobstores"][0]["options"].clone();
        assert_eq!((&options["user"], &options["password"]), (&json!("a"), &json!("secret")));
        assert!(!format!("{:?}", older.blobstore).contains("secret"));
        let ours = AgentBootstrap { mbus: None, blobstore: None, ..bootstrap };
        assert_eq!(AgentBootstrap::in_env(&ours.into_env(&json!({}))), Some(ours));
    }
}
