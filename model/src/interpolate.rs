//! `((placeholders))`: finding them, and replacing those that must be resolved when a document is parsed
//! (`spec/manifest.md` §8.4). Not here: where values come from.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::fields::Checked;
use crate::task::TaskError;

/// A place in a document, `*` standing for any key or position.
pub type Pattern = &'static [&'static str];

/// Parts of a deployment manifest whose placeholders stay until the moment of use.
pub const MANIFEST_LATER: &[Pattern] = &[
    &["properties"],
    &["instance_groups", "*", "properties"],
    &["instance_groups", "*", "jobs", "*", "properties"],
    &["instance_groups", "*", "jobs", "*", "consumes", "*", "properties"],
    &["instance_groups", "*", "env"],
    &["addons", "*", "properties"],
    &["addons", "*", "jobs", "*", "properties"],
    &["addons", "*", "jobs", "*", "consumes", "*", "properties"],
];

/// Parts of a runtime config whose placeholders stay.
pub const RUNTIME_LATER: &[Pattern] = &[
    &["addons", "*", "properties"],
    &["addons", "*", "jobs", "*", "properties"],
    &["addons", "*", "jobs", "*", "consumes", "*", "properties"],
];

/// Parts of a cloud config whose placeholders stay.
pub const CLOUD_LATER: &[Pattern] = &[
    &["azs", "*", "cloud_properties"],
    &["networks", "*", "cloud_properties"],
    &["networks", "*", "subnets", "*", "cloud_properties"],
    &["vm_types", "*", "cloud_properties"],
    &["vm_extensions", "*", "cloud_properties"],
    &["disk_types", "*", "cloud_properties"],
    &["compilation", "cloud_properties"],
];

/// Returns the placeholders of a text, without parentheses and bang.
pub fn placeholders(text: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("((") {
        let inner = &rest[start + 2..];
        let Some(end) = inner.find("))") else { break };
        let name = inner[..end].strip_prefix('!').unwrap_or(&inner[..end]);
        if is_name(name) {
            found.push(name);
            rest = &inner[end + 2..];
        } else {
            rest = &rest[start + 1..];
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
}

/// Splits `name.key.key` at the first dot after the last slash.
pub fn split_keys(placeholder: &str) -> (&str, Vec<&str>) {
    let base = placeholder.rfind('/').map_or(0, |i| i + 1);
    match placeholder[base..].find('.') {
        None => (placeholder, Vec::new()),
        Some(dot) => (&placeholder[..base + dot], placeholder[base + dot + 1..].split('.').collect()),
    }
}

/// Returns the names (as written) of all placeholders outside `later`.
pub fn names(document: &Map<String, Value>, later: &[Pattern]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in document {
        collect(value, &mut vec![key.as_str()], later, &mut found);
    }
    found
}

fn collect<'a>(value: &'a Value, path: &mut Vec<&'a str>, later: &[Pattern], found: &mut BTreeSet<String>) {
    if later.iter().any(|p| matches(p, path)) {
        return;
    }
    let add = |text: &str, found: &mut BTreeSet<String>| {
        found.extend(placeholders(text).into_iter().map(|p| split_keys(p).0.to_owned()));
    };
    match value {
        Value::String(text) => add(text, found),
        Value::Array(items) => {
            for item in items {
                path.push("*");
                collect(item, path, later, found);
                path.pop();
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                add(key, found);
                path.push(key);
                collect(item, path, later, found);
                path.pop();
            }
        }
        _ => {}
    }
}

fn matches(pattern: &[&str], path: &[&str]) -> bool {
    pattern.len() == path.len() && pattern.iter().zip(path).all(|(want, have)| *want == "*" || want == have)
}

/// Replaces all placeholders outside `later` by what `lookup` gives for their names. All failures are told together.
pub fn resolve(
    document: &Map<String, Value>,
    later: &[Pattern],
    lookup: &dyn Fn(&str) -> Checked<Value>,
) -> Checked<Map<String, Value>> {
    let mut replacer = Replacer { later, lookup, failures: Vec::new() };
    let out = replacer.mapping(document, &mut Vec::new());
    match replacer.failures.len() {
        0 => Ok(out),
        1 => Err(replacer.failures.remove(0)),
        _ => {
            let lines: Vec<String> = replacer.failures.iter().map(|f| format!("- {}", f.message)).collect();
            Err(TaskError::new(ErrorCode::ConfigServerFetchError, lines.join("\n")))
        }
    }
}

struct Replacer<'l> {
    later: &'l [Pattern],
    lookup: &'l dyn Fn(&str) -> Checked<Value>,
    failures: Vec<TaskError>,
}

