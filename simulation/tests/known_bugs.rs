//! The table of known bugs in `docs/chaos.md`, kept true: each is found, by the seed that is named, as what is named.

use std::path::Path;

use known_bugs::Bug;
use simulation::child::Library;

const PAGE: &str = include_str!("../../docs/chaos.md");

/// A row of the table.
struct Row {
    bug: Bug,
    seed: u64,
    found_as: String,
}

fn table() -> Vec<Row> {
    let rows = PAGE.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, _, seed, found_as, _] = cells[..] else { return None };
        let bug = Bug::named(name.trim_matches('`'))?;
        Some(Row { bug, seed: seed.parse().expect("a seed"), found_as: found_as.to_owned() })
    });
    rows.collect()
}

#[test]
fn every_known_bug_is_in_the_table() {
    let named: Vec<&str> = table().iter().map(|row| row.bug.name()).collect();
    assert_eq!(named, Bug::ALL.map(Bug::name));
}

#[test]
fn every_known_bug_is_found_by_its_seed() {
    let library = Library::build().unwrap();
    for Row { bug, seed, found_as } in table() {
        let program = Path::new(env!("CARGO_BIN_EXE_simulate"));
        let output = library.play(program, seed, Some(bug), &[]).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{} is not found by seed {seed}: {said}", bug.name());
        assert!(
            said.contains(&found_as),
            "{} is found by seed {seed}, but not as {found_as}: {said}",
            bug.name()
        );
    }
}
