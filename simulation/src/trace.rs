//! What happened, in order: as one number that stands for all of it, and as lines for whoever wants to read them.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock;
use crate::invariants::{Event, LogChange};

/// A trace. Clones go on with the same file.
#[derive(Clone, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    file: Option<Arc<Mutex<std::io::BufWriter<std::fs::File>>>>,
}

impl Trace {
    /// Returns one that is also written to a file.
    pub fn to(file: std::fs::File) -> Self {
        Self { file: Some(Arc::new(Mutex::new(std::io::BufWriter::new(file)))), ..Self::default() }
    }

    /// Returns the number that stands for everything so far.
    pub fn digest(&self) -> u64 {
        self.hash
    }

    /// Returns how many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Writes down what is not written yet.
    pub fn flush(&self) {
        if let Some(file) = &self.file {
            // As with each line.
            let _ = file.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }

    /// Notes a line.
    pub fn line(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        self.take(line.as_bytes());
        self.write(|| line);
    }

    /// Notes an event.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Leads { replica, term } => {
                self.take(&[*replica, *term].map(u64::to_be_bytes).concat());
                self.write(|| format!("replica {replica} leads term {term}"));
            }
            Event::LogWritten { replica, rows } => {
                for row in *rows {
                    let (index, term) = match row {
                        LogChange::Put(row) => (row.index, row.term),
                        LogChange::Remove(from, to) => (*from, *to),
                    };
                    self.take(&[*replica, index, term].map(u64::to_be_bytes).concat());
                    self.write(|| match row {
                        LogChange::Put(row) => {
                            format!("replica {replica} writes entry {} of term {}", row.index, row.term)
                        }
                        LogChange::Remove(from, to) => {
                            format!("replica {replica} removes entries {from}..{to}")
                        }
                    });
                }
            }
            Event::LogFound { replica, rows } => {
                self.take(&[*replica, rows.len() as u64].map(u64::to_be_bytes).concat());
                self.write(|| format!("replica {replica} starts with {} entries", rows.len()));
            }
            Event::Applied { replica, index, entry, answer, .. } => {
                self.take(&[*replica, *index].map(u64::to_be_bytes).concat());
                self.take(entry);
                self.take(answer);
                self.write(|| {
                    let command = state::command::Entry::decode(entry)
                        .map(|entry| format!("{:?}", entry.command))
                        .unwrap_or_default();
                    format!("replica {replica} applies {index}: {}", short(&command))
                });
            }
            Event::Asked { replica, epoch, what } => {
                self.take(what.as_bytes());
                self.take(&[*replica, epoch.0].map(u64::to_be_bytes).concat());
                self.write(|| format!("replica {replica} asks for {what} (epoch {epoch})"));
            }
            Event::Obeyed { agent, epoch, what, .. } => {
                self.take(what.as_bytes());
                self.write(|| format!("agent {agent} did {what} (epoch {epoch})"));
            }
            Event::Acknowledged { replica, agent } => {
                self.take(&replica.to_be_bytes());
                self.take(agent.as_str().as_bytes());
                self.write(|| format!("replica {replica} hears agent {agent}"));
            }
            Event::State { index, .. } => self.take(&index.to_be_bytes()),
            Event::Deed { context, call, .. } => {
                let epoch = context.map_or(0, |context| context.epoch.0);
                self.take(call.method().as_bytes());
                self.take(call.object().as_bytes());
                self.take(&epoch.to_be_bytes());
                self.write(|| format!("cloud: {} {} (epoch {epoch})", call.method(), call.object()));
            }
            Event::Refused { call } => {
                self.take(call.object().as_bytes());
                self.write(|| format!("cloud: refuses {} {}", call.method(), call.object()));
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.events += 1;
        let now = clock::now_ms().to_be_bytes();
        for byte in bytes.iter().chain(&now) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
        }
    }

    fn write(&self, line: impl FnOnce() -> String) {
        let Some(file) = &self.file else { return };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // A trace that can't be written is missed by whoever looks for it.
        let _ = writeln!(file, "{:>8} {}", clock::now_ms(), line());
    }
}

fn short(text: &str) -> String {
    text.chars().take(160).collect()
}
