//! What was done between what is recorded, as far as it shows: commands that nobody recorded, and what happened to machines
//! behind the director's back. `meanwhile.toml` tells it; what it tells of and what is not played is a failure.

use anyhow::{Context as _, Result, bail, ensure};
use chaos_tests::sim::SimCloud;
use chaos_tests::wait;
use cpi_sim::Knobs;
use serde::Deserialize;
use serde_json::Value;

use super::names::Kind;
use super::player::{Player, TASK_LIMIT};
use super::text;

/// One deed. Names are those of the recording.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deed {
    /// The scenario's name with its number.
    pub scenario: String,
    /// The command before which it is done, as somebody would type it; the whole scenario, if not said.
    #[serde(default)]
    pub before: Option<String>,
    /// What is done.
    #[serde(flatten)]
    pub what: What,
    /// Why.
    pub reason: String,
}

/// What is done.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A request, method and path, and JSON if there is more to say. If it makes a task, that ends well.
    Send(String),
    /// An instance's agent dies, which is named by group and index: its VM is there, and nobody answers.
    Kill(String),
    /// A script does not end, wherever it runs; whichever it was ends, if this names none.
    Hold(String),
    /// A task has told so much.
    Await(u64, String),
    /// A disk is introduced, which an instance has, named by group and index, and no recorded answer has named.
    Meet(String, String),
}

#[derive(Deserialize)]
struct List {
    deed: Vec<Deed>,
}

/// All deeds, and which were done.
pub struct Meanwhile(Vec<(Deed, bool)>);

impl Meanwhile {
    /// Reads the list.
    pub fn new(text: &str) -> Result<Self> {
        let list: List = toml::from_str(text).context("a list of deeds")?;
        Ok(Self(list.deed.into_iter().map(|deed| (deed, false)).collect()))
    }

    /// Returns what is to be done now, in order, and takes it for done.
    pub fn due(&mut self, scenario: &str, before: Option<&str>) -> Vec<Deed> {
        let is_due = |deed: &Deed| deed.scenario == scenario && deed.before.as_deref() == before;
        let due = self.0.iter_mut().filter(|(deed, is_done)| !is_done && is_due(deed));
        due.map(|(deed, is_done)| {
            *is_done = true;
            deed.clone()
        })
        .collect()
    }

    /// Returns what is wrong: deeds whose place never came.
    pub fn complaints(&self) -> Vec<String> {
        let idle = self.0.iter().filter(|(_, is_done)| !is_done);
        idle.map(|(deed, _)| format!("meanwhile.toml: its place never came: `{}` ({deed:?})", deed.reason))
            .collect()
    }
}

impl Player<'_> {
    /// Does something behind the recording's back.
    pub async fn act(&mut self, deed: &Deed, sim: &SimCloud, calm: &Knobs) -> Result<()> {
        self.carry_out(&deed.what, sim, calm).await.with_context(|| format!("{deed:?}"))
    }

    async fn carry_out(&mut self, what: &What, sim: &SimCloud, calm: &Knobs) -> Result<()> {
        match what {
            What::Send(request) => self.request(request).await,
            What::Kill(instance) => {
                let cid = self.row_of(instance).await?["cid"].as_str().context("a VM")?.to_owned();
                Ok(sim.control().crash_vm(cid.as_str().into()).await?)
            }
            What::Hold(script) => {
                let held_script = Some(script.clone()).filter(|script| !script.is_empty());
                Ok(sim.control().set_knobs(Knobs { held_script, ..calm.clone() }).await?)
            }
            What::Await(task, told) => {
                let ours = self.names.ours(&Kind::Task, &task.to_string()).context("such a task")?.to_owned();
                let path = format!("/tasks/{ours}/output?type=event");
                wait::until_true(&format!("{path} tells `{told}`"), TASK_LIMIT, async || {
                    Ok(self.get(&path, None).await?.text().contains(told))
                })
                .await
            }
            What::Meet(disk, instance) => self.meet(disk, instance).await,
        }
    }

    async fn request(&mut self, request: &str) -> Result<()> {
        let (method, rest) = request.split_once(' ').context("method and path")?;
        let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let path = text::translated(path, &self.names);
        let answer = self.say(method, &path, body).await?;
        ensure!(answer.status < 400, "{}: {}", answer.status, answer.text());
        let Some(task) = answer.header("location").and_then(|location| location.strip_prefix("/tasks/"))
        else {
            return Ok(());
        };
        self.wait_for_end(task).await?;
        let end = self.get(&format!("/tasks/{task}"), None).await?.text();
        ensure!(end.contains(r#""state":"done""#), "{end}");
        Ok(())
    }

    /// Returns an instance's row, by its group and index.
    async fn row_of(&self, instance: &str) -> Result<Value> {
        let rows = self.get("/deployments/web/instances", None).await?.text();
        let rows: Vec<Value> = serde_json::from_str(&rows).context(rows)?;
        let is_it =
            |row: &Value| format!("{}/{}", row["job"].as_str().unwrap_or_default(), row["index"]) == instance;
        rows.into_iter().find(is_it).with_context(|| format!("a row of {instance}"))
    }

    async fn meet(&mut self, disk: &str, instance: &str) -> Result<()> {
        let id = self.row_of(instance).await?["id"].clone();
        let answer = self.get("/deployments/web/instances?format=full", None).await?;
        let location = answer.header("location").and_then(|location| location.strip_prefix("/tasks/"));
        let task = location.context("a task")?.to_owned();
        self.wait_for_end(&task).await?;
        let result = self.get(&format!("/tasks/{task}/output?type=result"), None).await?.text();
        for line in result.lines() {
            let row: Value = serde_json::from_str(line)?;
            if row["id"] == id {
                let ours = row["disk_cid"].as_str().context("a disk")?;
                ensure!(self.names.learn(&Kind::Token, disk, ours), "{ours} bears another name");
                return Ok(());
            }
        }
        bail!("no instance {id}: {result}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deed_is_done_once_at_its_place_and_missed_elsewhere() {
        let list = "[[deed]]\nscenario = '1-a'\nsend = 'PUT /x {}'\nreason = 'so it was'\n\
            [[deed]]\nscenario = '1-a'\nbefore = 'bosh vms'\nkill = 'api/1'\nreason = 'so it was'\n";
        let mut deeds = Meanwhile::new(list).unwrap();
        assert_eq!((deeds.due("1-a", None).len(), deeds.due("1-a", None).len()), (1, 0));
        assert_eq!(deeds.due("2-b", Some("bosh vms")).len(), 0);
        assert_eq!(deeds.complaints().len(), 1, "nobody was killed");
        assert_eq!(deeds.due("1-a", Some("bosh vms")).len(), 1);
        assert_eq!(deeds.complaints(), Vec::<String>::new());
    }
}
