//! Documents without their secrets, for those who may look and no more: manifests and configs, in which operators write
//! secrets down though variables are there for that.

use serde_json::Value;

/// Keys whose values operators keep secrets in.
const SECRET_SECTIONS: &[&str] = &["properties", "env"];

/// Returns a document's text with its secrets replaced. Comments and the way it is written get lost with them.
pub fn redacted_text(text: &str) -> String {
    match model::yaml::parse_mapping(text) {
        Ok(entries) => lines(&redacted(Value::Object(entries))),
        // It was checked when it was stored; what can't be read now is not shown.
        Err(_) => "<redacted>\n".into(),
    }
}

/// Replaces every value in sections that may hold secrets; keys stay, so that one sees what there is.
pub fn redacted(value: Value) -> Value {
    hide(value, false)
}

fn hide(value: Value, secret: bool) -> Value {
    match value {
        Value::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| {
                let secret = secret || SECRET_SECTIONS.contains(&key.as_str());
                (key, hide(value, secret))
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| hide(item, secret)).collect(),
        // A reference is no secret, and that it changed is what one wants to know.
        Value::String(text) if secret && !is_reference(&text) => "<redacted>".into(),
        Value::Number(_) | Value::Bool(_) if secret => "<redacted>".into(),
        other => other,
    }
}

/// Returns whether a text is one reference to a variable and nothing else.
fn is_reference(text: &str) -> bool {
    let name = text.strip_prefix("((").and_then(|rest| rest.strip_suffix("))"));
    name.is_some_and(|name| !name.contains(['(', ')']))
}

/// Writes a value as block YAML, a line per scalar.
pub fn lines(value: &Value) -> String {
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
        // What is a line must be one to every reader: some end lines at a lone `\r`.
        Value::String(text) if !text.contains(['\n', '\r']) => out.push_str(&format!(" {text}\n")),
        scalar => out.push_str(&format!(" {scalar}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_keys_and_references_and_no_secret() {
        let text = "# mine\nname: d\nazs: [{name: z1}]\ninstance_groups:\n- name: web\n  env: {k: v}\n  jobs:\n\
                    \x20 - properties: {password: hunter2, ref: ((x)), n: 5, both: '((u)):hunter2@((h))'}\n";
        let shown = redacted_text(text);
        for expected in [
            "name: d",
            "- name: z1",
            "k: <redacted>",
            "password: <redacted>",
            "ref: ((x))",
            "n: <redacted>",
            "both: <redacted>",
        ] {
            assert!(shown.contains(expected), "{expected} in {shown}");
        }
        assert!(!shown.contains("hunter2") && !shown.contains("mine"), "{shown}");
        assert_eq!(redacted_text("[not a mapping"), "<redacted>\n");
    }
}
