//! Creates releases and compares their fingerprints with those that the reference CLI computed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod recorded;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use recorded::recorded;
use release::blobstore::MemorySink;
use release::create::{CreateError, CreateOptions, CreatedRelease, Uncommitted, create_dev_release};
use release::{ReleaseArchive, digest::Hashed};
use sha2::{Digest as _, Sha256};

fn write(root: &Path, path: &str, mode: u32, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn create(root: &Path) -> Result<CreatedRelease, CreateError> {
    let tarball = Some(root.with_extension("tgz"));
    create_dev_release(
        root,
        &CreateOptions { name: Some("sample".into()), tarball, ..CreateOptions::default() },
    )
}

#[track_caller]
fn check_fingerprints(created: &CreatedRelease, expected: &[(&str, &str)]) {
    let parts = created.packages.iter().chain(&created.jobs);
    let found: Vec<_> = parts.map(|(name, fingerprint)| (name.as_str(), fingerprint.as_str())).collect();
    assert_eq!(found, expected);
}

/// The first worked example of the fingerprint's definition.
fn first_example(root: &Path) {
    write(root, "packages/base/packaging", 0o644, "exit 0\n");
    write(root, "packages/base/spec", 0o644, "---\nname: base\nfiles: []\n");
    write(root, "packages/tool/packaging", 0o755, "cp -a tool/* $BOSH_INSTALL_TARGET/\n");
    write(
        root,
        "packages/tool/spec",
        0o644,
        "---\nname: tool\ndependencies: [base]\nfiles: [\"tool/**/*\"]\n",
    );
    write(root, "src/tool/a.txt", 0o644, "one\n");
    write(root, "src/tool/.hidden", 0o644, ".hid\n");
    write(root, "src/tool/sub/run.sh", 0o755, "#!/bin/sh\n");
    symlink("a.txt", root.join("src/tool/link")).unwrap();
    let spec = "---\nname: echo\ntemplates:\n  bin/run.erb: bin/run\n  conf.erb: config/conf\npackages:\n- tool\nproperties:\n  port:\n    default: 80\n";
    write(root, "jobs/echo/spec", 0o644, spec);
    write(root, "jobs/echo/monit", 0o644, "check process echo\n");
    write(root, "jobs/echo/templates/bin/run.erb", 0o755, "#!/bin/bash\necho hi\n");
    write(root, "jobs/echo/templates/conf.erb", 0o644, "port=<%= p(\"port\") %>\n");
    write(root, "LICENSE", 0o644, "LIC\n");
    write(root, "NOTICE", 0o644, "NOT\n");
}

#[test]
fn the_first_worked_example_has_its_fingerprints() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("release");
    first_example(&root);
    let created = create(&root).unwrap();
    check_fingerprints(
        &created,
        &[
            ("base", "668faebf4d2615a3632366cef4de1f144c581faf4478322acbea342bb22f497b"),
            ("tool", "8c94abff4fa74f77d2a5c3c9aff9eb8192f19a2a47a9e40667c3d81605b45bc2"),
            ("echo", "4b51f674b6479bd6f679f1f0f52de6399a65af3dee536221c4f53c7010192ffa"),
        ],
    );
    let license = created.license.as_ref().unwrap();
    assert_eq!(license.as_str(), "eb5df4e450c39da03dd7c1f1f691a10e8a8c548b41ee0eede37904874e3449d2");
    assert_eq!((created.release.version.as_str(), created.commit_hash.as_str()), ("0+dev.1", "non-git"));
}

