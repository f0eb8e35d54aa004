//! What BOSH's agent is asked, as a simulated machine does it.

use std::sync::Arc;
use std::time::Duration;

use agent_stand_in::Actions;
use anyhow::{Context as _, Result, bail, ensure};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dagent::{Machine as _, Method, Order, Work};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::blobstore::Blobstore;
use super::disk::Disk;
use super::outbox::Outbox;
use crate::machine::SimMachine;

/// What it acts on.
pub(crate) struct Deeds {
    pub machine: Arc<SimMachine>,
    pub outbox: Arc<Outbox>,
    pub blobstore: Blobstore,
    pub disk: Disk,
}

/// How long it waits before it ends, so that what it has said gets out.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[async_trait]
impl Actions for Deeds {
    fn knows(&self, method: &str) -> bool {
        // Instances ask each other how they are: theirs is no method of the director's.
        let is_shared = method != "sync_dns_health" && Method::named(method).is_some();
        is_shared || method == "delete_arp_entries" || signed(method).is_some()
    }

    async fn perform(
        &self,
        method: &str,
        arguments: &[Value],
        cancel: &CancellationToken,
    ) -> Result<Value, String> {
        let done = match (signed(method), arguments.first()) {
            (Some(plain), Some(request)) => self.perform_signed(plain, request, cancel).await,
            (Some(_), None) => return Err("Not enough arguments, expected 1, got 0".to_owned()),
            (None, _) => self.perform_plain(method, arguments, cancel).await,
        };
        done.map_err(|error| format!("{error:#}"))
    }

    fn note_task(&self, task: &str) {
        self.disk.note_task(task);
    }

    fn noted_tasks(&self) -> Vec<String> {
        self.disk.noted_tasks()
    }

    async fn heartbeat(&self) -> Value {
        let report = self.machine.report().await;
        json!({ "deployment": "", "job": null, "index": null, "job_state": report.job_state,
            "vitals": report.vitals, "node_id": "", "number_of_processes": report.processes })
    }
}

/// Returns the method of ours, for one whose blobs are at signed URLs.
fn signed(method: &str) -> Option<Method> {
    Method::named(method.strip_suffix("_with_signed_url")?)
        .filter(|plain| matches!(plain, Method::CompilePackage | Method::FetchLogs | Method::SyncDns))
}

impl Deeds {
    async fn perform_plain(
        &self,
        method: &str,
        arguments: &[Value],
        cancel: &CancellationToken,
    ) -> Result<Value> {
        let Some(named) = Method::named(method) else { return Ok(json!({})) };
        match named {
            Method::Apply | Method::Prepare => {
                self.fetch_packages(arguments.first().unwrap_or(&Value::Null)).await?;
            }
            Method::CompilePackage => {
                let dependencies = arguments.get(4).unwrap_or(&Value::Null);
                self.fetch_packages(&json!({ "packages": dependencies })).await?;
                self.fetch_one(arguments.first(), arguments.get(1)).await?;
            }
            Method::SyncDns => self.fetch_one(arguments.first(), arguments.get(1)).await?,
            _ => {}
        }
        let mut reply = self.order(named, arguments.to_vec(), cancel).await?;
        if named == Method::UpdateSettings && self.disk.store(arguments.first().unwrap_or(&Value::Null)) {
            tokio::time::sleep(LAST_WORDS).await;
            self.disk.restart();
            return std::future::pending().await;
        }
        // What has been made goes to the blobstore, under an id that the agent draws.
        let result = if named == Method::CompilePackage { &mut reply["result"] } else { &mut reply };
        if let Some(content) = self.made(named, result) {
            let id = Uuid::new_v4().to_string();
            *result = json!({ "blobstore_id": id, "sha1": sha1_of(&content) });
            self.blobstore.put(&id, content).await.context("store a blob")?;
        }
        Ok(reply)
    }

