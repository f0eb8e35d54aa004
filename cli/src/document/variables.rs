//! `((placeholders))`, filled from `--var`, `--var-file` and `--vars-file`, in this order of precedence.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value};

use crate::args::Overlay;
use crate::error::Error;

/// Values by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(BTreeMap<String, Value>);

/// A placeholder in a text.
struct Placeholder<'a> {
    /// Where it is, with its parentheses.
    at: Range<usize>,
    /// Its name, without `!`.
    name: &'a str,
    /// `(( x ))` is one only if it is the whole text.
    spaced: bool,
}

impl Variables {
    /// Reads every source.
    pub(super) fn load(overlay: &Overlay) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for file in &overlay.vars_files {
            match super::parsed(file, &super::read(file)?)? {
                Value::Object(entries) => values.extend(entries),
                Value::Null => {}
                _ => return Err(Error::Usage(format!("vars file `{file}` is not a hash"))),
            }
        }
        for pair in &overlay.var_files {
            let (name, path) = split(pair, "--var-file NAME=FILE")?;
            values.insert(name.into(), Value::String(super::read(camino::Utf8Path::new(path))?));
        }
        for pair in &overlay.vars {
            let (name, text) = split(pair, "--var NAME=VALUE")?;
            let value =
                model::yaml::parse(text).map_err(|why| Error::Usage(format!("variable `{name}`: {why}")))?;
            values.insert(name.into(), value);
        }
        Ok(Self(values))
    }

    /// Fills in what is known; drops the definitions (`variables:`) of what was given.
    pub(super) fn fill_in(&self, document: &mut Value) -> Result<(), String> {
        *document = self.value(document, &mut Vec::new())?;
        if let Some(Value::Array(definitions)) = document.get_mut("variables") {
            definitions.retain(|definition| {
                let name = definition.get("name").and_then(Value::as_str);
                !name.is_some_and(|name| self.0.contains_key(name))
            });
        }
        Ok(())
    }

    /// Returns `value` with its placeholders filled in. `within` are the variables whose values we are in.
    fn value(&self, value: &Value, within: &mut Vec<String>) -> Result<Value, String> {
        match value {
            Value::String(text) => self.text(text, within),
            Value::Array(items) => items.iter().map(|item| self.value(item, within)).collect(),
            Value::Object(entries) => {
                let mut filled = Map::new();
                for (key, value) in entries {
                    let key = match self.text(key, within)? {
                        Value::String(key) => key,
                        other @ (Value::Number(_) | Value::Bool(_)) => other.to_string(),
                        _ => return Err(format!("`{key}` is a key, and its variable is no text")),
                    };
                    filled.insert(key, self.value(value, within)?);
                }
                Ok(Value::Object(filled))
            }
            other => Ok(other.clone()),
        }
    }

    fn text(&self, text: &str, within: &mut Vec<String>) -> Result<Value, String> {
        let found = placeholders(text);
        if let [whole] = found.as_slice()
            && whole.at == (0..text.len())
        {
            let value = self.lookup(whole.name, within)?;
            return Ok(value.unwrap_or_else(|| Value::String(text.to_owned())));
        }
        let mut filled = text.to_owned();
        // From the back, so that the earlier places stay where they are.
        for placeholder in found.iter().rev().filter(|placeholder| !placeholder.spaced) {
            match self.lookup(placeholder.name, within)? {
                None => {}
                Some(Value::String(value)) => filled.replace_range(placeholder.at.clone(), &value),
                Some(Value::Number(value)) if !value.is_f64() => {
                    filled.replace_range(placeholder.at.clone(), &value.to_string());
                }
                Some(_) => {
                    return Err(format!(
                        "variable `{}` stands inside a text, and is neither text nor integer",
                        placeholder.name
                    ));
                }
            }
        }
        Ok(Value::String(filled))
    }

    /// Returns a variable's value, itself filled in; none if nobody gave it.
    fn lookup(&self, name: &str, within: &mut Vec<String>) -> Result<Option<Value>, String> {
        let (root, path) = split_path(name);
        let Some(mut value) = self.0.get(root) else { return Ok(None) };
        for key in path {
            let inner = match value {
                Value::Array(items) => key.parse::<usize>().ok().and_then(|at| items.get(at)),
                Value::Object(entries) => entries.get(key),
                _ => None,
            };
            value =
                inner.ok_or_else(|| format!("variable `{root}` has no `{key}` (wanted by `(({name}))`)"))?;
        }
        if within.iter().any(|outer| outer == root) {
            return Err(format!("variable `{root}` refers to itself"));
        }
        within.push(root.to_owned());
        let filled = self.value(value, within);
        within.pop();
        filled.map(Some)
    }
}

/// Returns a variable's name and the keys to dig for: dots count behind the last slash only.
fn split_path(name: &str) -> (&str, impl Iterator<Item = &str>) {
    let base = name.rfind('/').map_or(0, |at| at + 1);
    let end = name[base..].find('.').map_or(name.len(), |dot| base + dot);
    (&name[..end], name[end..].split('.').skip(1))
}

fn split<'a>(pair: &'a str, wanted: &str) -> Result<(&'a str, &'a str), Error> {
    // The value may be a secret: only the form that is wanted is shown.
    pair.split_once('=').ok_or_else(|| Error::Usage(format!("wanted: {wanted}")))
}

/// Finds `((`, an optional blank, an optional `!`, a name, an optional blank, `))`.
fn placeholders(text: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("((").map(|at| from + at) {
        // Of three parentheses the last two count.
        let start = start + text[start..].bytes().take_while(|&byte| byte == b'(').count() - 2;
        match placeholder(text, start) {
            Some(placeholder) => {
                from = placeholder.at.end;
                found.push(placeholder);
            }
            None => from = start + 2,
        }
    }
    found
}

fn placeholder(text: &str, start: usize) -> Option<Placeholder<'_>> {
    let inner_start = start + 2;
    let end = inner_start + text[inner_start..].find("))")?;
    let inner = &text[inner_start..end];
    let trimmed = inner.strip_prefix(' ').unwrap_or(inner);
    let trimmed = trimmed.strip_suffix(' ').unwrap_or(trimmed);
    let name = trimmed.strip_prefix('!').unwrap_or(trimmed);
    let is_name = |c: char| c.is_alphanumeric() || "-/._".contains(c);
    (!name.is_empty() && name.chars().all(is_name)).then_some(Placeholder {
        at: start..end + 2,
        name,
        spaced: trimmed.len() != inner.len(),
    })
}