#[test]
fn the_second_worked_example_has_its_fingerprints() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("release");
    for package in ["aa", "zz"] {
        write(&root, &format!("packages/{package}/packaging"), 0o644, "");
        write(
            &root,
            &format!("packages/{package}/spec"),
            0o644,
            &format!("---\nname: {package}\nfiles: []\n"),
        );
    }
    write(&root, "packages/p/packaging", 0o644, "true\n");
    write(&root, "packages/p/pre_packaging", 0o644, "echo gen > gen.txt\n");
    let spec = "---\nname: p\ndependencies: [zz, aa]\nfiles: [\"p/**/*\", \"p/*.txt\"]\nexcluded_files: [\"p/skip*\"]\n";
    write(&root, "packages/p/spec", 0o644, spec);
    for (name, content) in
        [("both", "src\n"), ("skip1", "s\n"), ("B", "B\n"), ("ü", "u\n"), (".gitkeep", "git\n")]
    {
        write(&root, &format!("src/p/{name}"), 0o644, content);
    }
    write(&root, "src/p/d/x", 0o640, "x\n");
    write(&root, "src/p/g", 0o711, "g\n");
    symlink("d", root.join("src/p/dl")).unwrap();
    fs::create_dir(root.join("src/p/empty")).unwrap();
    let mut blobs = String::from("---\n");
    for (path, content) in [("p/both", "blob\n"), ("p/b.txt", "blobonly\n")] {
        write(&root, &format!("blobs/{path}"), 0o600, content);
        let sha = hex::encode(Sha256::digest(content));
        blobs.push_str(&format!("{path}:\n  size: {}\n  sha: sha256:{sha}\n", content.len()));
    }
    write(&root, "config/blobs.yml", 0o644, &blobs);
    write(
        &root,
        "jobs/s/spec",
        0o644,
        "---\nname: s\ntemplates: {l.erb: config/l, t.erb: t}\npackages: [p]\nproperties: {}\n",
    );
    write(&root, "jobs/s/monit", 0o644, "");
    let schema = "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\"}\n";
    write(&root, "jobs/s/properties_schema.json", 0o644, schema);
    write(&root, "jobs/s/templates/t.erb", 0o644, "real\n");
    symlink("t.erb", root.join("jobs/s/templates/l.erb")).unwrap();

    let created = create(&root).unwrap();
    check_fingerprints(
        &created,
        &[
            ("aa", "a12df48ea6f42617b66ff0f009ac777ad624b072187e53015ee09ef1b75c3fbd"),
            ("p", "78cbcfd10f06135b4d53afc0a0d745aa12d3d29ec3bffcc81abe16e8b83aad5c"),
            ("zz", "a12df48ea6f42617b66ff0f009ac777ad624b072187e53015ee09ef1b75c3fbd"),
            ("s", "d0548185f1220c3a4d689b1ce23164cdd99b5a208e974cc6cf102910218340b4"),
        ],
    );
    assert_eq!(created.license, None);
    // What pre_packaging made is in the archive; the script itself is not.
    let (imported, sink) = import(created.tarball.as_ref().unwrap());
    let package = imported.packages.iter().find(|p| p.name.as_str() == "p").unwrap();
    let names = entry_names(&sink.blobs[package.source.as_ref().unwrap()]);
    let expected = [
        "./",
        "./gen.txt",
        "./p/",
        "./p/.gitkeep",
        "./p/B",
        "./p/b.txt",
        "./p/both",
        "./p/d/",
        "./p/d/x",
        "./p/dl",
        "./p/g",
        "./p/ü",
        "./packaging",
    ];
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
}

fn import(tarball: &Path) -> (release::archive::ImportedRelease, MemorySink) {
    let mut sink = MemorySink::default();
    let imported = ReleaseArchive::open(tarball).unwrap().import(&Default::default(), &mut sink).unwrap();
    (imported, sink)
}

fn entry_names(tgz: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(tgz));
    archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::write(&to, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

#[test]
fn the_recorded_source_has_the_fingerprints_of_the_recorded_release() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("release");
    copy(&recorded("release/source"), &root);
    let created = create(&root).unwrap();
    let (ours, _) = import(created.tarball.as_ref().unwrap());
    let (theirs, _) = import(&recorded("release/golden-2.tgz"));
    let jobs = |r: &release::archive::ImportedRelease| -> Vec<_> {
        r.jobs.iter().map(|j| (j.name.clone(), j.fingerprint.clone(), j.properties.clone())).collect()
    };
    let packages = |r: &release::archive::ImportedRelease| -> Vec<_> {
        r.packages.iter().map(|p| (p.name.clone(), p.fingerprint.clone(), p.dependencies.clone())).collect()
    };
    assert_eq!(packages(&ours), packages(&theirs));
    assert_eq!(jobs(&ours), jobs(&theirs));
    assert_eq!((jobs(&ours).len(), packages(&ours).len()), (5, 3));
}

