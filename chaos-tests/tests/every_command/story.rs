//! A fleet of three, an operator at one of its followers, and a leader that dies in the middle of whatever she asks for.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::{Bosh, Request, USER};
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::rest::Answer;
use chaos_tests::workload::{Net, cloud_config};
use chaos_tests::{checks, workload};
use cpi_sim::{Chances, Knobs, Span};
use proto::v1::follow_task_request::Kind as Output;
use serde_json::Value;

/// Between two looks at a task; the CLI takes half a second.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The release of the recordings: a server, a store, a client that is linked to the server, and an errand.
const RELEASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recorded/release/golden-1.tgz");

/// When the leader dies.
#[derive(Clone, Copy, Debug)]
pub enum Death {
    /// While the request is on its way.
    AtOnce,
    /// As soon as the task is under way.
    Begun,
    /// After the first lines of the task's events.
    Lines(usize),
}

/// A fleet, and what has happened to it.
pub struct Story {
    /// The fleet.
    pub cluster: Cluster,
}

/// A cloud that takes its time, so that there is a middle in everything.
fn knobs() -> Knobs {
    let (call, action) = (Span { min_ms: 80, max_ms: 160 }, Span { min_ms: 40, max_ms: 80 });
    let calls = Chances { latency: call, ..Chances::default() };
    Knobs { calls, boot: action, action, ..Knobs::default() }
}

/// Returns the release's archive.
pub fn release() -> Result<Vec<u8>> {
    std::fs::read(RELEASE).with_context(|| RELEASE.to_owned())
}

/// Returns the manifest of `web`: what its servers say is the one thing that changes.
pub fn manifest(greeting: &str) -> String {
    format!(
        "name: web\n\
         releases: [{{name: golden, version: '1'}}]\n\
         stemcells: [{{alias: default, os: directorate-host, version: '1.0'}}]\n\
         update: {{canaries: 1, max_in_flight: 2, canary_watch_time: 10-30000, update_watch_time: 10-30000}}\n\
         instance_groups:\n\
         - name: api\n  azs: [z1, z2]\n  instances: 2\n  vm_type: small\n  stemcell: default\n\
         \x20 persistent_disk_type: small\n  networks: [{{name: default}}]\n\
         \x20 jobs:\n\
         \x20 - {{name: server, release: golden, provides: {{endpoint: {{shared: true}}}}, properties: {{greeting: {greeting}}}}}\n\
         \x20 - {{name: check, release: golden}}\n\
         - name: user\n  azs: [z1]\n  instances: 1\n  vm_type: small\n  stemcell: default\n\
         \x20 networks: [{{name: default}}]\n\
         \x20 jobs: [{{name: client, release: golden}}]\n\
         - name: smoke\n  azs: [z1]\n  instances: 1\n  lifecycle: errand\n  vm_type: small\n  stemcell: default\n\
         \x20 networks: [{{name: default}}]\n\
         \x20 jobs: [{{name: check, release: golden}}]\n"
    )
}

impl Story {
    /// Begins with an empty fleet.
    pub async fn begin(seed: u64) -> Result<Self> {
        let cloud = CloudKind::Sim { seed, knobs: knobs() };
        let cluster = Cluster::start_with(3, cloud, "[disks]\nenable_snapshots = true\n").await?;
        Bosh::introduce(&cluster).await?;
        Ok(Self { cluster })
    }

    /// Begins with all that `web` needs, and `web`.
    pub async fn begin_with_web(seed: u64) -> Result<Self> {
        let story = Self::begin(seed).await?;
        workload::upload_base(&story.cluster, Net::Simulated).await?;
        story.undisturbed(&Request::archive("/releases", release()?)).await?;
        story.undisturbed(&Request::yaml("POST", "/deployments", &manifest("hello"))).await?;
        Ok(story)
    }

    /// Returns the cloud config that all is deployed with.
    pub fn cloud_config() -> String {
        cloud_config(Net::Simulated)
    }

    /// Does something while nobody dies; returns the task.
    pub async fn undisturbed(&self, request: &Request) -> Result<Value> {
        let bosh = self.bosh().await?;
        let task = bosh.start(request).await?;
        let row = chaos_tests::wait::until("the task has ended", SETTLE * 2, async || {
            Ok(Some(bosh.look(task, 0).await?).filter(chaos_tests::bosh::Look::is_over))
        });
        let row = row.await?.row;
        ensure!(row["state"] == "done", "{row}");
        Ok(row)
    }

    /// Asks some follower.
    pub async fn bosh(&self) -> Result<Bosh> {
        Bosh::at(&self.cluster, self.cluster.follower().await?)
    }

