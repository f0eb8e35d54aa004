//! YAML as Ruby's Psych reads it, into JSON values.
//!
//! The parser's event stream is YAML 1.2; what its plain scalars *mean* is YAML 1.1 here (`scalar`), because the
//! manifests of the last ten years were written for Psych: `yes` is true and `012` is ten. Anchors, aliases and merge
//! keys work; tags other than the core ones do not. What Psych would write is in [`emit`].
//!
//! Invariant: the value that comes out is at most `NODES_MAX` nodes and `DEPTH_MAX` levels, however little text
//! described it.

pub mod emit;
mod scalar;

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput, Tag};
use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::task::TaskError;

/// Nodes that a document may have after its aliases were written out. A deployment of 10,000 instances needs a
/// few thousand; nine lines of nested aliases could otherwise ask for a billion.
const NODES_MAX: usize = 500_000;

/// Bytes of text that a document may have after its aliases were written out.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Levels that a document may be nested. Readers of the value recurse, so this bounds their stack as well.
const DEPTH_MAX: usize = 100;

/// Why a text is not a YAML document that we accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The parser's complaint.
    #[error("line {line} column {column}: {what}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// A tag such as `!ruby/object`.
    #[error("tried to load unspecified class: {tag}")]
    Tag {
        /// The tag.
        tag: String,
    },
    /// A mapping's key is a list or a mapping.
    #[error("a list or mapping cannot be a key")]
    Key,
    /// An alias of something that was not anchored before.
    #[error("unknown alias")]
    Alias,
    /// A merge key's value is not a mapping.
    #[error("the value of a merge key must be a mapping or a list of mappings")]
    Merge,
    /// Larger than the limits of this module.
    #[error("the document is too large or nested too deeply")]
    TooLarge,
}

/// Reads one document; an empty text is null.
pub fn parse(text: &str) -> Result<Value, Error> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        budget: Size { nodes: NODES_MAX, text_bytes: TEXT_BYTES_MAX },
    };
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(Value::Null),
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            event => return Ok(reader.node(event, 0)?.0),
        }
    }
}

/// Reads a document that must be a mapping: a manifest (440001 if it is none) or a config.
pub fn parse_mapping(text: &str) -> Result<Map<String, Value>, TaskError> {
    match parse(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Err(TaskError::new(ErrorCode::InvalidManifest, "Manifest should not be empty")),
        Ok(_) => Err(TaskError::new(ErrorCode::InvalidManifest, "Manifest should be a hash")),
        Err(e) => {
            let text = format!("Incorrect YAML structure of the uploaded manifest: {e}");
            Err(TaskError::new(ErrorCode::InvalidManifest, text))
        }
    }
}

/// How much a node weighs, its children included.
#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    text_bytes: usize,
}

struct Reader<'t> {
    events: Parser<'t, StrInput<'t>>,
    anchors: BTreeMap<usize, (Value, Size)>,
    budget: Size,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Event<'t>, Error> {
        match self.events.next_event() {
            None => Ok(Event::StreamEnd),
            Some(Ok((event, _))) => Ok(event),
            Some(Err(e)) => Err(Error::Syntax {
                line: e.marker().line(),
                column: e.marker().col() + 1,
                what: e.info().to_owned(),
            }),
        }
    }

    fn spend(&mut self, size: Size) -> Result<(), Error> {
        self.budget = Size {
            nodes: self.budget.nodes.checked_sub(size.nodes).ok_or(Error::TooLarge)?,
            text_bytes: self.budget.text_bytes.checked_sub(size.text_bytes).ok_or(Error::TooLarge)?,
        };
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, depth: usize) -> Result<(Value, Size), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::TooLarge);
        }
        let (anchor, value, size) = match event {
            Event::Alias(anchor) => {
                // The size is spent before the copy is made: that is what defuses a bomb.
                let size = self.anchors.get(&anchor).ok_or(Error::Alias)?.1;
                self.spend(size)?;
                let value = self.anchors.get(&anchor).ok_or(Error::Alias)?.0.clone();
                return Ok((value, size));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let size = Size { nodes: 1, text_bytes: text.len() };
                self.spend(size)?;
                (anchor, scalar_value(&text, style, tag.as_deref())?, size)
            }
            Event::SequenceStart(anchor, tag) => {
                check_collection_tag(tag.as_deref(), "seq")?;
                let (items, size) = self.sequence(depth)?;
                (anchor, Value::Array(items), size)
            }
            Event::MappingStart(anchor, tag) => {
                check_collection_tag(tag.as_deref(), "map")?;
                let (map, size) = self.mapping(depth)?;
                (anchor, Value::Object(map), size)
            }
            // The parser closes what it opens; anything else here is its own mistake.
            _ => return Err(Error::Syntax { line: 0, column: 0, what: "unexpected end of a node".into() }),
        };
        if anchor > 0 {
            self.spend(size)?;
            self.anchors.insert(anchor, (value.clone(), size));
        }
        Ok((value, size))
    }

    fn sequence(&mut self, depth: usize) -> Result<(Vec<Value>, Size), Error> {
        self.spend(Size { nodes: 1, text_bytes: 0 })?;
        let (mut items, mut total) = (Vec::new(), Size { nodes: 1, text_bytes: 0 });
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok((items, total)),
                event => {
                    let (value, size) = self.node(event, depth + 1)?;
                    total = sum(total, size);
                    items.push(value);
                }
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<(Map<String, Value>, Size), Error> {
        self.spend(Size { nodes: 1, text_bytes: 0 })?;
        let (mut map, mut total) = (Map::new(), Size { nodes: 1, text_bytes: 0 });
        loop {
            let event = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok((map, total));
            }
            let is_merge = matches!(&event, Event::Scalar(t, ScalarStyle::Plain, _, None) if t == "<<");
            let (key, key_size) = self.node(event, depth + 1)?;
            let event = self.next()?;
            let (value, value_size) = self.node(event, depth + 1)?;
            total = sum(total, sum(key_size, value_size));
            if is_merge {
                merge(&mut map, value)?;
            } else {
                map.insert(key_text(key)?, value);
            }
        }
    }
}

