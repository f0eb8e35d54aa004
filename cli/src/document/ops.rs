//! Operations of ops files: `replace`, `remove` and `test` at a path.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::path::{self, Need, Side, Token};

/// One operation as written.
#[derive(Deserialize)]
struct Operation {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
    value: Option<Value>,
    #[serde(default)]
    absent: bool,
}

/// What to do at the end of a path.
enum Deed {
    Replace(Value),
    Remove,
}

/// What a `test` expects.
enum Wanted {
    Value(Value),
    Absent,
}

/// Applies a file of operations, in order. Errors are worded as the `bosh` CLI words them.
pub(super) fn apply_all(document: &mut Value, operations: &Value, file: &str) -> Result<(), String> {
    let operations = match operations {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        _ => return Err(format!("ops file `{file}` is not a list of operations")),
    };
    for (at, operation) in operations.iter().enumerate() {
        apply(document, operation)
            .map_err(|why| format!("Error 'operation [{at}] in {file} failed': {why}"))?;
    }
    Ok(())
}

fn apply(document: &mut Value, operation: &Value) -> Result<(), String> {
    let operation: Operation =
        serde_json::from_value(operation.clone()).map_err(|error| error.to_string())?;
    let text = operation.path.ok_or("Missing path")?;
    let tokens = path::parse(&text)?;
    match operation.kind.as_str() {
        "replace" => {
            let value = operation.value.ok_or("Missing value")?;
            change(document, &tokens, Deed::Replace(value), &text)
        }
        "remove" if operation.value.is_some() => Err("Cannot specify value".into()),
        "remove" if tokens.is_empty() => Err("Cannot remove entire document".into()),
        "remove" => change(document, &tokens, Deed::Remove, &text),
        "test" => {
            let wanted = match (operation.absent, operation.value) {
                (true, _) => Wanted::Absent,
                (false, value) => Wanted::Value(value.ok_or("Missing value")?),
            };
            test(document, &tokens, &wanted, &text)
        }
        other => Err(format!("Unknown operation type '{other}'")),
    }
}

fn test(document: &Value, tokens: &[Token], wanted: &Wanted, path: &str) -> Result<(), String> {
    match (wanted, find(document, tokens, path)) {
        (Wanted::Absent, Err(_)) => Ok(()),
        (Wanted::Absent, Ok(_)) => Err(format!("Expected to not find '{path}'")),
        (Wanted::Value(wanted), Ok(found)) if found == wanted => Ok(()),
        (Wanted::Value(_), Ok(_)) => Err(format!("Found value at '{path}' does not match the expected one")),
        (Wanted::Value(_), Err(why)) => Err(why),
    }
}

fn find<'a>(document: &'a Value, tokens: &[Token], path: &str) -> Result<&'a Value, String> {
    let mut here = document;
    for token in tokens {
        here = match token {
            Token::Key { key, .. } => hash_of(here, path)?.get(key).ok_or_else(|| missing_key(key, path))?,
            Token::AfterLast => return Err(format!("Expected not to find anything at '{path}'")),
            Token::Index { index, side } => {
                let items = list_of(here, path)?;
                &items[position(items.len(), *index, *side, path)?]
            }
            Token::Match { key, value, side, .. } => {
                let items = list_of(here, path)?;
                let at = only_match(items, key, value, path)?.ok_or_else(|| no_match(0, path))?;
                &items[position(items.len(), at as i64, *side, path)?]
            }
        };
    }
    Ok(here)
}

/// Walks to the end of the path and does the deed there.
fn change(here: &mut Value, tokens: &[Token], deed: Deed, path: &str) -> Result<(), String> {
    let Some((token, rest)) = tokens.split_first() else {
        if let Deed::Replace(value) = deed {
            *here = value;
        }
        return Ok(());
    };
    match token {
        Token::Key { key, need } => change_key(here, (key, *need), rest, deed, path),
        Token::AfterLast => match deed {
            Deed::Replace(value) => {
                list_of_mut(here, path)?.push(value);
                Ok(())
            }
            Deed::Remove => Err(format!("Expected to find an item at '{path}'")),
        },
        Token::Index { index, side } => {
            let items = list_of_mut(here, path)?;
            change_item(items, *index, *side, rest, deed, path)
        }
        Token::Match { key, value, need, side } => {
            let items = list_of_mut(here, path)?;
            match (only_match(items, key, value, path)?, need, deed) {
                (Some(at), _, deed) => change_item(items, at as i64, *side, rest, deed, path),
                (None, Need::May, Deed::Remove) => Ok(()),
                (None, Need::May, Deed::Replace(new)) if rest.is_empty() => {
                    items.push(new);
                    Ok(())
                }
                (None, Need::May, deed) => {
                    let mut item =
                        Value::Object(Map::from_iter([(key.clone(), Value::from(value.as_str()))]));
                    change(&mut item, rest, deed, path)?;
                    items.push(item);
                    Ok(())
                }
                (None, Need::Must, _) => Err(no_match(0, path)),
            }
        }
    }
}

