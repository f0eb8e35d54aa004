//! Requests to an agent, typed; [`Request::wire`] gives BOSH's method name and positional arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use model::step::{DrainKind, Script};
use model::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Whether an unknown request id means "do it" or "tell me you have lost it".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Do it, unless it is already done or under way.
    Submit,
    /// Only give the result of what an earlier leader submitted.
    Attach,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Idempotency key: task, step and attempt; a repeat gives the recorded result.
    pub id: RequestId,
    /// The calling leader's epoch.
    pub epoch: Epoch,
    /// Do it, or only give its result.
    pub mode: Mode,
    /// How long to wait for the result.
    pub timeout: Duration,
    /// What to do.
    pub method: Method,
}

/// A blob that the agent fetches from a director, with the digest it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// The blob's address.
    pub blob: BlobDigest,
    /// The digest text as the release or compile gave it (`sha256:…`).
    pub digest: String,
}

/// A package to have installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageBlob {
    /// The package's name.
    pub name: PackageName,
    /// `<fingerprint>.<build>`.
    pub version: String,
    /// Its compiled form.
    pub content: BlobRef,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the line of each variant speaks for its fields")]
pub enum Method {
    /// Answers `pong`.
    Ping,
    /// Returns the apply spec, job state, processes; with `full` also vitals.
    GetState { full: bool },
    /// Installs trusted certificates and disk associations.
    UpdateSettings { settings: Value },
    /// Keeps a blob under this id in the agent's sensitive store, for `prepare` and `apply` to find.
    UploadBlob { id: String, digest: String, content: Vec<u8> },
    /// Downloads what the spec names.
    Prepare { spec: Value },
    /// Installs what the spec names; without `configuration_hash` only stores who the agent is.
    Apply { spec: Value },
    /// Starts all jobs.
    Start,
    /// Stops all jobs.
    Stop,
    /// Switches its machine off.
    Shutdown,
    /// Runs drain scripts and waits as they say.
    Drain { kind: DrainKind, spec: Option<Value> },
    /// Runs a lifecycle script of all jobs.
    RunScript { script: Script, env: BTreeMap<String, String> },
    /// Runs an errand; result `{exit_code, stdout, stderr}`.
    RunErrand { errand: JobName },
    /// Compiles a package and uploads the result; result `{result: {blobstore_id, sha1, size}}`.
    CompilePackage { source: BlobRef, name: PackageName, version: String, dependencies: Vec<PackageBlob> },
    /// Returns the cids of mounted disks.
    ListDisk,
    /// Remembers where a disk is attached.
    AddPersistentDisk { disk: DiskCid, hint: Value },
    /// Forgets it.
    RemovePersistentDisk { disk: DiskCid },
    /// Partitions and formats a disk if need be, and mounts it.
    MountDisk { disk: DiskCid },
    /// Unmounts it.
    UnmountDisk { disk: DiskCid },
    /// Copies the old disk to the newly mounted one.
    MigrateDisk { from: DiskCid, to: DiskCid },
    /// Packs logs and uploads them; result `{blobstore_id, sha1}`.
    FetchLogs { kind: String, filters: Option<Vec<String>> },
    /// Makes an operator's user; result `{command, status, ip, host_public_key}`.
    SshSetup { user: String, public_key: String },
    /// Removes operators' users; result `{command, status}`.
    SshCleanup { user_regex: String },
    /// Fetches DNS records, unless the agent has this version or a newer one.
    SyncDns { blob: BlobDigest, digest: String, version: u64 },
    /// Tells how the instances in DNS records fare, unless the agent knows it from this time or a later one. Not BOSH's, whose
    /// agents ask each other.
    SyncDnsHealth { health: Fares },
    /// Links a disk that is attached, so that jobs find it under its cid. May be repeated.
    AddDynamicDisk { disk: DiskCid, hint: Value },
    /// Takes the link away; one that is not there is fine.
    RemoveDynamicDisk { disk: DiskCid },
}

/// How the instances fare that are in a version of the DNS records. A letter for each agent: this is told to all of them, again and
/// again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fares {
    /// When that was so: a revision of the state.
    pub version: u64,
    /// Of which version of the records the agents are.
    pub records: u64,
    /// In the order of the agents' ids, see [`Fare::letter`].
    pub letters: String,
}

/// How an instance fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fare {
    /// Its jobs run.
    Well,
    /// They do not, or it is silent.
    Badly,
    /// Nothing has been heard of it yet.
    #[default]
    Unknown,
}

