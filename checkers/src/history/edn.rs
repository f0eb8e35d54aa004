//! A history as EDN, one map a line, as Jepsen's Knossos and Elle read it.
//!
//! `{:process 0, :type :invoke, :f :read, :value ["k" nil], :time 12000, :index 0}`. Times are nanoseconds, as theirs
//! are. How a call is told is a [`Form`]'s choice, since the two readers want different words for the same thing.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Call, History, What};

/// How the calls of a history are told.
pub trait Form<C: Call> {
    /// Returns the name of the function, without its colon.
    fn function(&self, call: &C) -> &'static str;

    /// Returns the value as EDN: of the invocation, or with the answer once there is one.
    fn value(&self, call: &C, answer: Option<&C::Answer>) -> String;

    /// Returns whether an answer says that nothing happened, which EDN's readers call a failure.
    fn is_refusal(&self, answer: &C::Answer) -> bool;
}

/// Writes a history, one event a line.
///
/// # Errors
///
/// If the destination does not take it.
pub fn write<C: Call>(history: &History<C>, form: &impl Form<C>, to: &mut impl Write) -> io::Result<()> {
    let mut asked: BTreeMap<u64, &C> = BTreeMap::new();
    for (index, event) in history.events().iter().enumerate() {
        if let What::Invoke(call) = &event.what {
            asked.insert(event.process, call);
        }
        // A well-formed history ends nothing that was not begun.
        let Some(call) = asked.get(&event.process) else { continue };
        let (kind, answer, why) = match &event.what {
            What::Invoke(_) => ("invoke", None, None),
            What::Ok(answer) if form.is_refusal(answer) => ("fail", None, None),
            What::Ok(answer) => ("ok", Some(answer), None),
            What::Fail(why) => ("fail", None, Some(why)),
            What::Unknown(why) => ("info", None, Some(why)),
        };
        let (process, function) = (event.process, form.function(call));
        let (value, time_ns) = (form.value(call, answer), event.at_us.saturating_mul(1000));
        write!(to, "{{:process {process}, :type :{kind}, :f :{function}, :value {value}, ")?;
        write!(to, ":time {time_ns}, :index {index}")?;
        if let Some(why) = why {
            write!(to, ", :error {}", string(why))?;
        }
        writeln!(to, "}}")?;
    }
    Ok(())
}

/// Returns a string in EDN's notation.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // EDN has no notation for the other control characters within strings.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
