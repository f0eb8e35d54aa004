//! YAML 1.1 into values, with go-yaml's reading of plain scalars: that is what the `bosh` CLI sends.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Most values in a document, aliases counted as often as they are used: a few lines of YAML can stand for terabytes.
const VALUES_MAX: usize = 1_000_000;
/// Deepest nesting.
const DEPTH_MAX: usize = 200;

/// Reads one document. Keys become text; merge keys (`<<`) are resolved.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        reader.event(event).map_err(|why| format!("line {}: {why}", span.start.line()))?;
    }
    Ok(reader.document.unwrap_or(Value::Null))
}

/// A collection that is being read.
enum Open {
    List(Vec<Value>, usize),
    Hash { entries: Map<String, Value>, merged: Vec<Value>, key: Option<String>, anchor: usize },
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    values: usize,
    document: Option<Value>,
}

impl Reader {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = match (style, &tag) {
                    (_, Some(tag)) if tag.suffix == "str" => Value::String(text.into_owned()),
                    (ScalarStyle::Plain, _) => plain(&text),
                    _ => Value::String(text.into_owned()),
                };
                self.complete(value, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::List(Vec::new(), anchor)),
            Event::MappingStart(anchor, _) => {
                self.begin(Open::Hash { entries: Map::new(), merged: Vec::new(), key: None, anchor })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().ok_or("an alias before its anchor")?;
                self.count(size(&value))?;
                self.complete(value, 0)
            }
            Event::DocumentStart(_) if self.document.is_some() => Err("a second document".into()),
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), String> {
        if self.open.len() == DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        match self.open.pop() {
            Some(Open::List(items, anchor)) => self.complete(Value::Array(items), anchor),
            Some(Open::Hash { mut entries, merged, anchor, .. }) => {
                for value in merged {
                    merge(&mut entries, value)?;
                }
                self.complete(Value::Object(entries), anchor)
            }
            None => Err("an end without a beginning".into()),
        }
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.values += values;
        if self.values > VALUES_MAX { Err(format!("more than {VALUES_MAX} values")) } else { Ok(()) }
    }

    fn complete(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        self.count(1)?;
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.document = Some(value),
            Some(Open::List(items, _)) => items.push(value),
            Some(Open::Hash { entries, merged, key, .. }) => match key.take() {
                None => *key = Some(key_text(value)?),
                Some(key) if key == "<<" => merged.push(value),
                Some(key) if entries.contains_key(&key) => return Err(format!("key `{key}` comes twice")),
                Some(key) => {
                    entries.insert(key, value);
                }
            },
        }
        Ok(())
    }
}

fn key_text(key: Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Null => Ok("null".into()),
        Value::Bool(_) | Value::Number(_) => Ok(key.to_string()),
        Value::Array(_) | Value::Object(_) => Err("a key is a list or a hash".into()),
    }
}

fn merge(entries: &mut Map<String, Value>, from: Value) -> Result<(), String> {
    match from {
        Value::Object(more) => {
            for (key, value) in more {
                entries.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(several) => several.into_iter().try_for_each(|one| merge(entries, one)),
        _ => Err("`<<` merges hashes only".into()),
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// Returns what a plain scalar means.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let first = text.as_bytes()[0];
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return Value::String(text.to_owned());
    }
    let number = text.replace('_', "");
    integer(&number).or_else(|| float(&number)).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x', ..] => (&digits[2..], 16),
        [b'0', b'b', ..] => (&digits[2..], 2),
        [b'0', b'o', ..] => (&digits[2..], 8),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // `from_str_radix` would take a second sign.
    if !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative { Some(0i64.checked_sub_unsigned(magnitude)?.into()) } else { Some(magnitude.into()) }
}

fn float(text: &str) -> Option<Number> {
    // What Rust reads and YAML does not: `inf`, `nan`, `.e5`, and letters in general.
    let is_float = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_digit());
    if !is_float {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    // `1e3` is 1000, as go-yaml writes it again.
    if number.fract() == 0.0 && number.abs() < 1e15 {
        let whole = number as i64;
        return Some(whole.into());
    }
    Number::from_f64(number)
}
