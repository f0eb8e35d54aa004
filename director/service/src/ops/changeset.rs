//! What changes between two documents, as BOSH shows it: recursively, lists of named things by their names, sections in
//! the order in which operators know them.
//!
//! Compared are the documents as they are, shown are those without secrets: that a secret has changed is what one wants to
//! know; what it is, not.

use model::yaml::emit;
use serde_json::{Map, Value, json};

use super::diff::{DiffLine, LineChange};
use crate::redact::redacted;

/// Sections that come first, in this order; all others follow as they are met.
const SECTIONS: &[&str] = &[
    "azs:",
    "vm_types:",
    "vm_extensions:",
    "resource_pools:",
    "compilation:",
    "networks:",
    "disk_types:",
    "name:",
    "stemcells:",
    "releases:",
    "update:",
    "jobs:",
    "release:",
    "addons:",
    "variables:",
];

/// What names the things of a list.
const LABELS: &[&str] = &["name", "range"];

/// A document as it is compared, and as it is shown.
pub(super) struct Document {
    compared: Value,
    shown: Value,
}

impl Document {
    pub(super) fn new(entries: Map<String, Value>, no_redact: bool) -> Self {
        let compared = Value::Object(entries);
        let shown = if no_redact { compared.clone() } else { redacted(compared.clone()) };
        Self { compared, shown }
    }

    fn side(&self) -> Side<'_> {
        Side { compared: &self.compared, shown: &self.shown }
    }
}

/// Returns what changes.
pub(super) fn difference(old: &Document, new: &Document) -> Vec<DiffLine> {
    ordered(changes(old.side(), new.side(), 0))
}

/// The same place in both forms of a document.
#[derive(Clone, Copy)]
struct Side<'a> {
    compared: &'a Value,
    shown: &'a Value,
}

impl<'a> Side<'a> {
    /// Returns an entry; one that is null counts as none.
    fn entry(self, key: &str) -> Option<Self> {
        let compared = self.compared.get(key).filter(|value| !value.is_null())?;
        Some(Self { compared, shown: self.shown.get(key).unwrap_or(&Value::Null) })
    }

    fn items(self) -> Vec<Self> {
        let shown = |at: usize| self.shown.get(at).unwrap_or(&Value::Null);
        let items = self.compared.as_array().into_iter().flatten().enumerate();
        items.map(|(at, compared)| Side { compared, shown: shown(at) }).collect()
    }

    /// Returns the items that another list has not got.
    fn without(self, other: Self) -> Vec<Self> {
        let others = other.compared.as_array().map(Vec::as_slice).unwrap_or_default();
        self.items().into_iter().filter(|item| !others.contains(item.compared)).collect()
    }
}

fn written(value: Value, depth: usize, change: LineChange) -> impl Iterator<Item = DiffLine> {
    let indent = "  ".repeat(depth);
    emit::lines(&value).into_iter().map(move |line| DiffLine { text: format!("{indent}{line}"), change })
}

fn heading(text: String) -> DiffLine {
    DiffLine { text, change: LineChange::Same }
}

fn changes(old: Side<'_>, new: Side<'_>, depth: usize) -> Vec<DiffLine> {
    let keys =
        |side: Side<'_>| side.compared.as_object().map(|entries| entries.keys().cloned().collect::<Vec<_>>());
    let mut all = keys(old).unwrap_or_default();
    for key in keys(new).unwrap_or_default() {
        if !all.contains(&key) {
            all.push(key);
        }
    }
    let mut lines = Vec::new();
    for key in all {
        match (old.entry(&key), new.entry(&key)) {
            (None, None) => {}
            (None, Some(new)) => lines.extend(written(json!({ &key: new.shown }), depth, LineChange::Added)),
            (Some(old), None) => {
                lines.extend(written(json!({ &key: old.shown }), depth, LineChange::Removed))
            }
            (Some(old), Some(new)) => lines.extend(changed(&key, old, new, depth)),
        }
    }
    lines
}

fn changed(key: &str, old: Side<'_>, new: Side<'_>, depth: usize) -> Vec<DiffLine> {
    let inner = match (old.compared, new.compared) {
        _ if old.compared == new.compared => return Vec::new(),
        (Value::Object(_), Value::Object(_)) => changes(old, new, depth + 1),
        (Value::Array(_), Value::Array(_)) => list_changes(old, new, depth),
        _ => {
            let removed = written(json!({ key: old.shown }), depth, LineChange::Removed);
            return removed.chain(written(json!({ key: new.shown }), depth, LineChange::Added)).collect();
        }
    };
    match inner.is_empty() {
        // The same things in another order.
        true => inner,
        false => std::iter::once(heading(format!("{}{key}:", "  ".repeat(depth)))).chain(inner).collect(),
    }
}

