//! Manifests and configs before they are sent: ops files, then variables, in the `bosh` CLI's way.
//!
//! Deliberately *not* here: what a manifest means. A document without `-v`, `-l` or `-o` is sent as it is, comments and
//! all; one with them is read as the directors read it, changed, and written again. Placeholders that nobody fills stay
//! for the directors.

mod emit;
mod ops;
mod path;
mod variables;

use camino::Utf8Path;
use serde_json::Value;

pub use emit::emit;

use crate::args::Overlay;
use crate::error::Error;
use variables::Variables;

/// A document that is ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its text.
    pub text: String,
    name: String,
}

impl Document {
    /// Reads `path` and lays `overlay` over it.
    pub fn read(path: &Utf8Path, overlay: &Overlay) -> Result<Self, Error> {
        let text = read(path)?;
        let name = path.to_string();
        if overlay.is_empty() {
            return Ok(Self { text, name });
        }
        let mut value = parsed(path, &text)?;
        for file in &overlay.ops_files {
            let operations = parsed(file, &read(file)?)?;
            ops::apply_all(&mut value, &operations, file.as_str()).map_err(Error::Usage)?;
        }
        Variables::load(overlay)?
            .fill_in(&mut value)
            .map_err(|why| Error::Usage(format!("`{path}`: {why}")))?;
        Ok(Self { text: emit(&value), name })
    }

    /// Returns what the text says.
    pub fn value(&self) -> Result<Value, Error> {
        parsed(Utf8Path::new(&self.name), &self.text)
    }
}

impl Overlay {
    fn is_empty(&self) -> bool {
        self.vars.is_empty()
            && self.var_files.is_empty()
            && self.vars_files.is_empty()
            && self.ops_files.is_empty()
    }
}

fn read(path: &Utf8Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::file("read", path))
}

fn parsed(path: &Utf8Path, text: &str) -> Result<Value, Error> {
    model::yaml::parse(text)
        .map_err(|why| Error::Usage(format!("`{path}` is not YAML that we can read: {why}")))
}

#[cfg(test)]
mod tests;