fn change_key(
    here: &mut Value,
    (key, need): (&str, Need),
    rest: &[Token],
    deed: Deed,
    path: &str,
) -> Result<(), String> {
    let entries = hash_of_mut(here, path)?;
    match (entries.contains_key(key), rest.is_empty(), &deed) {
        (false, true, Deed::Replace(_)) | (false, false, Deed::Replace(_)) if need == Need::May => {
            // What comes next tells what to create.
            let empty = match rest.first() {
                Some(Token::AfterLast | Token::Index { .. } | Token::Match { .. }) => {
                    Value::Array(Vec::new())
                }
                _ => Value::Object(Map::new()),
            };
            change(entries.entry(key).or_insert(empty), rest, deed, path)
        }
        (false, _, Deed::Remove) if need == Need::May => Ok(()),
        (false, ..) => Err(missing_key(key, path)),
        (true, true, Deed::Remove) => {
            entries.shift_remove(key);
            Ok(())
        }
        (true, ..) => change(&mut entries[key], rest, deed, path),
    }
}

fn change_item(
    items: &mut Vec<Value>,
    index: i64,
    side: Side,
    rest: &[Token],
    deed: Deed,
    path: &str,
) -> Result<(), String> {
    match (side, deed) {
        (Side::Before | Side::After, Deed::Replace(value)) => {
            let at = position(items.len(), index, Side::At, path)?;
            items.insert(at + usize::from(side == Side::After), value);
            Ok(())
        }
        (_, Deed::Remove) if rest.is_empty() => {
            let at = position(items.len(), index, side, path)?;
            items.remove(at);
            Ok(())
        }
        (_, deed) => {
            let at = position(items.len(), index, side, path)?;
            change(&mut items[at], rest, deed, path)
        }
    }
}

fn position(len: usize, index: i64, side: Side, path: &str) -> Result<usize, String> {
    let base = if index < 0 { index + len as i64 } else { index };
    let at = match side {
        Side::Prev => base - 1,
        Side::Next => base + 1,
        Side::At | Side::Before | Side::After => base,
    };
    let found = usize::try_from(at).ok().filter(|&at| at < len && base >= 0);
    found.ok_or_else(|| {
        format!("Expected to find array index '{index}' but found array of length '{len}' for path '{path}'")
    })
}

fn only_match(items: &[Value], key: &str, wanted: &str, path: &str) -> Result<Option<usize>, String> {
    let matches = |item: &Value| item.get(key).and_then(Value::as_str) == Some(wanted);
    let found: Vec<usize> = (0..items.len()).filter(|&at| matches(&items[at])).collect();
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        several => Err(no_match(several.len(), path)),
    }
}

fn no_match(found: usize, path: &str) -> String {
    format!("Expected to find exactly one matching array item for path '{path}' but found {found}")
}

fn missing_key(key: &str, path: &str) -> String {
    format!("Expected to find a map key '{key}' for path '{path}'")
}

fn hash_of<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("Expected to find a map on the way of path '{path}'"))
}

fn hash_of_mut<'a>(value: &'a mut Value, path: &str) -> Result<&'a mut Map<String, Value>, String> {
    value.as_object_mut().ok_or_else(|| format!("Expected to find a map on the way of path '{path}'"))
}

fn list_of<'a>(value: &'a Value, path: &str) -> Result<&'a Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("Expected to find an array on the way of path '{path}'"))
}

fn list_of_mut<'a>(value: &'a mut Value, path: &str) -> Result<&'a mut Vec<Value>, String> {
    value.as_array_mut().ok_or_else(|| format!("Expected to find an array on the way of path '{path}'"))
}
