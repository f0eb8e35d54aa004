//! `sim-cpi`: the simulated cloud, or one in a file, behind the contract of BOSH's CPIs: one process for each call. It
//! writes down what it is asked, and does what tests need of a CPI that is not well.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use cpi_api::memory::MemoryCloud;
use cpi_api::{Call, CallPort as _, CpiError};
use cpi_sim::SimCpi;
use cpi_sim::contract::{self, Request};
use model::DiskId;
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use serde_json::{Value, json};

/// Answers one call.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Where the simulated cloud is served.
    #[arg(long, conflicts_with = "file", required_unless_present = "file")]
    socket: Option<PathBuf>,
    /// A file that holds a cloud of its own.
    #[arg(long)]
    file: Option<PathBuf>,
    /// A folder: `calls.jsonl` gets every request, `answers.jsonl` every answer, and `METHOD.json` says what is wrong with a method.
    #[arg(long)]
    script: PathBuf,
    /// The contract that it speaks.
    #[arg(long, default_value_t = 3)]
    api_version: u32,
    /// The formats of stemcells that it takes.
    #[arg(long)]
    format: Vec<String>,
}

/// What is wrong with a method.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    /// Waits for so long before the deed.
    wait_ms: u64,
    /// Is killed before the deed.
    die_before: bool,
    /// Is killed after the deed, before the answer.
    die_after: bool,
    /// Hangs after the deed.
    hang: bool,
    /// Starts a child that hangs, too.
    with_child: bool,
    /// Answers this instead.
    answer: Option<String>,
    /// Says so many bytes on standard error first.
    stderr_bytes: usize,
    /// Repeats its request on standard error.
    repeats_request: bool,
    /// Happens so often; always, if it is not said.
    times: Option<u32>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut line = String::new();
    std::io::stdin().read_to_string(&mut line)?;
    let request: Request = serde_json::from_str(&line).context("a request")?;
    note(&options.script, "calls.jsonl", &line)?;
    let fault = take_fault(&options.script, &request.method)?;
    before(&fault, &line)?;
    let answer = match request.call(DiskId::new(format!("{}{}", std::process::id(), now_nanos()))) {
        Ok(Call::Info) => {
            let info = json!({ "api_version": options.api_version, "stemcell_formats": options.format });
            contract::answer("info", Ok(info))
        }
        Ok(call) => contract::answer(&request.method, perform(&options, call)?),
        Err(no_call) => contract::refusal(&no_call),
    };
    let told = json!({ "request_id": request.context.get("request_id"), "result": answer["result"] });
    note(&options.script, "answers.jsonl", &told.to_string())?;
    after(&fault)?;
    print!("{}", fault.answer.unwrap_or_else(|| answer.to_string()));
    Ok(())
}

fn now_nanos() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn note(script: &Path, file: &str, line: &str) -> Result<()> {
    let mut calls = OpenOptions::new().create(true).append(true).open(script.join(file))?;
    // One write: several processes append side by side.
    calls.write_all(format!("{}\n", line.trim_end()).as_bytes())?;
    Ok(())
}

fn take_fault(script: &Path, method: &str) -> Result<Fault> {
    let path = script.join(format!("{method}.json"));
    let Ok(text) = std::fs::read(&path) else { return Ok(Fault::default()) };
    let fault: Fault = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    match fault.times {
        Some(0) => return Ok(Fault::default()),
        Some(times) => {
            let mut left: Value = serde_json::from_slice(&text)?;
            left["times"] = json!(times - 1);
            std::fs::write(&path, left.to_string())?;
        }
        None => {}
    }
    Ok(fault)
}

fn before(fault: &Fault, line: &str) -> Result<()> {
    if fault.repeats_request {
        eprintln!("got {line}");
    }
    let mut left = fault.stderr_bytes;
    while left > 0 {
        let some = left.min(4096);
        std::io::stderr().write_all(&vec![b'.'; some])?;
        left -= some;
    }
    std::thread::sleep(Duration::from_millis(fault.wait_ms));
    if fault.die_before {
        std::process::abort();
    }
    Ok(())
}

fn after(fault: &Fault) -> Result<()> {
    if fault.die_after {
        std::process::abort();
    }
    if fault.with_child {
        std::process::Command::new("sleep").arg("600").spawn()?;
    }
    if fault.hang {
        std::thread::sleep(Duration::from_secs(600));
    }
    Ok(())
}

/// The contract knows no epochs: whoever speaks it is not fenced.
fn perform(options: &Options, call: Call) -> Result<Result<Value, CpiError>> {
    if let Some(socket) = &options.socket {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return Ok(runtime.block_on(SimCpi::new(socket).call(None, call)));
    }
    let path = options.file.as_ref().context("a socket or a file")?;
    let lock = File::create(path.with_extension("lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let mut cloud: MemoryCloud = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => MemoryCloud::default(),
    };
    let outcome = cloud.perform(None, call);
    let half = path.with_extension("new");
    std::fs::write(&half, serde_json::to_vec(&cloud)?)?;
    std::fs::rename(half, path)?;
    Ok(outcome)
}
