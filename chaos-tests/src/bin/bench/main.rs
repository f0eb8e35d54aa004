//! `bench`: what the house costs, measured on this machine, beside etcd where both do the same.
//!
//! Everything runs on loopback and on one disk, with real fsyncs; so the numbers are of one machine that carries three
//! replicas and their clients. Pieces can be chosen (`bench failover`); all of them, without arguments. One table at
//! the end; what was not measured says why.

mod calls;
mod clouds;
mod deploys;
mod etcd;
mod failover;
mod interrupted;
mod load;
mod reads;
mod table;
mod writes;

use std::time::Instant;

use anyhow::{Context as _, Result};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};
use chaos_tests::programs;
use clap::{Parser, ValueEnum};
use cpi_sim::Knobs;
use tempfile::TempDir;

use table::Table;

/// Measures a fleet of three on this machine.
#[derive(Parser)]
struct Options {
    /// What to measure; everything if nothing is named.
    pieces: Vec<Piece>,
    /// Seconds of load for each number of clients.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Numbers of clients.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<usize>,
    /// How often the leader is killed.
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// Simulated instances of the fresh deploy; twice as many for the one that changes nothing.
    #[arg(long, default_value_t = 500)]
    instances: usize,
    /// Which clouds; all, if none is named.
    #[arg(long, value_delimiter = ',')]
    substrates: Vec<clouds::Substrate>,
}

/// A part of the measurements.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Piece {
    /// From nothing to a fleet of three that answers.
    Start,
    /// Small mutations from many clients, beside etcd.
    Writes,
    /// Reads over REST, beside a bare TLS server; and a deploy that changes nothing.
    Reads,
    /// Kill of the leader until the next accepted write; the pause of a planned hand-over, and of a planned stop.
    Failover,
    /// A deploy whose director dies when half of its VMs exist.
    Interrupted,
    /// Deploys of simulated instances, and the memory that they take.
    Deploys,
    /// Each cloud, with either agent: making and deleting VMs, a deploy, and what that costs the directors.
    Clouds,
}

impl Options {
    fn wants(&self, piece: Piece) -> bool {
        self.pieces.is_empty() || self.pieces.contains(&piece)
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    programs::build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut table = Table::default();
    let measured = runtime.block_on(measure(&options, &mut table));
    // Also after a failure: what was measured until then is worth showing.
    println!("\n{table}");
    measured
}

async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    if options.wants(Piece::Start) {
        let begun = Instant::now();
        let cluster = fleet().await?;
        table.time("start: init, two joins -> three voters answer", begun.elapsed());
        cluster.finish().await?;
    }
    if options.wants(Piece::Writes) {
        writes::measure(options, table).await?;
    }
    if options.wants(Piece::Reads) {
        reads::measure(options, table).await?;
    }
    if options.wants(Piece::Failover) {
        failover::measure(options, table).await?;
    }
    if options.wants(Piece::Interrupted) {
        interrupted::measure(table).await?;
    }
    if options.wants(Piece::Deploys) {
        deploys::measure(options, table).await?;
    }
    if options.wants(Piece::Clouds) {
        clouds::measure(&options.substrates, table).await?;
    }
    Ok(())
}

/// Starts a fleet of three over a simulated cloud without misfortunes or latency.
async fn fleet() -> Result<Cluster> {
    Cluster::start_in(folder()?, 3, CloudKind::Sim { seed: 1, knobs: Knobs::default() }).await
}

/// Returns a new folder beside this program: /tmp may be memory, and then an fsync costs nothing.
fn folder() -> Result<TempDir> {
    let us = std::env::current_exe()?;
    let beside = us.parent().context("a program is in a folder")?;
    Ok(tempfile::Builder::new().prefix("directorate-bench-").tempdir_in(beside)?)
}
