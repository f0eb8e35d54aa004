//! Values as YAML that reads back as the same values.

use serde_json::{Map, Value};

/// Returns `value` as a YAML document in block style.
pub fn emit(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => hash(entries, 0, &mut text),
        Value::Array(items) if !items.is_empty() => list(items, 0, &mut text),
        other => {
            scalar(other, 0, &mut text);
            text.push('\n');
        }
    }
    text
}

fn hash(entries: &Map<String, Value>, indent: usize, text: &mut String) {
    for (at, (key, value)) in entries.iter().enumerate() {
        // The first key stands where the caller left off: behind `- `, or at the line's beginning.
        if at > 0 {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(&quoted(key));
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                text.push_str(&" ".repeat(indent + 2));
                hash(inner, indent + 2, text);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                text.push_str(&" ".repeat(indent));
                list(items, indent, text);
            }
            other => {
                text.push(' ');
                scalar(other, indent + 2, text);
                text.push('\n');
            }
        }
    }
}

fn list(items: &[Value], indent: usize, text: &mut String) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str("- ");
        match item {
            Value::Object(entries) if !entries.is_empty() => hash(entries, indent + 2, text),
            Value::Array(inner) if !inner.is_empty() => list(inner, indent + 2, text),
            other => {
                scalar(other, indent + 2, text);
                text.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::String(string) if is_block(string) => block(string, indent, text),
        Value::String(string) => text.push_str(&quoted(string)),
        Value::Number(number) => text.push_str(&decimal(&number.to_string())),
        // Empty lists and hashes, booleans and null are the same in JSON.
        other => text.push_str(&other.to_string()),
    }
}

/// Returns a number as YAML 1.1 reads it: `1e-7` would be a text there.
fn decimal(json: &str) -> String {
    match json.split_once('e') {
        Some((digits, _)) if !digits.contains('.') => json.replacen('e', ".0e", 1),
        _ => json.to_owned(),
    }
}

/// Returns whether a text is best shown as a literal block: certificates, scripts.
fn is_block(text: &str) -> bool {
    let printable = |c: char| {
        c == '\n' || (!c.is_control() && c != '\u{feff}' && !('\u{2028}'..='\u{2029}').contains(&c))
    };
    // A first line that begins with a blank would need an indentation mark; an only-blank one confuses readers.
    let plain_begin = !text.starts_with([' ', '\n']);
    let plain_lines =
        text.lines().all(|line| !line.ends_with(' ') && (line.is_empty() || !line.trim().is_empty()));
    let one_end = !text.ends_with("\n\n");
    text.trim_end_matches('\n').contains('\n')
        && plain_begin
        && plain_lines
        && one_end
        && text.chars().all(printable)
}

fn block(string: &str, indent: usize, text: &mut String) {
    text.push_str(if string.ends_with('\n') { "|" } else { "|-" });
    for line in string.lines() {
        text.push('\n');
        if !line.is_empty() {
            text.push_str(&" ".repeat(indent));
            text.push_str(line);
        }
    }
}

/// Returns a text as it can stand on one line: bare if it reads back as this text, else as JSON writes it.
fn quoted(text: &str) -> String {
    let inner = |c: char| c.is_alphanumeric() || "_-./@%+=,~() ".contains(c);
    let first = |c: char| c.is_alphanumeric() || "_./(".contains(c);
    let bare = text.starts_with(first)
        && text.chars().all(inner)
        && !text.ends_with(' ')
        && model::yaml::parse(text).is_ok_and(|value| value == *text);
    if bare { text.to_owned() } else { Value::from(text).to_string() }
}
