//! What came back, against what is recorded: by structure, and by values except where they vary from run to run.
//!
//! Which values vary is known by the names of their fields; everything else must be equal. Rows whose order is chance
//! (instances, what is done in parallel) are matched by what they say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::names::{Kind, Names};
use super::text;
use chaos_tests::recorded::{Difference, is_uuid};

/// Fields whose rows come in any order, and lists that do.
const UNORDERED: &[&str] = &[
    "events",
    "lines",
    "instances",
    "vms",
    "links",
    "link_providers",
    "link_consumers",
    "disks",
    "orphaned_vms",
    "job_names",
    "errands",
];

/// Fields that were measured: of the same kind is enough.
const MEASURED: &[&str] = &["vitals", "cpu", "mem", "uptime", "percent", "kb", "processes"];

/// How the values of a field are compared.
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    Equal,
    /// Both are times that look alike.
    Moment,
    /// Both are of one kind.
    Measure,
    Address,
    Named(Kind),
    /// A name, or the number of a VM.
    Object,
    /// What was sent is said again, whether there is such a thing or not.
    Echo(Kind),
}

/// Returns the rule for a field, given the list that it is part of.
fn rule(noun: &str, at: &str) -> Rule {
    let field = at.rsplit('.').next().unwrap_or(at).trim_end_matches("[]");
    if at.split(['.', '[']).any(|part| MEASURED.contains(&part)) {
        return Rule::Measure;
    }
    match field {
        "time" | "timestamp" | "started_at" | "created_at" | "orphaned_at" | "vm_created_at" | "timeout"
        | "expiry" => Rule::Moment,
        "agent_id" | "cid" | "vm_cid" | "disk_cid" | "disk_cids" | "snapshot_cid" => Rule::Named(Kind::Token),
        "blobstore_id" | "sha1" => Rule::Named(Kind::Blob),
        "ips" | "ip" | "ip_addresses" => Rule::Address,
        "parent_id" => Rule::Named(Kind::Event),
        "task_id" => Rule::Named(Kind::Task),
        "task" if noun == "events" => Rule::Named(Kind::Task),
        "expected_latest_id" => Rule::Echo(Kind::Config),
        "latest_id" | "cloud_config_ids" | "runtime_config_ids" => Rule::Named(Kind::Config),
        "link_provider_id" => Rule::Named(Kind::Row("link_providers".into())),
        "link_consumer_id" => Rule::Named(Kind::Row("link_consumers".into())),
        "id" if at.ends_with("from.id")
            || at.ends_with("config.id")
            || noun.ends_with("configs") && noun != "deployment_configs" =>
        {
            Rule::Named(Kind::Config)
        }
        "id" => match noun {
            "tasks" => Rule::Named(Kind::Task),
            "events" => Rule::Named(Kind::Event),
            "lines" | "instances" | "vms" => Rule::Named(Kind::Token),
            other => Rule::Named(Kind::Row(other.to_owned())),
        },
        "uuid" => Rule::Named(Kind::Token),
        // Of a VM that is its id, which is a number there.
        "object_name" if noun == "events" => Rule::Object,
        _ => Rule::Equal,
    }
}