#[test]
fn the_same_sources_give_the_same_bytes_and_a_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    first_example(&one);
    first_example(&two);
    // Times and places of files must not matter.
    fs::File::open(two.join("src/tool/a.txt")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let (first, second) = (create(&one).unwrap(), create(&two).unwrap());
    let bytes = |created: &CreatedRelease| Hashed::of(&fs::read(created.tarball.as_ref().unwrap()).unwrap());
    assert_eq!(bytes(&first), bytes(&second));
    assert_eq!(create(&one).unwrap().release.version.as_str(), "0+dev.2");
    assert!(one.join("dev_releases/sample/sample-0+dev.2.yml").is_file());
    let builds = fs::read_to_string(one.join(".dev_builds/packages/tool/index.yml")).unwrap();
    assert!(builds.contains("8c94abff4fa74f77d2a5c3c9aff9eb8192f19a2a47a9e40667c3d81605b45bc2"), "{builds}");
}

#[test]
fn a_package_that_asks_for_no_compression_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let packed = |root: &Path| {
        write(root, "src/tool/zeros", 0o644, &"0".repeat(100_000));
        let created = create(root).unwrap();
        let (imported, sink) = import(created.tarball.as_ref().unwrap());
        let tool = imported.packages.iter().find(|p| p.name.as_str() == "tool").unwrap().clone();
        let archive = &sink.blobs[tool.source.as_ref().unwrap()];
        (archive.len(), entry_names(archive), tool.fingerprint)
    };
    let (usual, plain) = (dir.path().join("usual"), dir.path().join("plain"));
    first_example(&usual);
    first_example(&plain);
    let spec = "---\nname: tool\ndependencies: [base]\nfiles: [\"tool/**/*\"]\nno_compression: true\n";
    write(&plain, "packages/tool/spec", 0o644, spec);
    let (small, large) = (packed(&usual), packed(&plain));
    assert!(small.0 < 10_000 && large.0 > 100_000, "{} and {} bytes", small.0, large.0);
    assert_eq!((small.1, small.2), (large.1, large.2));
}

#[track_caller]
fn check_refused(why: &str, damage: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("release");
    first_example(&root);
    damage(&root);
    let error = create(&root).unwrap_err();
    let text = format!(
        "{error}: {}",
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    );
    assert!(text.contains(why), "expected `{why}` in `{text}`");
}

#[test]
fn what_is_wrong_in_the_directory_is_named() {
    check_refused("Missing files for pattern 'tool/**/*' of package 'tool'", |r| {
        fs::remove_dir_all(r.join("src/tool")).unwrap();
    });
    check_refused("packages/base/packaging` is missing", |r| {
        fs::remove_file(r.join("packages/base/packaging")).unwrap()
    });
    check_refused("lists it as a template", |r| {
        fs::remove_file(r.join("jobs/echo/templates/conf.erb")).unwrap()
    });
    check_refused("which is not its folder's", |r| {
        fs::rename(r.join("jobs/echo"), r.join("jobs/other")).unwrap()
    });
    check_refused("has a 'no_compression' that is neither", |r| {
        write(r, "packages/base/spec", 0o644, "---\nname: base\nno_compression: maybe\n");
    });
    check_refused("not by its owner", |r| write(r, "src/tool/odd", 0o611, "x"));
    check_refused("depends on unknown package 'base'", |r| {
        fs::remove_dir_all(r.join("packages/base")).unwrap()
    });
    check_refused("in a circle: base -> tool -> base", |r| {
        write(r, "packages/base/spec", 0o644, "---\nname: base\ndependencies: [tool]\nfiles: []\n");
    });
    check_refused("is not listed in config/blobs.yml", |r| write(r, "blobs/stray", 0o644, "x"));
    check_refused("config/blobs.yml lists it", |r| {
        write(r, "config/blobs.yml", 0o644, "a: {size: 1, sha: abc}\n")
    });
    check_refused("has 2 bytes, config/blobs.yml says 1", |r| {
        write(r, "blobs/a", 0o644, "xx");
        write(r, "config/blobs.yml", 0o644, &format!("a: {{size: 1, sha: '{}'}}\n", "0".repeat(40)));
    });
    check_refused("pre_packaging of package 'base' failed with exit status: 3", |r| {
        write(r, "packages/base/pre_packaging", 0o644, "exit 3\n");
    });
}

