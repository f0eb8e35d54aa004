//! The simulated cloud behind the contract of BOSH's CPIs: an executable as a CPI's job installs it, which writes down what it
//! is asked, and hangs when a test wants it to.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::programs;

/// A CPI that is installed.
#[derive(Debug)]
pub struct InstalledCpi {
    folder: PathBuf,
}

impl InstalledCpi {
    /// Installs one in a folder, over the cloud that is served at a socket, with more options of `sim-cpi`.
    pub fn install(folder: PathBuf, socket: &Path, options: &str) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let program = programs::sim_cpi();
        let text = format!(
            "#!/bin/sh\nexec {} --socket {} --script {} {options}\n",
            program.display(),
            socket.display(),
            folder.display()
        );
        let cpi = Self { folder };
        std::fs::write(cpi.program(), text)?;
        std::fs::set_permissions(cpi.program(), std::fs::Permissions::from_mode(0o755))?;
        Ok(cpi)
    }

    /// Returns the executable.
    pub fn program(&self) -> PathBuf {
        self.folder.join("cpi")
    }

    /// Returns the folder with what it has written down, and what it is to do.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has a method do what it should, and never answer; a child of it hangs, too.
    pub fn hang(&self, method: &str) -> Result<()> {
        let fault = serde_json::json!({ "hang": true, "with_child": true });
        Ok(std::fs::write(self.folder.join(format!("{method}.json")), fault.to_string())?)
    }

    /// Has a method answer again.
    pub fn recover(&self, method: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.folder.join(format!("{method}.json")))?)
    }

    /// Returns everything that was written down.
    pub fn all_calls(&self) -> Result<Vec<Value>> {
        self.lines("calls.jsonl")
    }

    /// Returns what was answered: `{request_id, result}` each.
    pub fn answers(&self) -> Result<Vec<Value>> {
        self.lines("answers.jsonl")
    }

    fn lines(&self, file: &str) -> Result<Vec<Value>> {
        let path = self.folder.join(file);
        let text = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// Returns the calls of a method.
    pub fn calls(&self, method: &str) -> Result<Vec<Value>> {
        let mut calls = self.all_calls()?;
        calls.retain(|call| call["method"] == method);
        Ok(calls)
    }
}
