//! A register: what can be asked of it, and how that is told to Knossos and to Elle.

use std::sync::Arc;

use crate::history::{self, edn};

/// What a register holds; none before the first write.
pub type Value = Option<u64>;

/// Something asked of the register of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which one.
    pub key: Arc<str>,
    /// What is asked.
    pub what: What,
}

/// What can be asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// What it holds.
    Read,
    /// To hold this.
    Write(u64),
    /// To hold `new` if it holds `expected`.
    CompareAndSet {
        /// What it must hold.
        expected: Value,
        /// What it holds then.
        new: u64,
    },
}

/// What a register answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It holds this.
    Read(Value),
    /// Written.
    Written,
    /// It held what was expected, and holds the new value.
    Swapped,
    /// It held something else, and still does.
    Mismatch,
}

impl history::Call for Call {
    type Answer = Answer;
}

/// The form for Knossos: `:read`, `:write` and `:cas`, with Jepsen's `[key value]` for independent keys.
#[derive(Clone, Copy, Debug)]
pub struct Knossos;

impl edn::Form<Call> for Knossos {
    fn function(&self, call: &Call) -> &'static str {
        match call.what {
            What::Read => "read",
            What::Write(_) => "write",
            What::CompareAndSet { .. } => "cas",
        }
    }

    fn value(&self, call: &Call, answer: Option<&Answer>) -> String {
        let value = match (call.what, answer) {
            (What::Read, Some(Answer::Read(value))) => word(*value),
            (What::Read, _) => word(None),
            (What::Write(value), _) => value.to_string(),
            (What::CompareAndSet { expected, new }, _) => format!("[{} {new}]", word(expected)),
        };
        format!("[{} {value}]", edn::string(&call.key))
    }

    fn is_refusal(&self, answer: &Answer) -> bool {
        *answer == Answer::Mismatch
    }
}

/// The form for Elle's `rw-register`: each call is a transaction, a compare-and-set one that reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Elle;

impl edn::Form<Call> for Elle {
    fn function(&self, _call: &Call) -> &'static str {
        "txn"
    }

    fn value(&self, call: &Call, answer: Option<&Answer>) -> String {
        let key = edn::string(&call.key);
        match (call.what, answer) {
            (What::Read, Some(Answer::Read(value))) => format!("[[:r {key} {}]]", word(*value)),
            (What::Read, _) => format!("[[:r {key} nil]]"),
            (What::Write(value), _) => format!("[[:w {key} {value}]]"),
            // What it read is known only once it has happened.
            (What::CompareAndSet { new, .. }, None) => format!("[[:r {key} nil] [:w {key} {new}]]"),
            (What::CompareAndSet { expected, new }, Some(_)) => {
                format!("[[:r {key} {}] [:w {key} {new}]]", word(expected))
            }
        }
    }

    fn is_refusal(&self, answer: &Answer) -> bool {
        *answer == Answer::Mismatch
    }
}

fn word(value: Value) -> String {
    value.map_or("nil".to_owned(), |value| value.to_string())
}