fn list_changes(old: Side<'_>, new: Side<'_>, depth: usize) -> Vec<DiffLine> {
    let (added, mut removed) = (new.without(old), old.without(new));
    let have = |label: &&&str| added.iter().chain(&removed).all(|item| !item.compared[**label].is_null());
    let label = LABELS.iter().find(have).copied();
    let mut lines = Vec::new();
    for item in added {
        let same =
            |other: &Side<'_>| label.is_some_and(|label| other.compared[label] == item.compared[label]);
        let Some(place) = removed.iter().position(same) else {
            lines.extend(written(json!([item.shown]), depth, LineChange::Added));
            continue;
        };
        let inner = changes(removed.remove(place), item, depth + 1);
        if let Some(label) = label.filter(|_| !inner.is_empty()) {
            let named = written(json!([{ label: item.shown[label] }]), depth, LineChange::Same);
            lines.extend(named);
            lines.extend(inner);
        }
    }
    for item in removed {
        lines.extend(written(json!([item.shown]), depth, LineChange::Removed));
    }
    lines
}

/// Brings sections into their order, with an empty line between two.
fn ordered(lines: Vec<DiffLine>) -> Vec<DiffLine> {
    let mut sections: Vec<Vec<DiffLine>> = Vec::new();
    for line in lines {
        let begins = !line.text.starts_with([' ', '-']);
        // A literal's empty lines belong to it.
        match sections.last_mut().filter(|_| !begins || line.text.is_empty()) {
            Some(section) => section.push(line),
            None => sections.push(vec![line]),
        }
    }
    let rank = |section: &Vec<DiffLine>| {
        SECTIONS.iter().position(|name| section[0].text == *name).unwrap_or(SECTIONS.len())
    };
    sections.sort_by_key(rank);
    sections.join(&heading(String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, no_redact: bool) -> Document {
        let entries = if text.is_empty() { Map::new() } else { model::yaml::parse_mapping(text).unwrap() };
        Document::new(entries, no_redact)
    }

    #[track_caller]
    fn check_with(old: &str, new: &str, no_redact: bool, expected: &str) {
        let found = difference(&document(old, no_redact), &document(new, no_redact));
        let line = |line: DiffLine| match line.change {
            LineChange::Same => format!(" {}", line.text),
            LineChange::Added => format!("+{}", line.text),
            LineChange::Removed => format!("-{}", line.text),
        };
        assert_eq!(found.into_iter().map(line).collect::<Vec<_>>().join("\n"), expected);
    }

    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        check_with(old, new, true, expected);
    }

    #[test]
    fn named_things_are_compared_by_name_under_their_headings() {
        check(
            "groups: [{name: a, instances: 1, azs: [z1, z2]}, {name: b, x: 1}]",
            "groups: [{name: a, instances: 2, azs: [z1, z3]}, {name: c}]",
            " groups:\n - name: a\n-  instances: 1\n+  instances: 2\n   azs:\n+  - z3\n-  - z2\n+- name: c\n-- name: b\n-  x: 1",
        );
        check("s: [{range: r, a: 1}]", "s: [{range: r, a: 2}]", " s:\n - range: r\n-  a: 1\n+  a: 2");
        check("s: [{a: 1}]", "s: [{a: 2}]", " s:\n+- a: 2\n-- a: 1");
        check("s: [1, 2]", "s: [2, 1]", "");
    }

    #[test]
    fn sections_have_their_order_and_a_blank_line_between() {
        check(
            "a: 1\nupdate: {canaries: 1}",
            "a: 2\nupdate: {canaries: 2}\nazs: [{name: z1}]\ntags: {}",
            "+azs:\n+- name: z1\n \n update:\n-  canaries: 1\n+  canaries: 2\n \n-a: 1\n \n+a: 2\n \n+tags: {}",
        );
    }

    #[test]
    fn secrets_are_redacted_references_shown_and_what_stays_is_no_difference() {
        check_with(
            "properties: {a: old, b: ((x)), c: same}",
            "properties: {a: new, b: ((y)), c: same}",
            false,
            " properties:\n-  a: \"<redacted>\"\n+  a: \"<redacted>\"\n-  b: \"((x))\"\n+  b: \"((y))\"",
        );
        let text = "properties: {a: [1, {k: v}], text: \"two\\nlines\"}";
        check_with(text, text, false, "");
        check_with(
            text,
            &text.replace("k: v", "k: w"),
            false,
            " properties:\n   a:\n+  - k: \"<redacted>\"\n-  - k: \"<redacted>\"",
        );
    }

    #[test]
    fn nothing_becomes_something() {
        check("", "name: d\nx: {a: null, b: 1}", "+name: d\n \n+x:\n+  a:\n+  b: 1");
        check("x: null", "x: 1", "+x: 1");
        check("x: {a: 1}", "x: 1", "-x:\n-  a: 1\n \n+x: 1");
    }
}
