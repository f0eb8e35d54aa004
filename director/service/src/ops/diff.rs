//! The difference between a manifest and the deployed one, line by line, secrets redacted.

use model::DeploymentName;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use state::State;

use crate::{Caller, Read, Right, Service, ServiceError};

/// Keys whose values operators keep secrets in.
const SECRET_SECTIONS: &[&str] = &["properties", "env"];

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
        let shown = |value: Value| lines(&if no_redact { value } else { redacted(value, false) });
        Ok(difference(&shown(old), &shown(new)))
    }
}

fn difference(old: &str, new: &str) -> Vec<DiffLine> {
    let diff = TextDiff::from_lines(old, new);
    let line = |text: &str, change| DiffLine { text: text.trim_end_matches('\n').to_owned(), change };
    let mut out = Vec::new();
    for group in diff.grouped_ops(2) {
        for op in group {
            out.extend(diff.iter_changes(&op).map(|change| match change.tag() {
                ChangeTag::Equal => line(change.value(), LineChange::Same),
                ChangeTag::Insert => line(change.value(), LineChange::Added),
                ChangeTag::Delete => line(change.value(), LineChange::Removed),
            }));
        }
    }
    out
}

/// Replaces every value in sections that may hold secrets; keys stay, so that one sees what changed.
fn redacted(value: Value, secret: bool) -> Value {
    match value {
        Value::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| {
                let secret = secret || SECRET_SECTIONS.contains(&key.as_str());
                (key, redacted(value, secret))
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| redacted(item, secret)).collect(),
        // A reference is no secret, and that it changed is what one wants to know.
        Value::String(text) if secret && !(text.starts_with("((") && text.ends_with("))")) => {
            "<redacted>".into()
        }
        Value::Number(_) | Value::Bool(_) if secret => "<redacted>".into(),
        other => other,
    }
}

/// Writes a value as block YAML, a line per scalar.
fn lines(value: &Value) -> String {
    let mut out = String::new();
    if !value.is_null() {
        block(value, 0, &mut out);
    }
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                out.push_str(&format!("{indent}{key}:"));
                nested(value, depth + 1, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                match item {
                    Value::Object(entries) if !entries.is_empty() => block(item, depth + 1, &mut inner),
                    _ => nested(item, depth + 1, &mut inner),
                }
                // The first line of an item carries its dash.
                out.push_str(&format!("{indent}- {}", inner.trim_start()));
            }
        }
        scalar => out.push_str(&format!("{indent}{scalar}\n")),
    }
}

fn nested(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(_) => {
            out.push('\n');
            block(value, depth, out);
        }
        Value::Array(_) => {
            out.push('\n');
            block(value, depth.saturating_sub(1), out);
        }
        Value::String(text) if !text.contains('\n') => out.push_str(&format!(" {text}\n")),
        scalar => out.push_str(&format!(" {scalar}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, expected: &[&str]) {
        let shown = |text: &str| match text {
            "" => String::new(),
            text => lines(&redacted(Value::Object(model::yaml::parse_mapping(text).unwrap()), false)),
        };
        let got: Vec<String> = difference(&shown(old), &shown(new))
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
            &["-   b: ((x))", "+   b: ((y))", "+   c: <redacted>"],
        );
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
