//! Each habit on a tiny tree of files.

use super::*;

/// A tree on disk, as git would list it.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap() };
        let status =
            Command::new("git").args(["init", "--quiet"]).current_dir(fixture.root()).status().unwrap();
        assert!(status.success(), "git init");
        for (path, text) in files {
            let path = fixture.root().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fixture
    }

    fn root(&self) -> &Utf8Path {
        Utf8Path::from_path(self.folder.path()).unwrap()
    }
}

#[track_caller]
fn expect(files: &[(&str, &str)], complaints: &[&str]) {
    let private = Private {
        folders: vec!["/attic/tree".into(), "/attic".into()],
        hosts: vec!["crates.example.org".into()],
    };
    let tree = Tree::read(Fixture::new(files).root()).unwrap();
    let found: Vec<String> = check(&tree, &private).iter().map(ToString::to_string).collect();
    assert_eq!(found, complaints);
}

fn lines(count: usize) -> String {
    "//! Long.\n".repeat(count)
}

#[test]
fn a_clean_tree_is_clean() {
    expect(
        &[("a/src/lib.rs", "//! What it is.\n"), ("a/src/noun.rs", "struct Noun;\n"), ("README.md", "# A\n")],
        &[],
    );
}

#[test]
fn what_git_ignores_and_what_is_not_text_is_left_alone() {
    let files = [(".gitignore", "/built\n"), ("built/src/lib.rs", "no header \n"), ("kept.toml", "a = 1\n")];
    let fixture = Fixture::new(&files);
    fs::write(fixture.root().join("picture.rs"), [0xff, 0xfe, b' ', b'\n']).unwrap();
    let tree = Tree::read(fixture.root()).unwrap();
    let paths: Vec<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [".gitignore", "kept.toml"]);
}

#[test]
fn names_that_name_nothing_are_refused() {
    expect(
        &[
            ("a/src/utils.rs", ""),
            ("a/src/part2.rs", ""),
            ("a/src/helpers/b.rs", ""),
            ("a/src/partition.rs", ""),
        ],
        &[
            "a/src/helpers/b.rs: `helpers` names nothing: split by noun",
            "a/src/part2.rs: `part2` names nothing: split by noun",
            "a/src/utils.rs: `utils` names nothing: split by noun",
        ],
    );
}

#[test]
fn long_files_are_shown_and_very_long_ones_refused() {
    let (fine, long, too_long) = (lines(500), lines(501), lines(651));
    let tests_not_counted = format!("{fine}#[cfg(test)]\nmod tests {{\n{}}}\n", "// A case.\n".repeat(300));
    expect(
        &[
            ("a/fine.rs", &fine),
            ("a/long.rs", &long),
            ("a/most.rs", &too_long),
            ("a/tests.rs", &tests_not_counted),
        ],
        &[
            "warning: a/long.rs: 501 lines; split by noun (above 500 is shown, above 650 fails)",
            "a/most.rs: 651 lines; split by noun (above 500 is shown, above 650 fails)",
        ],
    );
}

#[test]
fn heads_of_modules_have_headers() {
    const MISSING: &str = "opens without a header: say what this is, what it is not, which invariant it keeps, where to read next";
    expect(
        &[
            ("a/src/lib.rs", "pub mod b;\n"),
            ("b/src/lib.rs", "//! Placeholder.\n"),
            ("b/src/noun.rs", "mod kind;\n"),
            ("b/src/noun/kind.rs", "enum Kind {}\n"),
            ("b/src/verb.rs", "#[cfg(test)]\nmod tests;\n"),
            ("b/src/verb/tests.rs", "use super::*;\n"),
            ("b/tests/common/mod.rs", "pub fn start() {}\n"),
        ],
        &[
            &format!("a/src/lib.rs: {MISSING}"),
            &format!("b/src/lib.rs: {MISSING}"),
            &format!("b/src/noun.rs: {MISSING}"),
        ],
    );
}

#[test]
fn unfinished_things_are_refused_in_code_but_not_in_prose() {
    expect(
        &[
            (
                "a/x.rs",
                "// FIXME: later\nfn f() { todo!() }\nfn g() { unimplemented!(\"no\") }\n#[test]\n#[ignore]\n",
            ),
            ("a/y.rs", "#[ignore = \"needs root\"]\nlet dir = \"XXXXXX\"; my_todo!();\n"),
            ("a/z.sh", "mktemp -d /tmp/z.XXXXXX # XXX\n"),
            ("notes.md", "TODO is a word here\n"),
        ],
        &[
            "a/x.rs:1: `FIXME`: do it, or file it as an issue",
            "a/x.rs:2: `todo!` is not an implementation",
            "a/x.rs:3: `unimplemented!` is not an implementation",
            "a/x.rs:5: a test that is switched off says why: `#[ignore = \"…\"]`",
            "a/z.sh:1: `XXX`: do it, or file it as an issue",
        ],
    );
}

#[test]
fn blanks_at_the_end_are_refused_except_in_recordings() {
    expect(
        &[("a.md", "one \ntwo\t\nthree\r\nfour"), ("tests/recorded/a.json", "{} "), ("empty.md", "")],
        &[
            "a.md: does not end with a newline",
            "a.md:1: trailing blanks",
            "a.md:2: trailing blanks",
            "a.md:3: trailing blanks",
        ],
    );
}

#[test]
fn traces_of_a_machine_are_refused_everywhere() {
    expect(
        &[
            (
                "a.rs",
                "const A: &str = \"/attic/tree/x\";\n// /attic-like, cold/attic and ./attic are something else\n",
            ),
            ("b.md", concat!("see /home", "/ana/notes, /home/vcap, $root/home/x and /home\n")),
            ("tests/recorded/c.json", "\"https://crates.example.org/api\"\n"),
        ],
        &[
            "a.rs:1: names a folder of this machine (`/attic/tree`)",
            "a.rs:1: names a folder of this machine (`/attic`)",
            concat!("b.md:1: names somebody's home (`/home", "/ana`)"),
            "tests/recorded/c.json:1: names a package host of this machine (`crates.example.org`)",
        ],
    );
}

#[test]
fn hosts_come_from_urls_that_count() {
    let text = "# http://old.example.net/x\nURIs: http://deb.example.net/debian https://ana:key@m.example.org:8443/p\n\
                registry = \"sparse+https://crates.example.org/api/\"\nlocal = http://mirror/x\n";
    assert_eq!(hosts_in(text), ["deb.example.net", "m.example.org", "crates.example.org"]);
}