    async fn perform_signed(
        &self,
        plain: Method,
        request: &Value,
        cancel: &CancellationToken,
    ) -> Result<Value> {
        let (arguments, upload) = match plain {
            Method::CompilePackage => {
                self.fetch_packages(&json!({ "packages": request["deps"] })).await?;
                let source = self.blobstore.get_signed(text(request, "package_get_signed_url")?).await?;
                verify(&source, text(request, "digest")?)?;
                let arguments = ["", "digest", "name", "version", "deps"].map(|key| request[key].clone());
                (arguments.to_vec(), Some(text(request, "upload_signed_url")?))
            }
            Method::FetchLogs => {
                let arguments = vec![request["log_type"].clone(), request["filters"].clone()];
                (arguments, Some(text(request, "signed_url")?))
            }
            _ => {
                let records = self.blobstore.get_signed(text(request, "signed_url")?).await?;
                verify(&records, text(request, "multi_digest")?)?;
                (["", "multi_digest", "version"].map(|key| request[key].clone()).to_vec(), None)
            }
        };
        let mut reply = self.order(plain, arguments, cancel).await?;
        let result = if plain == Method::CompilePackage { &mut reply["result"] } else { &mut reply };
        if let (Some(url), Some(content)) = (upload, self.made(plain, result)) {
            let digest = format!("{};sha512:{}", sha1_of(&content), hex::encode(Sha512::digest(&content)));
            *result = json!({ "sha1": digest });
            self.blobstore.put_signed(url, content).await.context("store a blob")?;
        }
        Ok(reply)
    }

    async fn order(
        &self,
        method: Method,
        arguments: Vec<Value>,
        cancel: &CancellationToken,
    ) -> Result<Value> {
        let work = Work { cancel: cancel.clone(), ..Work::default() };
        let content = match (method, arguments.first()) {
            (Method::UploadBlob, Some(blob)) => STANDARD.decode(text(blob, "payload")?)?,
            _ => Vec::new(),
        };
        let order = Order { method, arguments, content: content.into() };
        Ok(self.machine.perform(order, &work).await?)
    }

    /// Returns the content of a blob that was made just now.
    fn made(&self, method: Method, result: &Value) -> Option<Vec<u8>> {
        if !matches!(method, Method::CompilePackage | Method::FetchLogs) {
            return None;
        }
        self.outbox.take(result["blobstore_id"].as_str()?)
    }

    /// Fetches what a spec names, as an agent does that installs it.
    async fn fetch_packages(&self, spec: &Value) -> Result<()> {
        for package in spec["packages"].as_object().into_iter().flatten().map(|(_, package)| package) {
            let urls = ["signed_url", "package_get_signed_url"];
            let url = urls.into_iter().filter_map(|key| package[key].as_str()).find(|url| !url.is_empty());
            match url {
                Some(url) => verify(&self.blobstore.get_signed(url).await?, text(package, "sha1")?)?,
                None => self.fetch_one(Some(&package["blobstore_id"]), Some(&package["sha1"])).await?,
            }
        }
        Ok(())
    }

    async fn fetch_one(&self, id: Option<&Value>, digest: Option<&Value>) -> Result<()> {
        let (id, digest) = (id.and_then(Value::as_str), digest.and_then(Value::as_str));
        let content = self.blobstore.get(id.context("a blob's id")?).await?;
        verify(&content, digest.context("a blob's digest")?)
    }
}

fn text<'a>(of: &'a Value, key: &str) -> Result<&'a str> {
    of[key].as_str().with_context(|| format!("there is no text `{key}`"))
}

fn sha1_of(content: &[u8]) -> String {
    hex::encode(Sha1::digest(content))
}

/// Checks content against the strongest of some digests.
fn verify(content: &Bytes, digests: &str) -> Result<()> {
    let named = |digest: &'static str| move |given: &&str| given.starts_with(digest);
    let given = || digests.split(';');
    let (expected, found) = if let Some(digest) = given().find(named("sha512:")) {
        (digest, format!("sha512:{}", hex::encode(Sha512::digest(content))))
    } else if let Some(digest) = given().find(named("sha256:")) {
        (digest, format!("sha256:{}", hex::encode(Sha256::digest(content))))
    } else if let Some(digest) = given().find(|digest| !digest.contains(':')) {
        (digest, sha1_of(content))
    } else {
        bail!("no digest that is known: {digests}")
    };
    ensure!(expected == found, "Expected stream to have digest '{digests}' but was '{found}'");
    Ok(())
}