fn sum(a: Size, b: Size) -> Size {
    Size { nodes: a.nodes + b.nodes, text_bytes: a.text_bytes + b.text_bytes }
}

/// Merges as Psych does: in place, so that a merge key also wins over keys written *before* it.
fn merge(map: &mut Map<String, Value>, value: Value) -> Result<(), Error> {
    match value {
        Value::Object(other) => map.extend(other),
        Value::Array(items) => {
            for item in items.into_iter().rev() {
                let Value::Object(other) = item else { return Err(Error::Merge) };
                map.extend(other);
            }
        }
        _ => return Err(Error::Merge),
    }
    Ok(())
}

fn key_text(key: Value) -> Result<String, Error> {
    match key {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        Value::Bool(_) | Value::Number(_) => Ok(key.to_string()),
        Value::Array(_) | Value::Object(_) => Err(Error::Key),
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Error> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { scalar::plain(text) } else { Value::from(text) });
    };
    match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str") => Ok(Value::from(text)),
        (true, "int" | "float" | "bool" | "null") => Ok(scalar::plain(text)),
        // `!` alone: not to be interpreted. `!binary` is what old release manifests carry.
        (false, "") => Ok(Value::from(text)),
        (_, "binary") => scalar::binary(text).ok_or_else(|| Error::Tag { tag: tag.to_string() }),
        _ => Err(Error::Tag { tag: tag.to_string() }),
    }
}

fn check_collection_tag(tag: Option<&Tag>, kind: &str) -> Result<(), Error> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == kind => Ok(()),
        Some(tag) => Err(Error::Tag { tag: tag.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, value: Value) {
        assert_eq!(parse(text).unwrap(), value, "{text}");
    }

    #[test]
    fn reads_yaml_1_1_scalars() {
        check(
            "a: yes\nb: Off\nc: ~\nd:\ne: y",
            json!({"a": true, "b": false, "c": null, "d": null, "e": "y"}),
        );
        check("[012, 0o17, 0x1f, 0b11, 1_000, 089]", json!([10, 15, 31, 3, 1000, "089"]));
        check("[1:30, -1:30:00, 1.5, 1., .5, 1e3, 1.0e+3]", json!([90, -5400, 1.5, 1.0, 0.5, "1e3", 1000.0]));
        check("[1.10, 1.2.3, 2020-01-02, '1', \"no\", :sym, '.']", {
            json!([1.1, "1.2.3", "2020-01-02", "1", "no", "sym", "."])
        });
        check("1: a\ntrue: b", json!({"1": "a", "true": "b"}));
    }

    #[test]
    fn expands_aliases_and_merge_keys() {
        check("a: &x {k: 1}\nb: *x", json!({"a": {"k": 1}, "b": {"k": 1}}));
        check("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}", json!({"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}}));
        check("a: &x {k: 1}\nc: &y {k: 2}\nb: {<<: [*x, *y]}", {
            json!({"a": {"k": 1}, "c": {"k": 2}, "b": {"k": 1}})
        });
    }

    #[test]
    fn refuses_tags_bombs_and_depth() {
        assert!(matches!(parse("a: !ruby/object:X {}"), Err(Error::Tag { .. })));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert_eq!(parse(&bomb), Err(Error::TooLarge));
        assert_eq!(parse(&"[".repeat(150)), Err(Error::TooLarge));
    }

    #[test]
    fn an_empty_or_flat_manifest_is_440001() {
        assert_eq!(parse_mapping("").unwrap_err().code, 440001);
        assert_eq!(parse_mapping("- a").unwrap_err().code, 440001);
        assert_eq!(parse_mapping("a: b: c").unwrap_err().code, 440001);
    }
}
