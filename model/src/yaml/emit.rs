//! Values as Psych writes them: operators compare what they are shown with what BOSH has shown them for years.
//!
//! Long lines are not folded: a line of a diff is a line of the document.

use serde_json::Value;

use super::scalar;

/// Writes a value in block style; returns the lines, without the mark of a document's beginning.
pub fn lines(value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => block(value, "", &mut out),
        Value::Array(items) if !items.is_empty() => block(value, "", &mut out),
        other => out.extend(inline(other, "")),
    }
    out
}

fn block(value: &Value, indent: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let key = format!("{indent}{}:", text(key, indent).join("\n"));
                under(&key, value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                dashed(item, indent, out);
            }
        }
        other => out.extend(inline(other, indent)),
    }
}

/// Writes what stands behind or below a key. Lists are not indented further than the key.
fn under(key: &str, value: &Value, indent: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push(key.to_owned());
            block(value, &format!("{indent}  "), out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push(key.to_owned());
            block(value, indent, out);
        }
        scalar => behind(key, scalar, indent, out),
    }
}

/// Writes an item; its first line carries the dash.
fn dashed(item: &Value, indent: &str, out: &mut Vec<String>) {
    let is_nested = match item {
        Value::Object(entries) => !entries.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    let dash = format!("{indent}-");
    if !is_nested {
        return behind(&dash, item, indent, out);
    }
    let (mut inner, deeper) = (Vec::new(), format!("{indent}  "));
    block(item, &deeper, &mut inner);
    if let Some(first) = inner.first_mut() {
        *first = format!("{dash} {}", &first[deeper.len()..]);
    }
    out.extend(inner);
}

fn behind(before: &str, value: &Value, indent: &str, out: &mut Vec<String>) {
    let mut written = inline(value, indent).into_iter();
    match written.next().filter(|first| !first.is_empty()) {
        Some(first) => out.push(format!("{before} {first}")),
        None => out.push(before.to_owned()),
    }
    out.extend(written);
}

fn inline(value: &Value, indent: &str) -> Vec<String> {
    match value {
        Value::Null => vec![String::new()],
        Value::Object(_) => vec!["{}".into()],
        Value::Array(_) => vec!["[]".into()],
        Value::String(content) => text(content, indent),
        other => vec![other.to_string()],
    }
}

/// How a text is written.
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn text(content: &str, indent: &str) -> Vec<String> {
    match style(content) {
        Style::Plain => vec![content.to_owned()],
        Style::Single => vec![format!("'{}'", content.replace('\'', "''"))],
        // JSON's escapes are YAML's.
        Style::Double => vec![Value::from(content).to_string()],
        Style::Literal => {
            let chomp = match (content.ends_with('\n'), content.ends_with("\n\n")) {
                (false, _) => "|-",
                (true, false) => "|",
                (true, true) => "|+",
            };
            let line = |line: &str| match line.is_empty() {
                true => String::new(),
                false => format!("{indent}  {line}"),
            };
            let body = content.strip_suffix('\n').unwrap_or(content).split('\n').map(line);
            std::iter::once(chomp.to_owned()).chain(body).collect()
        }
    }
}

fn style(content: &str) -> Style {
    let is_odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    if content.chars().any(is_odd) {
        return Style::Double;
    }
    let first_line = content.split('\n').next().unwrap_or_default();
    let starts_with_sign = first_line.starts_with(|c: char| !c.is_alphanumeric() && c != '_');
    if content.trim_end_matches('\n').contains('\n') {
        // A literal can't begin with a blank: where it ends would be unclear.
        return if content.starts_with([' ', '\t', '\n']) { Style::Double } else { Style::Literal };
    }
    if matches!(content, "y" | "Y" | "n" | "N") || content.contains(['\n', '\t']) {
        return Style::Double;
    }
    if starts_with_sign && content != "<<" && !first_line.contains('"') {
        return Style::Double;
    }
    let is_text = scalar::plain(content) == *content && !is_date(content);
    let is_plain = !starts_with_sign
        && !content.ends_with([' ', ':'])
        && !content.contains(": ")
        && !content.contains(" #");
    if is_text && is_plain { Style::Plain } else { Style::Single }
}

/// Returns whether Psych reads a text as a day, or as a moment.
fn is_date(content: &str) -> bool {
    let day: Vec<&str> = content.split(['T', 't', ' ']).next().unwrap_or_default().split('-').collect();
    let digits = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    matches!(day[..], [year, month, day] if digits(year, &[4]) && digits(month, &[1, 2]) && digits(day, &[1, 2]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_quoted_where_psych_does() {
        for (text, written) in [
            ("z1", "z1"),
            ("1", "'1'"),
            ("1.10", "'1.10'"),
            ("1.1.1", "1.1.1"),
            ("10-20000", "10-20000"),
            ("10.10.1.0/24", "10.10.1.0/24"),
            ("true", "'true'"),
            ("yes", "'yes'"),
            ("y", "\"y\""),
            ("", "''"),
            ("2026-01-02", "'2026-01-02'"),
            ("<redacted>", "\"<redacted>\""),
            ("((secret))", "\"((secret))\""),
            ("a: b", "'a: b'"),
            ("a #b", "'a #b'"),
            ("it's", "it's"),
            ("it's: so", "'it''s: so'"),
            ("[\"a\"]", "'[\"a\"]'"),
            ("a\tb", "\"a\\tb\""),
        ] {
            assert_eq!(lines(&json!(text)), [written], "{text}");
        }
    }

    #[test]
    fn lists_stand_under_their_key_and_literals_are_indented() {
        let value = json!({
            "azs": [{ "name": "z1", "cloud_properties": { "a": [1, { "b": 2 }] } }, { "name": "z2" }],
            "empty": { "list": [], "map": {}, "none": null },
            "nested": [["a", "b"], []],
            "text": "one\ntwo\n",
        });
        let expected = "azs:\n- name: z1\n  cloud_properties:\n    a:\n    - 1\n    - b: 2\n- name: z2\nempty:\n  list: []\n  \
                        map: {}\n  none:\nnested:\n- - a\n  - b\n- []\ntext: |\n  one\n  two";
        assert_eq!(lines(&value).join("\n"), expected);
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let value = json!({ "a": ["1", "x: y", "- z", " s", "t ", "#", "a\nb", "a\nb\n\n", "\n", "'", "\"", "é", "~", "null"] });
        let text = lines(&value).join("\n") + "\n";
        assert_eq!(crate::yaml::parse(&text).unwrap(), value, "{text}");
    }
}
