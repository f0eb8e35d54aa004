//! `docs/doors.md` lists every operation, with the commands that have it done.

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use super::Cli;

const PAGE: &str = include_str!("../../../docs/doors.md");

/// Commands without commands of their own, with the words before them; a word of the page stands for all that begin with it.
fn commands(command: &clap::Command, before: &str, found: &mut BTreeSet<String>) {
    for part in command.get_subcommands() {
        let name = format!("{before}{}", part.get_name());
        match part.has_subcommands() {
            true => commands(part, &format!("{name} "), found),
            false => _ = found.insert(name),
        }
    }
}

#[test]
fn every_command_belongs_to_an_operation() {
    let mut there = BTreeSet::new();
    commands(&Cli::command(), "", &mut there);
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| operation"));
    let cells = rows.filter_map(|row| row.trim_matches('|').split('|').nth(3));
    let listed: BTreeSet<String> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    let stands_for = |name: &String, word: &String| name == word || name.starts_with(&format!("{word} "));
    let unlisted: Vec<_> =
        there.iter().filter(|name| !listed.iter().any(|word| stands_for(name, word))).collect();
    assert!(unlisted.is_empty(), "commands without a row in docs/doors.md: {unlisted:?}");
    let missing: Vec<_> =
        listed.iter().filter(|word| !there.iter().any(|name| stands_for(name, word))).collect();
    assert!(missing.is_empty(), "docs/doors.md lists commands that do not exist: {missing:?}");
}