    /// Reads a list.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let answer = self.bosh().await?.get(path).await?;
        Ok(answer.as_array().with_context(|| format!("{path}: {answer}"))?.clone())
    }

    /// Gives a command that is a task while the leader dies; returns the task as it ended, which is well.
    pub async fn task(&mut self, command: &str, death: Death, request: &Request) -> Result<Value> {
        let done = self.play(death, request).await;
        let row =
            done.with_context(|| format!("{command} ({death:?}): {} {}", request.method, request.path))?;
        println!("{command}: {death:?}, task {} {}", row["id"], row["description"]);
        Ok(row)
    }

    /// Returns what a task has left behind: a line each.
    pub async fn result(&self, task: &Value) -> Result<Vec<Value>> {
        let path = format!("/tasks/{}/output?type=result", task["id"]);
        let answer = self.bosh().await?.send(&Request::new("GET", path)).await?;
        let text = answer.text();
        text.lines().map(|line| serde_json::from_str(line).with_context(|| text.clone())).collect()
    }

    async fn play(&mut self, death: Death, request: &Request) -> Result<Value> {
        let before = self.newest_task().await?;
        let (leader, follower) = (self.cluster.leader().await?, self.cluster.follower().await?);
        let bosh = Bosh::at(&self.cluster, follower)?;
        let task = match death {
            Death::AtOnce => {
                let (task, killed) = tokio::join!(bosh.start(request), async { self.cluster.kill(leader) });
                killed?;
                task?
            }
            Death::Begun | Death::Lines(_) => bosh.start(request).await?,
        };
        let followed = self.follow(&bosh, task, leader, death);
        let (row, events) = tokio::time::timeout(SETTLE * 3, followed)
            .await
            .with_context(|| format!("task {task} goes on and on"))??;
        ensure!(row["state"] == "done", "{row}: {}", String::from_utf8_lossy(&events));
        let stored = self.cluster.client_of(follower)?.output(task, Output::Event).await?;
        ensure!(
            stored.as_bytes() == events,
            "followed:\n{}\nstored:\n{stored}",
            String::from_utf8_lossy(&events)
        );
        self.revive(leader).await?;
        self.one_task_since(before, task).await?;
        Ok(row)
    }

    /// Follows to the end, and kills the leader on the way.
    async fn follow(
        &mut self,
        bosh: &Bosh,
        task: u64,
        leader: usize,
        death: Death,
    ) -> Result<(Value, Vec<u8>)> {
        let (mut events, mut is_killed) = (Vec::new(), matches!(death, Death::AtOnce));
        loop {
            let look = bosh.look(task, events.len()).await?;
            events.extend(&look.events);
            let is_time = match death {
                Death::AtOnce => false,
                Death::Begun => look.state != "queued",
                Death::Lines(lines) => events.iter().filter(|byte| **byte == b'\n').count() >= lines,
            };
            if look.is_over() {
                ensure!(is_killed, "over before the leader died: {}", String::from_utf8_lossy(&events));
                // As the CLI: once more after the end.
                events.extend(bosh.look(task, events.len()).await?.events);
                return Ok((look.row, events));
            }
            if is_time && !is_killed {
                self.cluster.kill(leader)?;
                is_killed = true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Gives a command that is answered without a task, while the leader dies.
    pub async fn at_once(&mut self, command: &str, status: u16, request: &Request) -> Result<Answer> {
        let (leader, follower) = (self.cluster.leader().await?, self.cluster.follower().await?);
        let bosh = Bosh::at(&self.cluster, follower)?;
        let (answer, killed) = tokio::join!(bosh.send(request), async { self.cluster.kill(leader) });
        killed?;
        let answer = answer.with_context(|| command.to_owned())?;
        ensure!(answer.status == status, "{command}: {} {}", answer.status, answer.text());
        println!("{command}: {status}");
        self.revive(leader).await?;
        Ok(answer)
    }

    async fn revive(&mut self, replica: usize) -> Result<()> {
        self.cluster.run(replica)?;
        self.cluster.wait_for_voter(replica).await
    }

    async fn newest_task(&self) -> Result<u64> {
        Ok(self.cluster.client()?.tasks().await?.iter().map(|task| task.id).max().unwrap_or_default())
    }

    /// One wish, one task: those that the fleet makes for itself are somebody else's.
    async fn one_task_since(&self, before: u64, task: u64) -> Result<()> {
        let tasks = self.cluster.client()?.tasks().await?;
        let ours: Vec<u64> =
            tasks.iter().filter(|row| row.id > before && row.user == USER).map(|row| row.id).collect();
        ensure!(ours == [task], "one wish, and tasks {ours:?}");
        Ok(())
    }

    /// Ends: no lock is left, and the cloud has what the fleet believes, and nothing else.
    pub async fn end(self) -> Result<()> {
        let client = self.cluster.client()?;
        chaos_tests::wait::until_true("no lock is held", SETTLE, async || {
            Ok(client.locks().await?.is_empty())
        })
        .await?;
        checks::of_cloud(&self.cluster).await?;
        self.cluster.finish().await
    }
}