impl Replacer<'_> {
    fn value<'a>(&mut self, value: &'a Value, path: &mut Vec<&'a str>) -> Value {
        if self.later.iter().any(|p| matches(p, path)) {
            return value.clone();
        }
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => Value::Array(items.iter().map(|i| self.child(i, "*", path)).collect()),
            Value::Object(map) => Value::Object(self.mapping(map, path)),
            other => other.clone(),
        }
    }

    fn mapping<'a>(&mut self, map: &'a Map<String, Value>, path: &mut Vec<&'a str>) -> Map<String, Value> {
        let pairs = map.iter().map(|(key, item)| {
            let new_key = match self.text(key) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            (new_key, self.child(item, key, path))
        });
        pairs.collect()
    }

    fn child<'a>(&mut self, value: &'a Value, key: &'a str, path: &mut Vec<&'a str>) -> Value {
        path.push(key);
        let replaced = self.value(value, path);
        path.pop();
        replaced
    }

    fn text(&mut self, text: &str) -> Value {
        let mut out = text.to_owned();
        for name in placeholders(text) {
            let value = match self.fetch(name) {
                Ok(value) => value,
                Err(failure) => {
                    self.failures.push(failure);
                    continue;
                }
            };
            let (plain, banged) = (format!("(({name}))"), format!("((!{name}))"));
            if text == plain || text == banged {
                return value;
            }
            let piece = match &value {
                Value::String(piece) => piece.clone(),
                Value::Number(n) if !n.is_f64() => n.to_string(),
                _ => {
                    self.failures.push(TaskError::new(
                        ErrorCode::ConfigServerUnsupportedPlacement,
                        format!(
                            "Failed to substitute variable: Can not replace '{plain}' in '{text}'. The value should be a String or an Integer."
                        ),
                    ));
                    continue;
                }
            };
            out = out.replace(&plain, &piece).replace(&banged, &piece);
        }
        Value::String(out)
    }

    fn fetch(&mut self, placeholder: &str) -> Checked<Value> {
        let (name, keys) = split_keys(placeholder);
        let no_base = name.is_empty() || name.ends_with('/');
        if (no_base && !keys.is_empty()) || keys.contains(&"") {
            return Err(TaskError::new(
                ErrorCode::ConfigServerIncorrectNameSyntax,
                format!(
                    "Variable name '{placeholder}' must not start or end with a dot, nor have two in a row"
                ),
            ));
        }
        let mut value = (self.lookup)(name)?;
        for key in keys {
            let Value::Object(mut map) = value else {
                return Err(TaskError::new(
                    ErrorCode::ConfigServerFetchError,
                    format!(
                        "Failed to fetch variable '{name}' from config server: Expected parent '{name}' to be a hash"
                    ),
                ));
            };
            value = map.remove(key).ok_or_else(|| {
                TaskError::new(
                    ErrorCode::ConfigServerFetchError,
                    format!("Failed to fetch variable '{name}' from config server: Expected parent '{name}' hash to have key '{key}'"),
                )
            })?;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn replaces_outside_of_properties_only() {
        let document = json!({
            "instance_groups": [{"name": "x-((a))", "instances": "((n))", "env": {"k": "((a))"},
                "jobs": [{"properties": {"p": "((a))"}}]}],
            "((a))": "((!h.k))",
        });
        let lookup = |name: &str| match name {
            "a" => Ok(json!("v")),
            "n" => Ok(json!(3)),
            "h" => Ok(json!({"k": [1]})),
            _ => Err(TaskError::plain(format!("no {name}"))),
        };
        let resolved = resolve(document.as_object().unwrap(), MANIFEST_LATER, &lookup).unwrap();
        assert_eq!(
            Value::Object(resolved),
            json!({
                "instance_groups": [{"name": "x-v", "instances": 3, "env": {"k": "((a))"},
                    "jobs": [{"properties": {"p": "((a))"}}]}],
                "v": [1],
            })
        );
        for bad in ["((a..b))", "((a.))", "((.a))", "((/d/.a))"] {
            let failing = json!({ "x": bad });
            let error = resolve(failing.as_object().unwrap(), MANIFEST_LATER, &lookup).unwrap_err();
            assert_eq!(error.code, 540004, "{bad}");
        }
        let failing = json!({"x": "((q))", "y": "a((h))"});
        let error = resolve(failing.as_object().unwrap(), MANIFEST_LATER, &lookup).unwrap_err();
        assert_eq!((error.code, error.message.lines().count()), (540001, 2));
    }
}
