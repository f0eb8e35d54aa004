//! A fleet over an executable CPI that has everything the recordings began with, and what happens there.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use chaos_tests::cluster::{CloudKind, Cluster, Ground};
use chaos_tests::forge;
use chaos_tests::recorded::{Archives, folder};
use chaos_tests::workload::write_file;
use cpi_api::{Call as CpiCall, CallPort as _};
use cpi_sim::{Knobs, Span};
use serde::Deserialize as _;
use serde_json::Value;

use super::calls::{Call, Recording};

/// The cloud config of the recordings' director.
const CLOUD_CONFIG: &str = include_str!("cloud.yml");
/// Makes `db` another one than it is in the recordings.
const OPS: &str =
    "- {type: replace, path: /instance_groups/name=db/jobs/name=store/properties/db/name, value: other}\n";
/// The deployments that the recordings are about.
const DEPLOYMENTS: [&str; 2] = ["web", "dyn"];

/// The fleet.
pub struct Stage {
    cluster: Cluster,
    release: String,
}

/// Who is in the VMs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Agents {
    /// Ours.
    Ours,
    /// BOSH's, on a bus.
    Bosh,
}

impl Stage {
    /// Starts it, with stemcell, release and cloud config.
    pub async fn set_up(agents: Agents) -> Result<Self> {
        let action = Span { min_ms: 1, max_ms: 1 };
        let knobs = Knobs { action, ..Knobs::default() };
        // As their director was.
        let cloud = CloudKind::Program { seed: 5, knobs, options: "--api-version 2" };
        let extra = "[disks]\nenable_snapshots = true\n".to_owned();
        let has_bus = agents == Agents::Bosh;
        let ground = Ground { fleet: Some("TestDirector"), extra, has_bus, ..Ground::new(1, cloud) };
        let cluster = Cluster::start_on(ground).await?;
        let archives = Archives::new(folder().join("release"))?;
        let mut paths = Vec::new();
        for name in ["stemcell.tgz", "golden-1.tgz"] {
            let path = cluster.folder().join(name);
            match (agents, name) {
                // An agent that is told no URLs, as theirs was.
                (Agents::Bosh, "stemcell.tgz") => drop(forge::stemcell(&path, "bosh-ubuntu-stemcell", 1)?),
                _ => std::fs::write(&path, archives.named_in(name)?)?,
            }
            paths.push(path.to_str().context("UTF-8")?.to_owned());
        }
        let config = write_file(&cluster, "cloud.yml", CLOUD_CONFIG)?;
        cluster.operate(&["upload-stemcell", &paths[0]]).await?;
        cluster.operate(&["upload-release", &paths[1]]).await?;
        cluster.operate(&["update-cloud-config", &config]).await?;
        Ok(Self { cluster, release: paths.remove(1) })
    }

    /// Does what leads up to a recording, then its command; returns all calls since the stage was set up, and how many of them
    /// came before the command.
    pub async fn play(
        &mut self,
        recording: &Recording,
        before: &[String],
        all: &[Recording],
    ) -> Result<Played> {
        let there = self.cluster.operate(&["deployments"]).await?;
        for deployment in DEPLOYMENTS.into_iter().filter(|name| there.contains(name)) {
            self.cluster.operate(&["-d", deployment, "delete-deployment", "--force"]).await?;
        }
        for step in before {
            let words: Vec<&str> = step.split(' ').collect();
            self.step(&words, all).await.with_context(|| step.clone())?;
        }
        let before = self.calls()?.len();
        let mut words: Vec<String> = recording.command[1..].to_vec();
        for word in &mut words {
            if let Some(text) = recording.files.get(word) {
                *word = write_file(&self.cluster, word, text)?;
            }
        }
        self.operate(&words).await?;
        Ok(Played { calls: self.calls()?, before })
    }

    async fn step(&mut self, words: &[&str], all: &[Recording]) -> Result<()> {
        match words {
            ["fix", "release"] => {
                self.cluster.operate(&["upload-release", "--fix", &self.release]).await?;
            }
            ["fresh", "release"] => {
                self.cluster.operate(&["delete-release", "golden"]).await?;
                self.cluster.operate(&["upload-release", &self.release]).await?;
            }
            ["crash", instance] => {
                let vm = self.vm_of(instance).await?;
                self.cluster.sim().control().crash_vm(vm.as_str().into()).await?;
            }
            ["lose", instance] => {
                let vm = self.vm_of(instance).await?;
                let call = CpiCall::DeleteVm(vm.as_str().into());
                self.cluster.sim().control().call(None, call).await?;
            }
            words => {
                let mut line = Vec::new();
                for word in words {
                    line.push(match *word {
                        "ops.yml" => write_file(&self.cluster, "ops.yml", OPS)?,
                        word => self.named(all, word)?,
                    });
                }
                self.operate(&line).await?;
            }
        }
        Ok(())
    }

    async fn operate(&self, words: &[String]) -> Result<()> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.cluster.operate(&words).await.map(drop)
    }

    /// Returns a word of a command; of a recording's file, the path.
    fn named(&self, all: &[Recording], word: &str) -> Result<String> {
        let Some((name, file)) = word.split_once('/').filter(|(_, file)| file.ends_with(".yml")) else {
            return Ok(word.to_owned());
        };
        let recording = all.iter().find(|recording| recording.name == name).context("no such recording")?;
        write_file(&self.cluster, file, recording.files.get(file).context("no such file")?)
    }

    async fn vm_of(&self, instance: &str) -> Result<String> {
        let instances = self.cluster.client()?.instances("web").await?;
        let wanted = |found: &proto::v1::Instance| format!("{}/{}", found.group, found.index) == instance;
        match instances.into_iter().find(wanted) {
            Some(found) if !found.vm_cid.is_empty() => Ok(found.vm_cid),
            _ => bail!("{instance} has no VM"),
        }
    }

    fn calls(&self) -> Result<Vec<Call>> {
        let cpi = self.cluster.installed_cpi();
        let answers = cpi.answers()?;
        let result =
            |answer: &Value| Some((answer["request_id"].as_str()?.to_owned(), answer["result"].clone()));
        let results: BTreeMap<String, Value> = answers.iter().filter_map(result).collect();
        let mut calls = Vec::new();
        for line in cpi.all_calls()? {
            let mut call = Call::deserialize(&line)?;
            let answer = call.context["request_id"].as_str().and_then(|id| results.get(id));
            call.result = answer.cloned().unwrap_or_default();
            calls.push(call);
        }
        Ok(calls)
    }

    /// Ends it.
    pub async fn finish(self) -> Result<()> {
        self.cluster.finish().await
    }
}

/// What was asked while a recording was played.
pub struct Played {
    calls: Vec<Call>,
    before: usize,
}

impl Played {
    /// Returns what came of the command.
    pub fn during(&self) -> &[Call] {
        &self.calls[self.before..]
    }

    /// Returns what came before it: it tells who is who.
    pub fn before(&self) -> &[Call] {
        &self.calls[..self.before]
    }
}
