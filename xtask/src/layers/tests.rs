//! The rules on made-up tables, the reading on a tiny workspace, and the real table against the real tree.

use std::fs;

use camino::Utf8PathBuf;

use super::*;

const TABLE: &[Layer] = &[
    row("nouns", "nouns", Pure, Only(&[])),
    row("plan", "plan", Pure, Only(&["nouns"])),
    row("again", "base/again", Base, Only(&[])),
    row("cloud", "cloud", Library, Only(&["nouns"])),
    row("server", "server", Binary, EveryLibrary),
    row("proofs", "proofs", Top, Anything),
];

/// A workspace in short: `folder/name: ours, other!, dev:ours`; `!` marks what is not ours.
fn crates(lines: &[&str]) -> Vec<Crate> {
    lines.iter().map(|line| one(line)).collect()
}

fn one(line: &str) -> Crate {
    let (folder, list) = line.split_once(':').expect("`folder: dependencies`");
    let dependencies =
        list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(dependency).collect();
    let name = folder.rsplit('/').next().expect("a last part").to_owned();
    Crate { name, folder: folder.to_owned(), manifest_path: String::new(), dependencies }
}

fn dependency(word: &str) -> Dependency {
    let (kind, word) = match word.split_once(':') {
        Some((kind, word)) => (Some(kind.to_owned()), word),
        None => (None, word),
    };
    match word.strip_suffix('!') {
        Some(name) => Dependency { name: name.into(), kind, path: None },
        None => Dependency { name: word.into(), kind, path: Some(word.into()) },
    }
}

#[track_caller]
fn expect(lines: &[&str], complaints: &[&str]) {
    let mut all = vec!["nouns:", "plan:", "base/again:", "cloud:", "server:", "proofs:"];
    all.retain(|row| lines.iter().all(|line| !line.starts_with(row)));
    all.extend(lines);
    let found: Vec<String> = check(&crates(&all), TABLE).iter().map(ToString::to_string).collect();
    assert_eq!(found, complaints);
}

#[test]
fn arrows_of_the_table_are_fine() {
    expect(
        &[
            "plan: nouns, serde!",
            "cloud: nouns, again, tokio!",
            "server: plan, cloud, again",
            "proofs: server, cloud",
        ],
        &[],
    );
}

#[test]
fn an_arrow_that_the_table_lacks_is_refused() {
    expect(&["cloud: plan"], &["cloud: must not import `plan`; it may import nouns"]);
    expect(&["nouns: cloud"], &["nouns: must not import `cloud`; it may import no crate of ours"]);
    expect(&["cloud: build:plan"], &["cloud: must not import `plan`; it may import nouns"]);
}

#[test]
fn nobody_imports_programs_or_proofs() {
    expect(&["cloud: server"], &["cloud: must not import `server`; it may import nouns"]);
    expect(&["server: proofs"], &["server: must not import `proofs`; it may import every library"]);
}

#[test]
fn tests_may_import_every_library_but_no_program() {
    expect(&["nouns: dev:cloud, dev:again, dev:tokio!"], &[]);
    expect(&["nouns: dev:server"], &["nouns: must not import the program `server`, not even in tests"]);
    expect(&["cloud: dev:proofs"], &["cloud: must not import `proofs`, not even in tests"]);
}

#[test]
fn pure_crates_have_no_runtime_clock_or_chance() {
    expect(
        &["plan: tokio-stream!"],
        &["plan: is pure and must not list `tokio-stream`, which brings an async runtime"],
    );
    expect(&["plan: time!"], &["plan: is pure and must not list `time`, which brings a clock"]);
    expect(&["plan: rand_core!"], &["plan: is pure and must not list `rand_core`, which brings chance"]);
    expect(&["plan: again"], &["plan: must not import `again`; it may import nouns"]);
    // Only whole names and their families: not everything that begins alike.
    expect(&["plan: timely!, randomised!"], &[]);
}

#[test]
fn table_and_workspace_know_the_same_crates() {
    expect(
        &["extra:"],
        &["extra: is not in the table of layers (xtask/src/layers.rs): say there what it may import"],
    );
    let all = crates(&["nouns:", "plan:", "base/again:", "cloud:", "server:"]);
    let found: Vec<String> = check(&all, TABLE).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["proofs: is in the table of layers, but not in the workspace"]);
}

#[test]
fn a_crate_in_the_wrong_folder_is_told_its_place() {
    let all = crates(&["nouns:", "plan:", "again:", "cloud:", "server:", "proofs:"]);
    let found: Vec<String> = check(&all, TABLE).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["again: lives in `again`, but its place is `base/again`"]);
}

#[test]
fn a_workspace_is_read_from_its_manifests() {
    let tree = tempfile::tempdir().unwrap();
    let root = Utf8PathBuf::try_from(tree.path().to_owned()).unwrap();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"nouns\", \"deep/plan\"]\n");
    write("nouns/Cargo.toml", "[package]\nname = \"nouns\"\nedition = \"2024\"\n");
    write("nouns/src/lib.rs", "");
    write(
        "deep/plan/Cargo.toml",
        "[package]\nname = \"plan\"\nedition = \"2024\"\n[dependencies]\nwords = { package = \"nouns\", path = \"../../nouns\" }\n\
         [dev-dependencies]\nrand = \"0.9\"\n",
    );
    write("deep/plan/src/lib.rs", "");

    let mut crates = read_workspace(&root).unwrap();
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    let seen: Vec<_> = crates.iter().map(|c| (c.name.as_str(), c.folder.as_str())).collect();
    assert_eq!(seen, [("nouns", "nouns"), ("plan", "deep/plan")]);
    let listed: Vec<_> =
        crates[1].dependencies.iter().map(|d| (d.name.as_str(), d.kind.as_deref())).collect();
    assert!(listed.contains(&("nouns", None)), "a renamed dependency keeps its real name: {listed:?}");
    assert!(listed.contains(&("rand", Some("dev"))), "{listed:?}");
}

#[test]
fn the_table_names_only_crates_that_it_knows() {
    for layer in LAYERS {
        if let Only(names) = layer.imports {
            for name in names {
                assert!(LAYERS.iter().any(|row| row.name == *name), "{}: `{name}` has no row", layer.name);
            }
        }
    }
}

#[test]
fn this_workspace_keeps_its_layers() {
    let root = Utf8PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let found: Vec<String> =
        check(&read_workspace(&root).unwrap(), LAYERS).iter().map(ToString::to_string).collect();
    assert_eq!(found, [""; 0]);
}
