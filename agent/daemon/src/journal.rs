//! Results of requests, kept so that a repeated id is answered from the record, also after a restart of the agent.
//!
//! One file per request, named by a growing number; bounded in count, bytes and age. Losing the oldest is harmless: a
//! leader asks again within minutes, not days.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use model::RequestId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use crate::durable::{self, Readers};
use crate::storage::Storage;

/// Most results kept: a deploy makes about a dozen requests per instance.
const RECORDS_MAX: usize = 512;

/// Most bytes kept; errand output is the bulk of it.
const BYTES_MAX: usize = 32 << 20;

/// Oldest result kept: longer than any leader change takes.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With this result.
    Value(Value),
    /// With this failure.
    Failed(String),
    /// Given up on request.
    Cancelled,
    /// The method does not exist here.
    UnknownMethod,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    request: RequestId,
    method: String,
    /// None: begun, and not ended when the record was written.
    ending: Option<Ending>,
    at_unix: u64,
}

struct Kept {
    number: u64,
    bytes: usize,
    record: Record,
}

/// What the journal knows of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// Nothing.
    Unknown,
    /// It began, and the agent was restarted before it ended.
    Interrupted,
    /// It ended.
    Ended(Ending),
}

/// The journal; see the module's header.
pub struct Journal {
    directory: Option<PathBuf>,
    kept: VecDeque<Kept>,
    bytes: usize,
    next_number: u64,
}

/// A file to write and files to remove: the slow half of a change, done without holding the journal.
#[derive(Debug, Default)]
#[must_use]
pub struct Changes {
    write: Option<(PathBuf, Vec<u8>)>,
    remove: Vec<PathBuf>,
}

impl Changes {
    /// Carries the changes out. Blocks.
    pub fn carry_out(self) -> io::Result<()> {
        if let Some((path, content)) = self.write {
            durable::write(&path, &content, Readers::Owner)?;
        }
        for path in self.remove {
            // One that is gone is gone; others are found by the next start.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

impl Journal {
    /// Reads what earlier lives of the agent recorded. Unreadable records are dropped with a warning.
    pub fn open(storage: &Storage) -> io::Result<Self> {
        let Storage::Disk(layout) = storage else {
            return Ok(Self { directory: None, kept: VecDeque::new(), bytes: 0, next_number: 0 });
        };
        let directory = layout.requests();
        fs::create_dir_all(&directory)?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            match read(&path) {
                Some(found) => kept.push(found),
                None => {
                    warn!(path = %path.display(), "an unreadable record of a request is dropped");
                    fs::remove_file(&path)?;
                }
            }
        }
        kept.sort_by_key(|kept| kept.number);
        let next_number = kept.last().map_or(0, |last| last.number + 1);
        let bytes = kept.iter().map(|kept| kept.bytes).sum();
        Ok(Self { directory: Some(directory), kept: kept.into(), bytes, next_number })
    }

    /// Looks a request up.
    pub fn find(&self, request: &RequestId) -> Recorded {
        match self.kept.iter().rev().find(|kept| kept.record.request == *request) {
            None => Recorded::Unknown,
            Some(Kept { record: Record { ending: None, .. }, .. }) => Recorded::Interrupted,
            Some(Kept { record: Record { ending: Some(ending), .. }, .. }) => Recorded::Ended(ending.clone()),
        }
    }

    /// Returns the newest requests' ids, newest last.
    pub fn newest(&self, count: usize) -> Vec<RequestId> {
        let skip = self.kept.len().saturating_sub(count);
        self.kept.iter().skip(skip).map(|kept| kept.record.request.clone()).collect()
    }

    /// Records that a request begins.
    pub fn begin(&mut self, request: &RequestId, method: &str) -> Changes {
        self.put(request, method, None)
    }

    /// Records how a request ended.
    pub fn end(&mut self, request: &RequestId, method: &str, ending: Ending) -> Changes {
        self.put(request, method, Some(ending))
    }

    fn put(&mut self, request: &RequestId, method: &str, ending: Option<Ending>) -> Changes {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let record =
            Record { request: request.clone(), method: method.to_owned(), ending, at_unix: now.as_secs() };
        let content = serde_json::to_vec(&record).expect("a record is JSON throughout");
        let (number, bytes) = (self.next_number, content.len());
        self.next_number += 1;
        let mut changes = Changes::default();
        if let Some(place) = self.kept.iter().position(|kept| kept.record.request == *request) {
            self.remove(place, &mut changes);
        }
        self.kept.push_back(Kept { number, bytes, record });
        self.bytes += bytes;
        while self.is_over_bounds(now) {
            self.remove(0, &mut changes);
        }
        changes.write = self.path(number).map(|path| (path, content));
        changes
    }

    fn is_over_bounds(&self, now: Duration) -> bool {
        // The newest always stays: it is the one somebody waits for.
        self.kept.len() > 1
            && (self.kept.len() > RECORDS_MAX
                || self.bytes > BYTES_MAX
                || self.kept[0].record.at_unix + AGE_MAX.as_secs() < now.as_secs())
    }

    fn remove(&mut self, place: usize, changes: &mut Changes) {
        if let Some(gone) = self.kept.remove(place) {
            self.bytes -= gone.bytes;
            changes.remove.extend(self.path(gone.number));
        }
    }

    fn path(&self, number: u64) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(format!("{number:012}.json")))
    }
}