/// Compares what came back with what is recorded.
pub struct Comparison<'a> {
    /// The list that it is about: `tasks`, `events`.
    pub noun: &'a str,
    /// What names stand for.
    pub names: &'a mut Names,
    /// What was found.
    pub found: Vec<Difference>,
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Comparison<'_> {
    /// Notes a difference.
    pub fn note(&mut self, at: &str, recorded: impl Into<String>, ours: impl Into<String>) {
        self.found.push(Difference { at: at.to_owned(), recorded: recorded.into(), ours: ours.into() });
    }

    /// Compares two bodies.
    pub fn bodies(&mut self, at: &str, recorded: &str, ours: &str) {
        match (serde_json::from_str::<Value>(recorded), serde_json::from_str::<Value>(ours)) {
            (Ok(recorded), Ok(ours)) => self.values(at, &recorded, &ours),
            (Err(_), Err(_)) | (Ok(_), Err(_)) | (Err(_), Ok(_)) => match (lines(recorded), lines(ours)) {
                (Some(recorded), Some(ours)) => self.rows(&format!("{at}[]"), &recorded, &ours),
                _ if text::same(recorded, ours, self.names) => {}
                _ => self.note(at, recorded, ours),
            },
        }
    }

    /// Compares two lists of lines, each a JSON object, in any order.
    pub fn event_lines(&mut self, recorded: &str, ours: &str) {
        match (lines(recorded), lines(ours)) {
            (Some(recorded), Some(ours)) => self.rows("events[]", &recorded, &ours),
            _ if recorded.is_empty() && ours.is_empty() => {}
            _ => self.note("events", recorded, ours),
        }
    }

    fn values(&mut self, at: &str, recorded: &Value, ours: &Value) {
        match (recorded, ours) {
            // Where nobody measures, there is nothing.
            (Value::Object(_), Value::Null) | (Value::Array(_), Value::Array(_))
                if rule(self.noun, at) == Rule::Measure && is_nothing(ours) => {}
            (Value::Object(there), Value::Object(here)) => {
                for (key, value) in there {
                    match here.get(key) {
                        Some(other) => self.values(&format!("{at}.{key}"), value, other),
                        None => self.note(&format!("{at}.{key}"), shown(value), "(missing)"),
                    }
                }
                for (key, value) in here.iter().filter(|(key, _)| !there.contains_key(*key)) {
                    self.note(&format!("{at}.{key}"), "(missing)", shown(value));
                }
            }
            (Value::Array(_), Value::Array(_)) if at.ends_with(".diff") => self.diffs(at, recorded, ours),
            (Value::Array(there), Value::Array(here)) => self.arrays(&format!("{at}[]"), there, here),
            _ => self.leaves(at, recorded, ours),
        }
    }

    fn arrays(&mut self, at: &str, there: &[Value], here: &[Value]) {
        let (there, here) = match (self.noun, at) {
            ("tasks", "body[]") => self.tasks_of_both(there, here),
            ("events", "body[]") => self.events_of_both(there, here),
            _ => (there.to_vec(), here.to_vec()),
        };
        self.same_arrays(at, &there, &here);
    }

    /// Not all that was done there was recorded, so lists of tasks are compared as far as they are about the same ones.
    fn tasks_of_both(&self, there: &[Value], here: &[Value]) -> (Vec<Value>, Vec<Value>) {
        let number = |row: &Value| row["id"].to_string();
        let recorded: BTreeSet<String> = there.iter().map(number).collect();
        let ours: BTreeSet<String> = here.iter().map(number).collect();
        let is_here =
            |row: &&Value| self.names.ours(&Kind::Task, &number(row)).is_some_and(|id| ours.contains(id));
        let was_there = |row: &&Value| {
            self.names.recorded(&Kind::Task, &number(row)).is_some_and(|id| recorded.contains(id))
        };
        (there.iter().filter(is_here).cloned().collect(), here.iter().filter(was_there).cloned().collect())
    }

    /// The same of events: those of tasks that nobody has recorded, or that no recorded task is like, are left out.
    fn events_of_both(&self, there: &[Value], here: &[Value]) -> (Vec<Value>, Vec<Value>) {
        let task = |row: &Value| row["task"].as_str().map(str::to_owned);
        let is_here = |row: &&Value| task(row).is_none_or(|id| self.names.ours(&Kind::Task, &id).is_some());
        let was_there =
            |row: &&Value| task(row).is_none_or(|id| self.names.recorded(&Kind::Task, &id).is_some());
        (there.iter().filter(is_here).cloned().collect(), here.iter().filter(was_there).cloned().collect())
    }

    fn same_arrays(&mut self, at: &str, there: &[Value], here: &[Value]) {
        let name = at.trim_end_matches("[]").rsplit('.').next().unwrap_or_default();
        let is_list = at == "body[]" && UNORDERED.contains(&self.noun);
        if is_list || UNORDERED.contains(&name) || there.len() != here.len() {
            return self.rows(at, there, here);
        }
        for (recorded, ours) in there.iter().zip(here) {
            self.values(at, recorded, ours);
        }
    }

    /// A diff is read as a whole.
    fn diffs(&mut self, at: &str, recorded: &Value, ours: &Value) {
        let text = |diff: &Value| -> String {
            let line = |line: &Value| match line[1].as_str() {
                Some("added") => format!("+{}\n", shown(&line[0])),
                Some("removed") => format!("-{}\n", shown(&line[0])),
                _ => format!(" {}\n", shown(&line[0])),
            };
            diff.as_array().into_iter().flatten().map(line).collect()
        };
        if recorded != ours {
            self.note(at, text(recorded), text(ours));
        }
    }

    /// Compares rows in any order: first those that are equal find each other, then those that are most alike.
    fn rows(&mut self, at: &str, there: &[Value], here: &[Value]) {
        let mut left: Vec<&Value> = here.iter().collect();
        let mut unmatched = Vec::new();
        for recorded in there {
            let equal = left.iter().position(|ours| {
                let mut names = self.names.clone();
                let mut trial = Comparison { noun: self.noun, names: &mut names, found: Vec::new() };
                trial.values(at, recorded, ours);
                let is_equal = trial.found.is_empty();
                if is_equal {
                    *self.names = names;
                }
                is_equal
            });
            match equal {
                Some(place) => drop(left.remove(place)),
                None => unmatched.push(recorded),
            }
        }
        // Those that are most alike find each other first.
        let mut scored = Vec::new();
        for (row, recorded) in unmatched.iter().enumerate() {
            let fields = recorded.as_object().map_or(1, |fields| fields.len());
            for (place, ours) in left.iter().enumerate() {
                let mut names = self.names.clone();
                let mut trial = Comparison { noun: self.noun, names: &mut names, found: Vec::new() };
                trial.values(at, recorded, ours);
                if trial.found.len() * 3 <= fields {
                    scored.push((trial.found.len(), row, place));
                }
            }
        }
        scored.sort_unstable();
        let (mut of_row, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for (_, row, place) in scored {
            if !of_row.contains_key(&row) && taken.insert(place) {
                of_row.insert(row, place);
            }
        }
        for (row, recorded) in unmatched.iter().enumerate() {
            match of_row.get(&row) {
                Some(place) => self.values(at, recorded, left[*place]),
                None => self.note(at, recorded.to_string(), "(no such row)"),
            }
        }
        let others = left.into_iter().enumerate().filter(|(place, _)| !taken.contains(place));
        for (_, ours) in others {
            self.note(at, "(no such row)", ours.to_string());
        }
    }

    fn leaves(&mut self, at: &str, recorded: &Value, ours: &Value) {
        let rule = match recorded.as_str() {
            // Of tasks that leave a blob, the result is its name.
            Some(text) if at.ends_with(".result") && is_uuid(text) => Rule::Named(Kind::Blob),
            _ => rule(self.noun, at),
        };
        let is_same = match rule {
            _ if recorded.is_null() || ours.is_null() => recorded == ours,
            Rule::Moment => text::shape(&recorded.to_string()) == text::shape(&ours.to_string()),
            Rule::Measure => std::mem::discriminant(recorded) == std::mem::discriminant(ours),
            // The recorded zero stands for none.
            Rule::Named(_) if recorded == "0" || recorded == "" => recorded == ours,
            Rule::Named(kind) => {
                std::mem::discriminant(recorded) == std::mem::discriminant(ours)
                    && self.names.learn(&kind, &shown(recorded), &shown(ours))
            }
            Rule::Object if shown(recorded).parse::<u64>().is_ok() => {
                self.names.learn(&Kind::Token, &shown(recorded), &shown(ours))
            }
            Rule::Object => text::same(&shown(recorded), &shown(ours), self.names),
            Rule::Echo(kind) => self.names.number(&kind, &shown(recorded)) == shown(ours),
            Rule::Address => text::same(&shown(recorded), &shown(ours), self.names),
            Rule::Equal => match (recorded, ours) {
                (Value::String(there), Value::String(here)) => text::same(there, here, self.names),
                _ => recorded == ours,
            },
        };
        if !is_same {
            self.note(at, shown(recorded), shown(ours));
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    value.as_array().map_or(value.is_null(), Vec::is_empty)
}

/// Reads JSON objects, one a line.
fn lines(text: &str) -> Option<Vec<Value>> {
    let parsed = text.lines().map(|line| serde_json::from_str(line).ok().filter(Value::is_object));
    parsed.collect::<Option<Vec<_>>>().filter(|lines| !lines.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(noun: &str, recorded: &str, ours: &str, expected: &[&str]) {
        let mut comparison = Comparison { noun, names: &mut Names::default(), found: Vec::new() };
        comparison.bodies("body", recorded, ours);
        let places: Vec<_> = comparison.found.iter().map(|found| found.at.as_str()).collect();
        assert_eq!(places, expected, "{recorded} | {ours}");
    }

    #[test]
    fn values_are_equal_except_what_varies() {
        check(
            "tasks",
            r#"{"id":9,"state":"done","timestamp":17}"#,
            r#"{"id":3,"state":"done","timestamp":23}"#,
            &[],
        );
        check(
            "tasks",
            r#"{"id":9,"state":"done"}"#,
            r#"{"id":"3","state":"error"}"#,
            &["body.id", "body.state"],
        );
        check(
            "tasks",
            r#"{"timestamp":null,"user":"a"}"#,
            r#"{"timestamp":3}"#,
            &["body.timestamp", "body.user"],
        );
        check("tasks", "[]", r#"[{"id":1}]"#, &[]);
        check("configs", "[]", r#"[{"id":1}]"#, &["body[]"]);
        check("x", r#"{"code":1}"#, r#"{"code":1,"more":2}"#, &["body.more"]);
        check("x", "text of 10.0.0.1", "text of 10.0.0.2", &[]);
        check("x", "", "{}", &["body"]);
        check(
            "x",
            r#"{"created_at":"2026-11-22 08:54:33 UTC"}"#,
            r#"{"created_at":"2026-11-22T08:54:33Z"}"#,
            &["body.created_at"],
        );
    }

    #[test]
    fn one_row_is_one_row_of_ours_whatever_their_order() {
        check(
            "instances",
            r#"[{"job":"a","index":0},{"job":"b","index":0}]"#,
            r#"[{"job":"b","index":0},{"job":"a","index":0}]"#,
            &[],
        );
        check(
            "configs",
            r#"[{"name":"a"},{"name":"b"}]"#,
            r#"[{"name":"b"},{"name":"a"}]"#,
            &["body[].name", "body[].name"],
        );
        check(
            "instances",
            r#"[{"job":"a","index":0,"az":"z1"}]"#,
            r#"[{"job":"a","index":1,"az":"z1"}]"#,
            &["body[].index"],
        );
        check("tasks", "{\"a\":1}\n{\"a\":2}\n", "{\"a\":2}\n{\"a\":1}\n", &[]);
    }

    #[test]
    fn a_name_is_the_same_everywhere() {
        let both = r#"[{"id":"1","parent_id":"7"},{"id":"2","parent_id":"7"}]"#;
        check("events", both, both, &[]);
        check(
            "events",
            r#"[{"id":"9"},{"id":"8","parent_id":"9"}]"#,
            r#"[{"id":"5"},{"id":"4","parent_id":"5"}]"#,
            &[],
        );
    }
}
