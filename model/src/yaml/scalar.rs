//! What plain scalars mean in Psych: its regular expressions, as functions.

use base64::Engine as _;
use serde_json::Value;

/// Returns the value that Psych gives a plain (unquoted) scalar.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        _ => {}
    }
    // Every other special form starts with one of these; names and sentences leave here.
    let first = text.as_bytes()[0];
    if !first.is_ascii_digit() && !b"+-.:yYnNtTfFoO".contains(&first) {
        return Value::from(text);
    }
    boolean(text)
        .or_else(|| integer(text))
        .or_else(|| sexagesimal(text))
        .or_else(|| float(text))
        .unwrap_or_else(|| Value::from(symbol(text).unwrap_or(text)))
}

/// Returns the text of a base64 scalar, if it is text.
pub(super) fn binary(text: &str) -> Option<Value> {
    let packed: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).ok()?;
    String::from_utf8(bytes).ok().map(Value::from)
}

fn boolean(text: &str) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Some(Value::Bool(true)),
        "no" | "false" | "off" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// A symbol reads as its name: templates print it that way.
fn symbol(text: &str) -> Option<&str> {
    let name = text.strip_prefix(':').filter(|n| !n.is_empty() && !n.starts_with(':'))?;
    Some(name.trim_matches(|c| c == '"' || c == '\''))
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

fn signed(negative: bool, digits: &str, radix: u32) -> Option<Value> {
    let digits: String = digits.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let magnitude = i128::from_str_radix(&digits, radix).ok()?;
    let number = if negative { -magnitude } else { magnitude };
    i64::try_from(number).map(Value::from).or_else(|_| u64::try_from(number).map(Value::from)).ok()
}

fn integer(text: &str) -> Option<Value> {
    let (negative, body) = split_sign(text);
    let all = |digits: &str, ok: fn(char) -> bool| {
        !digits.is_empty() && digits.chars().all(|c| ok(c) || matches!(c, '_' | ','))
    };
    if body == "0" {
        return Some(Value::from(0));
    }
    if let Some(digits) = body.strip_prefix("0b") {
        return all(digits, |c| matches!(c, '0' | '1')).then(|| signed(negative, digits, 2)).flatten();
    }
    if let Some(digits) = body.strip_prefix("0x") {
        return all(digits, |c| c.is_ascii_hexdigit()).then(|| signed(negative, digits, 16)).flatten();
    }
    if let Some(digits) = body.strip_prefix('0') {
        let digits = digits.strip_prefix('o').unwrap_or(digits);
        return all(digits, |c| ('0'..='7').contains(&c)).then(|| signed(negative, digits, 8)).flatten();
    }
    let starts = body.starts_with(|c: char| c.is_ascii_digit());
    let ends = body.ends_with(|c: char| c.is_ascii_digit());
    (starts && ends && all(body, |c| c.is_ascii_digit())).then(|| signed(negative, body, 10)).flatten()
}

/// `1:30` is ninety, as in times of day.
fn sexagesimal(text: &str) -> Option<Value> {
    let (negative, body) = split_sign(text);
    let parts: Vec<&str> = body.split(':').collect();
    if !(2..=3).contains(&parts.len()) || !parts[0].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut total: i64 = 0;
    for (i, part) in parts.iter().enumerate() {
        let digits = part.replace('_', "");
        let number: i64 = digits.parse().ok().filter(|n: &i64| *n >= 0)?;
        if i > 0 && (number > 59 || digits.len() > 2 || digits.starts_with('+')) {
            return None;
        }
        total = total.checked_mul(60)?.checked_add(number)?;
    }
    Some(Value::from(if negative { -total } else { total }))
}

/// A float needs its dot: `1e3` is text in Psych.
fn float(text: &str) -> Option<Value> {
    let (_, body) = split_sign(text);
    let (whole, rest) = body.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let digits = |t: &str| t.chars().all(|c| c.is_ascii_digit());
    let whole_ok =
        whole.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | ',')) && !whole.starts_with(['_', ',']);
    let exponent_ok = exponent.is_none_or(|e| e.starts_with(['+', '-']) && e.len() > 1 && digits(&e[1..]));
    if !whole_ok || !digits(fraction) || !exponent_ok || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let packed: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let number: f64 = packed.parse().ok()?;
    serde_json::Number::from_f64(number).map(Value::Number)
}
