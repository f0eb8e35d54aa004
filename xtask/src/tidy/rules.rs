//! One function per habit: a file in, complaints out.

use camino::Utf8Path;

use super::{Private, TextFile};
use crate::Complaint;

/// A file of more code lines than this is shown.
const LINES_WARN: usize = 500;
/// A file of more code lines than this fails: by now it holds two nouns.
const LINES_FAIL: usize = 650;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helpers", "misc", "stuff"];

/// Refuses names that do not say what a file holds.
pub fn name(file: &TextFile) -> Vec<Complaint> {
    if file.path.extension() != Some("rs") {
        return Vec::new();
    }
    let mut parts: Vec<&str> = file.path.components().map(|part| part.as_str()).collect();
    let stem = file.path.file_stem().unwrap_or_default();
    parts.pop();
    parts.push(stem);
    let empty = parts.into_iter().find(|part| EMPTY_NAMES.contains(part) || is_numbered_part(part));
    let complain = |part| Complaint::fail(&file.path, format!("`{part}` names nothing: split by noun"));
    empty.map(complain).into_iter().collect()
}

fn is_numbered_part(stem: &str) -> bool {
    stem.strip_prefix("part").is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()))
}

/// Shows long files and refuses very long ones. The tests at a file's end are not counted.
pub fn length(file: &TextFile) -> Vec<Complaint> {
    if file.path.extension() != Some("rs") {
        return Vec::new();
    }
    let is_tests_module = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests");
    let lines: Vec<&str> = file.text.lines().collect();
    let code = lines.windows(2).position(is_tests_module).unwrap_or(lines.len());
    let text = format!("{code} lines; split by noun (above {LINES_WARN} is shown, above {LINES_FAIL} fails)");
    if code > LINES_FAIL {
        vec![Complaint::fail(&file.path, text)]
    } else if code > LINES_WARN {
        vec![Complaint::warn(&file.path, text)]
    } else {
        Vec::new()
    }
}

/// Wants a header on every crate root and every module of several files.
pub fn header(file: &TextFile, heads_a_folder: bool) -> Vec<Complaint> {
    if file.path.extension() != Some("rs") {
        return Vec::new();
    }
    let name = file.path.file_name().unwrap_or_default();
    let in_src = file.path.components().any(|part| part.as_str() == "src");
    let needs_one = in_src && (matches!(name, "lib.rs" | "main.rs" | "mod.rs") || heads_a_folder);
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let says_something = first.starts_with("//!") && !first.contains("Placeholder");
    if !needs_one || says_something {
        return Vec::new();
    }
    let text = "opens without a header: say what this is, what it is not, which invariant it keeps, where to read next";
    vec![Complaint::fail(&file.path, text)]
}

/// Refuses notes to oneself, unfinished code, and tests that are switched off without a reason.
pub fn leftovers(file: &TextFile) -> Vec<Complaint> {
    // This file has to name what it looks for.
    if !is_code(&file.path) || is_recorded(&file.path) || file.path.starts_with("xtask/src/tidy") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (number, line) in numbered(&file.text) {
        let place = format!("{}:{number}", file.path);
        for mark in ["TODO", "FIXME", "XXX"] {
            if has_word(line, mark) {
                complaints.push(Complaint::fail(&place, format!("`{mark}`: do it, or file it as an issue")));
            }
        }
        for macro_name in ["todo!", "unimplemented!"] {
            if has_word(line, macro_name) {
                complaints.push(Complaint::fail(&place, format!("`{macro_name}` is not an implementation")));
            }
        }
        if line.trim() == "#[ignore]" {
            complaints
                .push(Complaint::fail(&place, "a test that is switched off says why: `#[ignore = \"…\"]`"));
        }
    }
    complaints
}

/// Refuses blanks at the end of a line, and a file that does not end with a line's end.
pub fn whitespace(file: &TextFile) -> Vec<Complaint> {
    if is_recorded(&file.path) {
        return Vec::new();
    }
    let trailing = numbered(&file.text).filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    let mut complaints: Vec<Complaint> = trailing
        .map(|(number, _)| Complaint::fail(format!("{}:{number}", file.path), "trailing blanks"))
        .collect();
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        complaints.push(Complaint::fail(&file.path, "does not end with a newline"));
    }
    complaints
}

/// Refuses what tells of one machine: its folders, the hosts its packages come from, and anyone's home.
pub fn traces(file: &TextFile, private: &Private) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (number, line) in numbered(&file.text) {
        let place = format!("{}:{number}", file.path);
        for folder in private.folders.iter().filter(|folder| has_folder(line, folder)) {
            complaints.push(Complaint::fail(&place, format!("names a folder of this machine (`{folder}`)")));
        }
        if let Some(home) = home_in(line) {
            complaints.push(Complaint::fail(&place, format!("names somebody's home (`{home}`)")));
        }
        for host in private.hosts.iter().filter(|host| line.contains(host.as_str())) {
            complaints
                .push(Complaint::fail(&place, format!("names a package host of this machine (`{host}`)")));
        }
        if line.contains(concat!("/arti", "factory/")) {
            complaints.push(Complaint::fail(&place, "names a package mirror"));
        }
    }
    complaints
}

/// Returns `/home/<name>` if `line` has one; BOSH's own user is nobody's secret.
fn home_in(line: &str) -> Option<String> {
    line.match_indices("/home/").find_map(|(at, prefix)| {
        // A longer path (`<root>/home/…`) is a folder inside a VM's tree.
        let is_root = !line[..at].ends_with(|c: char| c.is_alphanumeric() || "}>_-.".contains(c));
        let user: String =
            line[at + prefix.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        (is_root && !user.is_empty() && user != "vcap").then(|| format!("{prefix}{user}"))
    })
}

/// Returns whether `line` has `folder` as a whole path or as the beginning of one.
fn has_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + folder.len()..].chars().next();
        let continues = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        !before.is_some_and(|c| continues(c) || c == '.') && !after.is_some_and(continues)
    })
}

/// Returns whether `line` has `word` with nothing that could continue it on either side.
fn has_word(line: &str, word: &str) -> bool {
    let continues = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(continues) && !after.is_some_and(continues)
    })
}

/// Files that somebody runs or compiles. Prose may speak about unfinished things.
fn is_code(path: &Utf8Path) -> bool {
    const EXTENSIONS: &[&str] =
        &["rs", "toml", "proto", "sh", "erb", "yml", "yaml", "c", "h", "rb", "service"];
    let by_extension = path.extension().is_some_and(|extension| EXTENSIONS.contains(&extension));
    by_extension || matches!(path.file_name(), Some("Makefile" | "packaging" | "monit" | "run"))
}

/// Data that was recorded elsewhere and is kept byte for byte.
fn is_recorded(path: &Utf8Path) -> bool {
    path.components().any(|part| matches!(part.as_str(), "recorded" | "golden" | "fixtures" | "testdata"))
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    // `split` and not `lines`: a carriage return must stay visible.
    text.split('\n').enumerate().map(|(at, line)| (at + 1, line))
}
