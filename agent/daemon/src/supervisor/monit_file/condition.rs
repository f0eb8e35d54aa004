//! What stands between `if` and `then`.

use std::path::PathBuf;

use super::tokens::Token;
use super::{MemoryOf, RestartLimit, Subject, Test, Then};

/// A condition that we act on.
pub(super) enum Condition {
    Test(Test),
    Restarts(RestartLimit),
}

/// Reads a condition; `None` for one that we do not act on.
pub(super) fn read(words: &[Token], then: Then) -> Option<Condition> {
    let first = words.first()?;
    if words.get(1).is_some_and(|word| word.is("restart") || word.is("restarts")) {
        let (restarts, cycles) = (first.text.parse().ok()?, words.get(2)?.text.parse().ok()?);
        return Some(Condition::Restarts(RestartLimit { restarts, cycles, then }));
    }
    let subject = match first.keyword().as_str() {
        "mem" | "memory" => memory(&words[1..], MemoryOf::Process)?,
        "totalmem" | "totalmemory" => memory(&words[1..], MemoryOf::Tree)?,
        "failed" => connection(&words[1..])?,
        _ => return None,
    };
    Some(Condition::Test(Test { subject, cycles: cycles(words), then }))
}

/// `> 500 MB`. A share of the machine's memory (`%`) is not acted on.
fn memory(words: &[Token], of: MemoryOf) -> Option<Subject> {
    let operator = words.first()?;
    if !(operator.is(">") || operator.is("gt") || operator.is("greater")) {
        return None;
    }
    let split = words.get(1)?.text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, attached) = words[1].text.split_at(split.unwrap_or(words[1].text.len()));
    let unit = if attached.is_empty() {
        words.get(2).map_or(String::new(), Token::keyword)
    } else {
        attached.into()
    };
    let factor = match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => 1.0 / 1024.0,
        "mb" | "megabyte" | "megabytes" => 1024.0,
        "gb" | "gigabyte" | "gigabytes" => 1024.0 * 1024.0,
        "%" | "percent" => return None,
        _ => 1.0,
    };
    let kib = number.parse::<f64>().ok()? * factor;
    Some(Subject::MemoryOver { kib: kib as u64, of })
}

fn connection(words: &[Token]) -> Option<Subject> {
    let after = |keyword: &str| {
        words
            .iter()
            .position(|word| word.is(keyword))
            .and_then(|at| words.get(at + 1))
            .map(|word| word.text.clone())
    };
    if let Some(path) = after("unixsocket").or_else(|| after("unix")) {
        return Some(Subject::SocketFails(PathBuf::from(path)));
    }
    // A datagram needs a protocol to be tested.
    if after("type").is_some_and(|kind| kind.eq_ignore_ascii_case("udp")) {
        return None;
    }
    let port: u16 = after("port")?.parse().ok()?;
    Some(Subject::PortFails(format!("{}:{port}", after("host").unwrap_or_else(|| "127.0.0.1".into()))))
}

/// `for 3 cycles`, `for 3 times within 5 cycles` (taken as 3 in a row), or 1.
fn cycles(words: &[Token]) -> u32 {
    let number_before = |keywords: &[&str]| {
        let at = words.iter().position(|word| keywords.iter().any(|keyword| word.is(keyword)))?;
        words.get(at.checked_sub(1)?)?.text.parse().ok()
    };
    number_before(&["times", "time"]).or_else(|| number_before(&["cycles", "cycle"])).unwrap_or(1)
}
