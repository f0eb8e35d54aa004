//! Typed access to the keys of a document, with BOSH's complaints about them.
//!
//! A key that is present with a null value is of the wrong type, not absent. Unknown keys pass. Numbers stand in for
//! text. Whoever reads keys in another order than BOSH reports another of several mistakes, so order is contract.

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::task::TaskError;

/// The shortest way to say what all readers of documents return.
pub type Checked<T> = Result<T, TaskError>;

/// A mapping being read.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// Reads a mapping.
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Self(map)
    }

    /// Reads `value`, which must be a mapping (40000).
    pub fn of(value: &'a Value) -> Checked<Self> {
        value.as_object().map(Self).ok_or_else(|| {
            TaskError::new(
                ErrorCode::ValidationInvalidType,
                format!("Object ({}) did not match the required type 'Hash'", inspect(value)),
            )
        })
    }

    /// Returns whether the key is there, null or not.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Returns the value as it is.
    pub fn raw(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key)
    }

    /// Returns text that may be absent; a number counts as text.
    pub fn text_opt(&self, key: &str) -> Checked<Option<String>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(wrong_type(key, other, "String")),
        }
    }

    /// Returns text that must be there.
    pub fn text(&self, key: &str) -> Checked<String> {
        self.text_opt(key)?.ok_or_else(|| self.missing(key))
    }

    /// Returns an integer that may be absent.
    pub fn integer_opt(&self, key: &str) -> Checked<Option<i64>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong_type(key, value, "Integer")),
        }
    }

    /// Returns an integer that must be there.
    pub fn integer(&self, key: &str) -> Checked<i64> {
        self.integer_opt(key)?.ok_or_else(|| self.missing(key))
    }

    /// Returns a boolean that may be absent.
    pub fn boolean_opt(&self, key: &str) -> Checked<Option<bool>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(value) => value.as_bool().map(Some).ok_or_else(|| wrong_type(key, value, "boolean")),
        }
    }

    /// Returns a list that may be absent.
    pub fn list_opt(&self, key: &str) -> Checked<Option<&'a [Value]>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong_type(key, other, "Array")),
        }
    }

    /// Returns a list that must be there.
    pub fn list(&self, key: &str) -> Checked<&'a [Value]> {
        self.list_opt(key)?.ok_or_else(|| self.missing(key))
    }

    /// Returns a list, empty if absent.
    pub fn list_or_empty(&self, key: &str) -> Checked<&'a [Value]> {
        Ok(self.list_opt(key)?.unwrap_or(&[]))
    }

    /// Returns a mapping that may be absent.
    pub fn mapping_opt(&self, key: &str) -> Checked<Option<&'a Map<String, Value>>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(wrong_type(key, other, "Hash")),
        }
    }

    /// Returns a mapping that must be there.
    pub fn mapping(&self, key: &str) -> Checked<&'a Map<String, Value>> {
        self.mapping_opt(key)?.ok_or_else(|| self.missing(key))
    }

    /// Returns a mapping as a value, empty if absent.
    pub fn mapping_or_empty(&self, key: &str) -> Checked<Value> {
        Ok(Value::Object(self.mapping_opt(key)?.cloned().unwrap_or_default()))
    }

    /// Says that a required key is missing (40001).
    pub fn missing(&self, key: &str) -> TaskError {
        TaskError::new(
            ErrorCode::ValidationMissingField,
            format!(
                "Required property '{key}' was not specified in object ({})",
                inspect(&Value::Object(self.0.clone()))
            ),
        )
    }
}

/// Says that a key's value is of the wrong type (40000).
pub fn wrong_type(key: &str, value: &Value, wanted: &str) -> TaskError {
    TaskError::new(
        ErrorCode::ValidationInvalidType,
        format!("Property '{key}' value ({}) did not match the required type '{wanted}'", inspect(value)),
    )
}

/// Returns a value as Ruby's `inspect` writes it, which operators know from the messages.
pub fn inspect(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => inspect_text(text),
        Value::Array(items) => format!("[{}]", items.iter().map(inspect).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(k, v)| format!("{} => {}", inspect_text(k), inspect(v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

fn inspect_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{1b}' => out.push_str("\\e"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Bytes of a name that is stored and becomes a part of paths and of other names.
const IDENTIFIER_BYTES_MAX: usize = 255;

/// Returns whether a text may name a deployment, a release, a job, a package or a version of one.
pub fn is_identifier(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '.');
    let is_path = matches!(text, "." | "..");
    (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()) && text.chars().all(is_plain) && !is_path
}

/// Returns a DNS label: lower case, `_` as `-`, everything else that is no letter, digit or hyphen dropped (420001).
pub fn canonical(name: &str) -> Checked<String> {
    let label: String = name
        .chars()
        .map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() })
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
        .collect();
    let fault = match () {
        () if label.starts_with('-') => "start",
        () if label.ends_with('-') => "end",
        () => return Ok(label),
    };
    Err(TaskError::new(
        ErrorCode::DnsInvalidCanonicalName,
        format!("Invalid DNS canonical name '{label}', cannot {fault} with a hyphen"),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_is_a_type_error_and_numbers_are_text() {
        let document = json!({"a": null, "v": 1.1, "b": true});
        let fields = Fields::of(&document).unwrap();
        assert_eq!(
            fields.text_opt("a").unwrap_err().message,
            "Property 'a' value (nil) did not match the required type 'String'"
        );
        assert_eq!(fields.text("v").unwrap(), "1.1");
        assert_eq!(fields.text("b").unwrap_err().code, 40000);
        assert_eq!(
            fields.text("z").unwrap_err().message,
            "Required property 'z' was not specified in object ({\"a\" => nil, \"v\" => 1.1, \"b\" => true})"
        );
    }

    #[test]
    fn names_become_dns_labels() {
        assert_eq!(canonical("My_App!1").unwrap(), "my-app1");
        assert_eq!(canonical("_g").unwrap_err().code, 420001);
    }
}