#[test]
fn changes_that_are_not_committed_are_refused_unless_allowed() {
    let git = |root: &Path, arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(arguments)
            .current_dir(root);
        command.output().is_ok_and(|o| o.status.success())
    };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("release");
    first_example(&root);
    if !git(&root, &["init", "-q"]) {
        println!("skipped: git does not work here");
        return;
    }
    assert!(matches!(create(&root), Err(CreateError::Uncommitted { .. })));
    let name = Some("sample".to_owned());
    let force = CreateOptions { name, uncommitted: Uncommitted::Allow, ..CreateOptions::default() };
    let created = create_dev_release(&root, &force).unwrap();
    assert_eq!((created.commit_hash.as_str(), created.uncommitted_changes), ("empty", true));
    write(&root, ".gitignore", 0o644, "dev_releases\n.dev_builds\n");
    assert!(git(&root, &["add", "."]) && git(&root, &["commit", "-q", "-m", "first"]));
    let created = create(&root).unwrap();
    assert!(!created.uncommitted_changes && created.commit_hash.len() >= 7, "{created:?}");
}

/// The first example again, with its package `base` vendored as the build that a release of its own made of it.
fn with_vendored_base(root: &Path) -> String {
    first_example(root);
    let donor = create(root).unwrap();
    let (imported, sink) = import(donor.tarball.as_ref().unwrap());
    let base = imported.packages.iter().find(|p| p.name.as_str() == "base").unwrap();
    let (archive, fingerprint) = (&sink.blobs[base.source.as_ref().unwrap()], base.fingerprint.to_string());
    for generated in ["packages/base", ".dev_builds", "dev_releases"] {
        fs::remove_dir_all(root.join(generated)).unwrap();
    }
    fs::create_dir_all(root.join("blobstore")).unwrap();
    fs::write(root.join("blobstore/3f2a"), archive).unwrap();
    let digest = hex::encode(Sha256::digest(archive));
    let index = format!(
        "builds:\n  {fingerprint}:\n    version: {fingerprint}\n    blobstore_id: 3f2a\n    sha1: sha256:{digest}\nformat-version: \"2\"\n"
    );
    write(root, ".final_builds/packages/base/index.yml", 0o644, &index);
    write(
        root,
        "packages/vendored-base/spec.lock",
        0o644,
        &format!("name: base\nfingerprint: {fingerprint}\n"),
    );
    let config = "blobstore: {provider: local, options: {blobstore_path: blobstore}}\n";
    write(root, "config/final.yml", 0o644, config);
    fingerprint
}

#[test]
fn a_vendored_package_comes_out_of_the_blobstore_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("release");
    let fingerprint = with_vendored_base(&root);
    let created = create(&root).unwrap();
    assert_eq!(created.packages[0], ("base".to_owned(), fingerprint.as_str().into()));
    let (imported, sink) = import(created.tarball.as_ref().unwrap());
    let base = imported.packages.iter().find(|p| p.name.as_str() == "base").unwrap();
    let ours = &sink.blobs[base.source.as_ref().unwrap()];
    assert_eq!(*ours, fs::read(root.join("blobstore/3f2a")).unwrap());
    // Made elsewhere: an entry without a blob would hide the one that has it.
    assert!(!root.join(".dev_builds/packages/base").exists());
}

#[track_caller]
fn check_vendored_refused(why: &str, damage: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("release");
    with_vendored_base(&root);
    damage(&root);
    let text = create(&root).unwrap_err().to_string();
    assert!(text.contains(why), "expected `{why}` in `{text}`");
}

#[test]
fn what_is_wrong_with_a_vendored_package_is_named() {
    check_vendored_refused("for which .final_builds/packages/base/index.yml has no blob", |r| {
        fs::remove_dir_all(r.join(".final_builds")).unwrap();
    });
    check_vendored_refused("it should have digest sha256:", |r| write(r, "blobstore/3f2a", 0o644, "other"));
    check_vendored_refused("failed to open the archive of a vendored package", |r| {
        fs::remove_file(r.join("blobstore/3f2a")).unwrap();
    });
    check_vendored_refused("provider 's3'", |r| {
        write(r, "config/final.yml", 0o644, "blobstore: {provider: s3, options: {bucket_name: b}}\n");
    });
    check_vendored_refused("names no blobstore", |r| fs::remove_file(r.join("config/final.yml")).unwrap());
}