impl Fare {
    /// Returns what stands for it.
    pub fn letter(self) -> char {
        match self {
            Self::Well => '+',
            Self::Badly => '-',
            Self::Unknown => '?',
        }
    }

    /// Reads what stands for it. What a later version says that this one does not know is unknown.
    pub fn of_letter(letter: char) -> Self {
        match letter {
            '+' => Self::Well,
            '-' => Self::Badly,
            _ => Self::Unknown,
        }
    }
}

impl Method {
    /// Returns BOSH's name of the method.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::GetState { .. } => "get_state",
            Self::UpdateSettings { .. } => "update_settings",
            Self::UploadBlob { .. } => "upload_blob",
            Self::Prepare { .. } => "prepare",
            Self::Apply { .. } => "apply",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Shutdown => "shutdown",
            Self::Drain { .. } => "drain",
            Self::RunScript { .. } => "run_script",
            Self::RunErrand { .. } => "run_errand",
            Self::CompilePackage { .. } => "compile_package",
            Self::ListDisk => "list_disk",
            Self::AddPersistentDisk { .. } => "add_persistent_disk",
            Self::RemovePersistentDisk { .. } => "remove_persistent_disk",
            Self::MountDisk { .. } => "mount_disk",
            Self::UnmountDisk { .. } => "unmount_disk",
            Self::MigrateDisk { .. } => "migrate_disk",
            Self::FetchLogs { .. } => "fetch_logs",
            Self::SshSetup { .. } | Self::SshCleanup { .. } => "ssh",
            Self::SyncDns { .. } => "sync_dns",
            Self::SyncDnsHealth { .. } => "sync_dns_health",
            Self::AddDynamicDisk { .. } => "add_dynamic_disk",
            Self::RemoveDynamicDisk { .. } => "remove_dynamic_disk",
        }
    }

    /// Returns the positional arguments. The content of `UploadBlob` is not among them: it travels as bytes.
    pub fn arguments(&self) -> Vec<Value> {
        match self {
            Self::Ping | Self::Start | Self::Stop | Self::Shutdown | Self::ListDisk => vec![],
            Self::GetState { full } => {
                if *full {
                    vec![json!("full")]
                } else {
                    vec![]
                }
            }
            Self::UpdateSettings { settings } => vec![settings.clone()],
            Self::UploadBlob { id, digest, .. } => vec![json!({ "blob_id": id, "checksum": digest })],
            Self::Prepare { spec } | Self::Apply { spec } => vec![spec.clone()],
            Self::Drain { kind, spec } => {
                let kind = match kind {
                    DrainKind::Update => "update",
                    DrainKind::Shutdown => "shutdown",
                };
                [Some(json!(kind)), spec.clone()].into_iter().flatten().collect()
            }
            Self::RunScript { script, env } => {
                let options = if env.is_empty() { json!({}) } else { json!({ "env": env }) };
                vec![json!(script.file_name()), options]
            }
            Self::RunErrand { errand } => vec![json!(errand)],
            Self::CompilePackage { source, name, version, dependencies } => {
                let dependencies: serde_json::Map<String, Value> = dependencies
                    .iter()
                    .map(|d| {
                        let entry = json!({ "name": d.name, "version": d.version, "sha1": d.content.digest,
                            "blobstore_id": d.content.blob });
                        (d.name.to_string(), entry)
                    })
                    .collect();
                vec![
                    json!(source.blob),
                    json!(source.digest),
                    json!(name),
                    json!(version),
                    Value::Object(dependencies),
                ]
            }
            Self::AddPersistentDisk { disk, hint } | Self::AddDynamicDisk { disk, hint } => {
                vec![json!(disk), hint.clone()]
            }
            Self::RemovePersistentDisk { disk }
            | Self::RemoveDynamicDisk { disk }
            | Self::MountDisk { disk }
            | Self::UnmountDisk { disk } => vec![json!(disk)],
            Self::MigrateDisk { from, to } => vec![json!(from), json!(to)],
            Self::FetchLogs { kind, filters } => vec![json!(kind), json!(filters)],
            Self::SshSetup { user, public_key } => {
                vec![json!("setup"), json!({ "user": user, "public_key": public_key })]
            }
            Self::SshCleanup { user_regex } => vec![json!("cleanup"), json!({ "user_regex": user_regex })],
            Self::SyncDns { blob, digest, version } => vec![json!(blob), json!(digest), json!(version)],
            Self::SyncDnsHealth { health } => vec![json!(health)],
        }
    }
}

/// A request's final result: JSON as BOSH's agent gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply(pub Value);
