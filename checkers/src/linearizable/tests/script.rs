//! Histories as one line of text: `0 write x 1 | 1 read x | 0 ok | 1 ok 1`, one event a millisecond.

use crate::history::{Event, History, What as Said};
use crate::linearizable::register::{Answer, Call, Value, What};

/// Reads a script. Ends: `ok`, `ok VALUE` (of a read), `no` (of a compare-and-set), `fail`, `info`.
pub fn history(script: &str) -> History<Call> {
    let mut asked: Vec<Option<What>> = vec![None; 100];
    let events = script.split('|').enumerate().map(|(number, text)| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let process: usize = words[0].parse().unwrap();
        let said = match words[1..] {
            ["ok"] if matches!(asked[process], Some(What::Write(_))) => Said::Ok(Answer::Written),
            ["ok"] => Said::Ok(Answer::Swapped),
            ["ok", held] => Said::Ok(Answer::Read(value(held))),
            ["no"] => Said::Ok(Answer::Mismatch),
            ["fail"] => Said::Fail("refused".into()),
            ["info"] => Said::Unknown("cut".into()),
            ref call => Said::Invoke(parse(call)),
        };
        if let Said::Invoke(call) = &said {
            asked[process] = Some(call.what);
        }
        Event { process: process as u64, at_us: number as u64 * 1000, what: said }
    });
    History::new(events.collect()).unwrap()
}

fn parse(words: &[&str]) -> Call {
    let (key, what) = match *words {
        ["read", key] => (key, What::Read),
        ["write", key, new] => (key, What::Write(new.parse().unwrap())),
        ["cas", key, expected, new] => {
            (key, What::CompareAndSet { expected: value(expected), new: new.parse().unwrap() })
        }
        _ => panic!("not an event: {words:?}"),
    };
    Call { key: key.into(), what }
}

fn value(word: &str) -> Value {
    (word != "nil").then(|| word.parse().unwrap())
}
