//! `((placeholders))`: finding them, and replacing those that must be resolved when a document is parsed.
//! Not here: where values come from.

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

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Plain text.
    Text(&'a str),
    /// A placeholder, without parentheses and bang.
    Placeholder(&'a str),
}

/// Cuts a text at its placeholders. What only looks like one stays text.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut found, mut plain_from, mut at) = (Vec::new(), 0, 0);
    while let Some(open) = text[at..].find("((").map(|offset| at + offset) {
        let Some(close) = text[open + 2..].find("))").map(|offset| open + 2 + offset) else { break };
        // No name has a parenthesis in it, so only the last pair before the end can begin one.
        let open = text[open..close].rfind("((").map_or(open, |offset| open + offset);
        let inner = &text[open + 2..close];
        let name = inner.strip_prefix('!').unwrap_or(inner);
        if !is_name(name) {
            at = close;
            continue;
        }
        if open > plain_from {
            found.push(Piece::Text(&text[plain_from..open]));
        }
        found.push(Piece::Placeholder(name));
        at = close + 2;
        plain_from = at;
    }
    if plain_from < text.len() {
        found.push(Piece::Text(&text[plain_from..]));
    }
    found
}

/// Returns the placeholders of a text, without parentheses and bang.
pub fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Placeholder(name) => Some(name),
        Piece::Text(_) => None,
    })
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
    collect_entries(document, &mut Vec::new(), later, &mut found);
    found
}

/// Returns the names (as written) of all placeholders in a value.
pub fn names_in(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(value, &mut Vec::new(), &[], &mut found);
    found
}

/// Adds the names (as written) of a text's placeholders.
fn names_of(text: &str, found: &mut BTreeSet<String>) {
    found.extend(placeholders(text).map(|placeholder| split_keys(placeholder).0.to_owned()));
}

fn collect<'a>(value: &'a Value, path: &mut Vec<&'a str>, later: &[Pattern], found: &mut BTreeSet<String>) {
    if later.iter().any(|p| matches(p, path)) {
        return;
    }
    match value {
        Value::String(text) => names_of(text, found),
        Value::Array(items) => {
            for item in items {
                path.push("*");
                collect(item, path, later, found);
                path.pop();
            }
        }
        Value::Object(map) => collect_entries(map, path, later, found),
        _ => {}
    }
}

fn collect_entries<'a>(
    map: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
    later: &[Pattern],
    found: &mut BTreeSet<String>,
) {
    for (key, item) in map {
        names_of(key, found);
        path.push(key);
        collect(item, path, later, found);
        path.pop();
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
    replacer.end(out)
}

/// Replaces all placeholders of a value by what `lookup` gives for their names. All failures are told together.
pub fn resolve_value(value: &Value, lookup: &dyn Fn(&str) -> Checked<Value>) -> Checked<Value> {
    let mut replacer = Replacer { later: &[], lookup, failures: Vec::new() };
    let out = replacer.value(value, &mut Vec::new());
    replacer.end(out)
}

struct Replacer<'l> {
    later: &'l [Pattern],
    lookup: &'l dyn Fn(&str) -> Checked<Value>,
    failures: Vec<TaskError>,
}

impl Replacer<'_> {
    /// Returns what was made, or what went wrong: one failure as it is, several as lines of one.
    fn end<T>(mut self, out: T) -> Checked<T> {
        let mut told = BTreeSet::new();
        self.failures.retain(|failure| told.insert(failure.message.clone()));
        match self.failures.len() {
            0 => Ok(out),
            1 => Err(self.failures.remove(0)),
            _ => {
                let lines: Vec<String> = self.failures.iter().map(|f| format!("- {}", f.message)).collect();
                Err(TaskError::new(ErrorCode::ConfigServerFetchError, lines.join("\n")))
            }
        }
    }

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
                other => self.as_text(key, key, &other).unwrap_or_default(),
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
        let pieces = pieces(text);
        if let [Piece::Placeholder(name)] = pieces[..] {
            // A whole-value placeholder keeps the value's type.
            return self.fetch(name).unwrap_or_else(|failure| {
                self.failures.push(failure);
                Value::Null
            });
        }
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(plain) => out.push_str(plain),
                Piece::Placeholder(name) => match self.fetch(name) {
                    Ok(value) => {
                        let part = self.as_text(&format!("(({name}))"), text, &value);
                        out.push_str(&part.unwrap_or_default());
                    }
                    Err(failure) => self.failures.push(failure),
                },
            }
        }
        Value::String(out)
    }

    /// Writes a value where only text may stand.
    fn as_text(&mut self, placeholder: &str, text: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(piece) => Some(piece.clone()),
            Value::Number(n) if !n.is_f64() => Some(n.to_string()),
            // It could not be had, which has been told.
            Value::Null if !self.failures.is_empty() => None,
            _ => {
                self.failures.push(TaskError::new(
                    ErrorCode::ConfigServerUnsupportedPlacement,
                    format!(
                        "Failed to substitute variable: Can not replace '{placeholder}' in '{text}'. The value should be a String or an Integer."
                    ),
                ));
                None
            }
        }
    }

    fn fetch(&self, placeholder: &str) -> Checked<Value> {
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
            "((a))": "((!h.k))", "((n))": "((quotes))-((a))",
        });
        let lookup = |name: &str| match name {
            "a" => Ok(json!("v")),
            "n" => Ok(json!(3)),
            "h" => Ok(json!({"k": [1]})),
            "quotes" => Ok(json!("((a))")),
            _ => Err(TaskError::plain(format!("no {name}"))),
        };
        let resolved = resolve(document.as_object().unwrap(), MANIFEST_LATER, &lookup).unwrap();
        assert_eq!(
            Value::Object(resolved),
            json!({
                "instance_groups": [{"name": "x-v", "instances": 3, "env": {"k": "((a))"},
                    "jobs": [{"properties": {"p": "((a))"}}]}],
                "v": [1], "3": "((a))-v",
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
        let error = resolve_value(&json!({"((h))": 1}), &lookup).unwrap_err();
        assert_eq!(error.code, 540007, "{}", error.message);
        let error = resolve_value(&json!({"((q))": ["((q))", "x((q))"]}), &lookup).unwrap_err();
        assert_eq!(error.message, "no q", "the same is told once");
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let shown: Vec<String> = pieces(text)
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Placeholder(placeholder) => {
                    let (name, keys) = split_keys(placeholder);
                    format!("<{name}|{}>", keys.join(","))
                }
            })
            .collect();
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn texts_are_cut_at_their_placeholders() {
        check("plain", &["plain"]);
        check("((a))", &["<a|>"]);
        check("x((!a.b.c))y((/d/e.f))", &["x", "<a|b,c>", "y", "</d/e|f>"]);
        check("((not this)) ((a", &["((not this)) ((a"]);
        check("((((a))", &["((", "<a|>"]);
        check("(((a)))", &["(", "<a|>", ")"]);
        check("((a b)) ((c)) (())((d))", &["((a b)) ", "<c|>", " (())", "<d|>"]);
    }
}
