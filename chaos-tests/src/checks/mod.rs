//! What must hold of a fleet that was harmed and has healed: every checker over what was recorded, and over what is
//! there now.
//!
//! [`all`] is asked once nothing harms the fleet any more. It waits until every task has ended, reads the state and
//! the cloud, and lets the judges of [`checkers`] speak, who know nothing of Directorate. The histories are left in the
//! fleet's folder, as EDN, for others to judge.

mod cloud;
mod ends;
mod instances;
mod outputs;
mod watches;

use std::fmt;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use checkers::history::edn;
use checkers::linearizable::register::{Call, Elle, Knossos};
use checkers::{Report, deaths, history, linearizable, locks};

use crate::cluster::Cluster;
use crate::workloads::Observed;

/// The folder, within the fleet's, for what others may want to judge.
const HISTORIES: &str = "histories";

/// What the health rules give an agent at least: silence until it is suspected.
const GRACE: Duration = Duration::from_secs(9);

/// How far a replica's word for a heartbeat's age may be off, on a machine that is busy.
const SKEW: Duration = Duration::from_millis(500);

/// What was checked, how much of it, and what was found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Each checker's word.
    pub reports: Vec<Report>,
    /// Where the histories are.
    pub histories: PathBuf,
}

impl Verdict {
    /// Returns whether everything was shown to hold.
    pub fn holds(&self) -> bool {
        self.reports.iter().all(Report::holds)
    }

    /// Returns how much a checker looked at, by noun.
    pub fn looked_at(&self, checker: &str, noun: &str) -> usize {
        let report = self.reports.iter().find(|report| report.checker == checker);
        let counts = report.into_iter().flat_map(|report| &report.looked_at);
        counts.filter(|(name, _)| *name == noun).map(|(_, count)| count).sum()
    }

    /// Errs with all that was found, unless everything was shown to hold.
    pub fn hold(&self) -> Result<()> {
        if !self.holds() {
            bail!("{self}");
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reports.iter().try_for_each(|report| writeln!(f, "{report}"))?;
        write!(f, "histories: {}", self.histories.display())
    }
}

/// Judges a fleet that has healed, and what was seen of it.
///
/// # Errors
///
/// If the fleet can't be asked, or a task does not end. What the checkers find is no error but the verdict.
pub async fn all(cluster: &Cluster, observed: &Observed) -> Result<Verdict> {
    let histories = write_histories(cluster.folder(), observed).context("write the histories")?;
    let ends = ends::check(cluster, observed).await?;
    let mut reports = vec![ends, registers(&observed.registers)];
    reports.push(watches::check(cluster, observed).await?);
    reports.push(outputs::check(cluster, observed).await?);
    reports.push(outputs::check_blobs(cluster, observed).await?);
    reports.push(locks::check(&observed.sightings.locks, order).report("locks"));
    let rules = deaths::Rules { grace_us: micros(GRACE), skew_us: micros(SKEW) };
    reports.push(deaths::check(&observed.sightings.agents, rules).report("deaths"));
    reports.extend(cloud::check(cluster).await?);
    Ok(Verdict { reports, histories })
}

/// Judges what the cloud has and was asked for, beside what the fleet believes, of a fleet whose tasks have ended.
///
/// # Errors
///
/// If the fleet can't be asked, or with all that was found.
pub async fn of_cloud(cluster: &Cluster) -> Result<()> {
    let reports = cloud::check(cluster).await?;
    let told = reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    println!("{told}");
    ensure!(reports.iter().all(Report::holds), "{told}");
    Ok(())
}

/// A deployment's lock is asked for when a task is queued; others, as of packages being compiled, on the way.
fn order(lock: &str) -> locks::Order {
    match lock.starts_with("lock:deployment:") {
        true => locks::Order::InLine,
        false => locks::Order::AsTheyCome,
    }
}

fn registers(history: &history::History<Call>) -> Report {
    linearizable::check(history, linearizable::Limits::default()).report("linearizable")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Writes the registers' history in both forms, and returns their folder.
fn write_histories(folder: &Path, observed: &Observed) -> Result<PathBuf> {
    let folder = folder.join(HISTORIES);
    fs::create_dir_all(&folder)?;
    let file = |name: &str| File::create(folder.join(name)).map(BufWriter::new);
    edn::write(&observed.registers, &Knossos, &mut file("registers.knossos.edn")?)?;
    edn::write(&observed.registers, &Elle, &mut file("registers.elle.edn")?)?;
    Ok(folder)
}