fn read(path: &std::path::Path) -> Option<Kept> {
    let number = path.file_stem()?.to_str()?.parse().ok()?;
    let content = fs::read(path).ok()?;
    let record = serde_json::from_slice(&content).ok()?;
    Some(Kept { number, bytes: content.len(), record })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::layout::Layout;

    fn end(journal: &mut Journal, id: &str, value: Value) {
        journal.end(&id.into(), "run_errand", Ending::Value(value)).carry_out().unwrap();
    }

    #[test]
    fn what_was_recorded_is_found_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::Disk(Layout::new(dir.path()));
        let mut journal = Journal::open(&storage).unwrap();
        journal.begin(&"begun".into(), "run_errand").carry_out().unwrap();
        journal.begin(&"ended".into(), "run_errand").carry_out().unwrap();
        end(&mut journal, "ended", json!(7));

        fs::write(Layout::new(dir.path()).requests().join("000000000099.json"), "{half a rec").unwrap();
        let journal = Journal::open(&storage).unwrap();
        assert_eq!(journal.find(&"begun".into()), Recorded::Interrupted);
        assert_eq!(journal.find(&"ended".into()), Recorded::Ended(Ending::Value(json!(7))));
        assert_eq!(journal.find(&"other".into()), Recorded::Unknown);
        assert_eq!(journal.newest(9), ["begun".into(), "ended".into()]);
    }

    #[test]
    fn the_oldest_records_make_room_on_disk_too() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::Disk(Layout::new(dir.path()));
        let mut journal = Journal::open(&storage).unwrap();
        for number in 0..RECORDS_MAX + 3 {
            end(&mut journal, &number.to_string(), Value::Null);
        }
        assert_eq!(journal.find(&"2".into()), Recorded::Unknown);
        assert_ne!(journal.find(&"3".into()), Recorded::Unknown);
        assert_eq!(fs::read_dir(Layout::new(dir.path()).requests()).unwrap().count(), RECORDS_MAX);
    }

    #[test]
    fn bytes_are_bounded_but_the_newest_stays() {
        let mut journal = Journal::open(&Storage::Memory).unwrap();
        end(&mut journal, "small", Value::Null);
        end(&mut journal, "huge", json!("x".repeat(BYTES_MAX + 1)));
        assert_eq!(journal.find(&"small".into()), Recorded::Unknown);
        assert_ne!(journal.find(&"huge".into()), Recorded::Unknown);
    }
}
