//! A share of what `simulate` plays, for every run of the tests.

use std::path::Path;
use std::time::{Duration, Instant};

use simulation::child::Library;

/// The program that plays a seed.
const SIMULATE: &str = env!("CARGO_BIN_EXE_simulate");

/// How long worlds are played. Their number is the machine's: the first seeds, as many as there is time for.
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_same_seed_is_the_same_world() {
    let library = Library::build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trace = |name: &str, seed| {
        let file = folder.path().join(name);
        let arguments = ["--trace", file.to_str().unwrap()];
        let output = library.play(Path::new(SIMULATE), seed, None, &arguments).unwrap();
        (String::from_utf8(output.stdout).unwrap(), std::fs::read_to_string(file).unwrap())
    };
    let (first, again, other) = (trace("a", 7), trace("b", 7), trace("c", 8));
    assert!(first.1.lines().count() > 1000, "hardly anything happened:\n{}", first.0);
    assert_eq!(first.0, again.0);
    assert!(first.1 == again.1, "the reports are the same and the traces are not");
    assert_ne!(first.1, other.1);
}

#[test]
fn a_minute_of_worlds_breaks_nothing() {
    let (library, began) = (Library::build().unwrap(), Instant::now());
    let mut seed = 0;
    while began.elapsed() < MINUTE {
        seed += 1;
        let output = library.play(Path::new(SIMULATE), seed, None, &[]).unwrap();
        assert!(
            output.status.success(),
            "{}{}\nreplay: cargo run -p simulation -- --seed {seed} --trace seed-{seed}.txt",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    println!("{seed} worlds were played");
}
