//! The difference between a manifest and the deployed one, line by line, secrets redacted.

use model::{ConfigId, DeploymentName, ErrorCode};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use state::State;

use crate::redact::{lines, redacted};
use crate::{Caller, Read, Right, Service, ServiceError};

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineChange {
    /// It stays.
    Same,
    /// It is new.
    Added,
    /// It goes.
    Removed,
}

impl LineChange {
    /// Returns the name that lists show: empty, `added`, `removed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// A line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffLine {
    /// The YAML.
    pub text: String,
    /// What happens to it.
    pub change: LineChange,
}

impl Service {
    /// Compares a manifest with the deployed one. Only changed lines and the headings that they are under are returned.
    pub async fn diff(
        &self,
        caller: &Caller,
        manifest: &str,
        no_redact: bool,
    ) -> Result<Vec<DiffLine>, ServiceError> {
        let right = if no_redact { Right::Admin } else { Right::Read };
        caller.needs(right, "compare manifests")?;
        let new = Value::Object(model::yaml::parse_mapping(manifest)?);
        let name = new.get("name").and_then(Value::as_str).unwrap_or_default();
        let looked = self.look(Read::Linearizable).await?;
        let deployment = State::new(&*looked.view).deployment(&DeploymentName::new(name));
        let old = deployment.and_then(|d| d.record).map(|r| r.manifest_text).unwrap_or_default();
        let old = if old.is_empty() { Value::Null } else { Value::Object(model::yaml::parse_mapping(&old)?) };
        Ok(difference(&Document::new(old, no_redact), &Document::new(new, no_redact)))
    }
}

/// One side of a comparison of configs.
#[derive(Clone, Debug)]
pub enum ConfigSide {
    /// A stored version.
    Id(ConfigId),
    /// The newest version, which need not be there.
    Latest {
        /// Its type.
        kind: String,
        /// Its name.
        name: String,
    },
    /// This text.
    Text(String),
}

impl ConfigSide {
    /// Returns the text, and which version it is of.
    fn read(self, state: &State<'_>) -> Result<(String, Option<ConfigId>), ServiceError> {
        let stored = match self {
            Self::Text(text) => return Ok((text, None)),
            Self::Latest { kind, name } => state.latest_config(&kind, &name),
            Self::Id(id) => Some(state.config(id).ok_or_else(|| {
                ServiceError::told(ErrorCode::ConfigNotFound, format!("Config {id} not found"))
            })?),
        };
        Ok(stored.map_or_else(Default::default, |config| (config.content, Some(config.id))))
    }
}

impl Service {
    /// Compares two configs. Also returns which stored version the first side is.
    pub async fn diff_configs(
        &self,
        caller: &Caller,
        from: ConfigSide,
        to: ConfigSide,
    ) -> Result<(Vec<DiffLine>, Option<ConfigId>), ServiceError> {
        caller.needs(Right::Read, "compare configs")?;
        // Who may only read sees no secrets, here as elsewhere.
        let no_redact = caller.needs(Right::Admin, "see secrets").is_ok();
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let document = |text: &str| -> Result<Document, ServiceError> {
            Ok(match text.is_empty() {
                true => Document::new(Value::Null, no_redact),
                false => Document::new(Value::Object(model::yaml::parse_mapping(text)?), no_redact),
            })
        };
        let ((from, id), (to, _)) = (from.read(&state)?, to.read(&state)?);
        Ok((difference(&document(&from)?, &document(&to)?), id))
    }
}

/// A document as it is compared, and as it is shown: line by line the same, but for secrets. That one of them has changed
/// is what one wants to know; what it is, not.
struct Document {
    compared: String,
    shown: Vec<String>,
}

impl Document {
    fn new(value: Value, no_redact: bool) -> Self {
        let compared = lines(&value);
        let shown = if no_redact { compared.clone() } else { lines(&redacted(value)) };
        Self { compared, shown: shown.lines().map(str::to_owned).collect() }
    }

    fn line(&self, index: Option<usize>) -> String {
        index.and_then(|index| self.shown.get(index)).cloned().unwrap_or_default()
    }
}

fn difference(old: &Document, new: &Document) -> Vec<DiffLine> {
    let diff = TextDiff::from_lines(&old.compared, &new.compared);
    let mut out = Vec::new();
    for op in diff.grouped_ops(2).into_iter().flatten() {
        out.extend(diff.iter_changes(&op).map(|change| match change.tag() {
            ChangeTag::Equal => DiffLine { text: new.line(change.new_index()), change: LineChange::Same },
            ChangeTag::Insert => DiffLine { text: new.line(change.new_index()), change: LineChange::Added },
            ChangeTag::Delete => DiffLine { text: old.line(change.old_index()), change: LineChange::Removed },
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, expected: &[&str]) {
        let document = |text: &str| match text {
            "" => Document::new(Value::Null, false),
            text => Document::new(Value::Object(model::yaml::parse_mapping(text).unwrap()), false),
        };
        let got: Vec<String> = difference(&document(old), &document(new))
            .into_iter()
            .filter(|l| l.change != LineChange::Same)
            .map(|l| format!("{} {}", if l.change == LineChange::Added { '+' } else { '-' }, l.text))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn secrets_are_redacted_and_references_shown() {
        check(
            "name: d\nproperties: {a: old, b: ((x))}",
            "name: d\nproperties: {a: new, b: ((y)), c: 1}",
            &["-   a: <redacted>", "-   b: ((x))", "+   a: <redacted>", "+   b: ((y))", "+   c: <redacted>"],
        );
    }

    #[test]
    fn a_secret_that_stays_is_no_difference() {
        let text = "name: d\nproperties: {a: same, list: [1, {k: v}], text: \"two\\nlines\"}";
        check(text, text, &[]);
        check(text, &text.replace("k: v", "k: w"), &["-   - k: <redacted>", "+   - k: <redacted>"]);
    }

    #[test]
    fn lists_and_maps_are_shown_as_yaml() {
        check(
            "",
            "name: d\ngroups: [{name: a, azs: [z1]}, {name: b}]\nempty: []",
            &["+ name: d", "+ groups:", "+ - name: a", "+   azs:", "+   - z1", "+ - name: b", "+ empty: []"],
        );
    }
}
