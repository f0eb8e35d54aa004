//! Archives as the CLI makes them, and as an attacker or a bad disk does.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod recorded;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use model::ErrorCode;
use release::archive::{ArchiveError, ImportedRelease, JobArchive, KnownParts};
use release::blobstore::{MemorySink, StoreSink};
use release::{Blobstore as _, LocalBlobs, ReleaseArchive, StemcellArchive};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempPath;

fn recorded(name: &str) -> PathBuf {
    recorded::recorded(&format!("release/{name}"))
}

fn import(path: &Path) -> Result<(ImportedRelease, MemorySink), ArchiveError> {
    let mut sink = MemorySink::default();
    let imported = ReleaseArchive::open(path)?.import(&KnownParts::default(), &mut sink)?;
    Ok((imported, sink))
}

#[test]
fn reads_the_recorded_release() {
    let (imported, sink) = import(&recorded("golden-1.tgz")).unwrap();
    assert_eq!((imported.release.name.as_str(), imported.release.version.as_str()), ("golden", "1"));
    assert_eq!((imported.commit_hash.as_str(), imported.uncommitted_changes), ("ae034ef", false));
    let names: Vec<_> = imported.jobs.iter().map(|j| j.name.as_str()).collect();
    assert_eq!(names, ["check", "client", "dump", "server", "store"]);
    assert!(imported.jobs.iter().all(|j| sink.blobs.contains_key(&j.blob)));
    assert!(imported.packages.iter().all(|p| sink.blobs.contains_key(p.source.as_ref().unwrap())));
    let client = &imported.jobs[1];
    assert_eq!((client.consumes.len(), client.packages.len()), (2, 1));
    assert!(imported.jobs[0].is_errand(), "check has bin/run");
}

#[test]
fn a_job_archive_gives_the_renderer_its_templates() {
    let (imported, sink) = import(&recorded("golden-1.tgz")).unwrap();
    let server = imported.jobs.iter().find(|j| j.name.as_str() == "server").unwrap();
    let archive = JobArchive::read(&server.name, &sink.blobs[&server.blob][..]).unwrap();
    let templates = archive.templates(&imported.release).unwrap();
    let pairs: Vec<_> =
        templates.templates.iter().map(|t| (t.source.clone(), t.destination.clone())).collect();
    assert_eq!(pairs, server.templates);
    assert!(templates.templates.iter().all(|t| !t.text.is_empty()));
}

#[track_caller]
fn check_refused(path: &Path, code: ErrorCode, why: &str) {
    let error = import(path).map(drop).expect_err("it should be refused");
    assert_eq!((error.code, error.message.contains(why)), (code, true), "{}", error.message);
}

#[test]
fn the_recorded_damaged_archives_are_refused() {
    check_refused(
        &recorded("nomanifest.tgz"),
        ErrorCode::ReleaseManifestNotFound,
        "Release manifest not found",
    );
    let path = recorded("golden-baddigest.tgz");
    check_refused(&path, ErrorCode::ReleaseDigestMismatch, "packages/base-lib.tgz");
}

#[test]
fn parts_that_are_known_are_neither_checked_nor_needed() {
    let (golden, _) = import(&recorded("golden-1.tgz")).unwrap();
    let known =
        KnownParts { jobs: golden.jobs.clone(), packages: golden.packages.clone(), ..KnownParts::default() };
    let mut sink = MemorySink::default();
    let manifest = fs::read(recorded("golden-1.tgz")).unwrap();
    let mut whole = tar::Archive::new(flate2::read::GzDecoder::new(&manifest[..]));
    let mut first = whole.entries().unwrap().next().unwrap().unwrap();
    let mut text = Vec::new();
    first.read_to_end(&mut text).unwrap();
    let manifest_only = Forge::new().file("release.MF", &text).path();
    let imported = ReleaseArchive::open(&*manifest_only).unwrap().import(&known, &mut sink).unwrap();
    assert_eq!((&imported.jobs, &imported.packages), (&golden.jobs, &golden.packages));
    assert!(sink.blobs.is_empty());
    // golden/2 shares all but one job.
    let mut sink = MemorySink::default();
    ReleaseArchive::open(recorded("golden-2.tgz")).unwrap().import(&known, &mut sink).unwrap();
    assert_eq!(sink.blobs.len(), 1);
}

#[test]
fn another_fingerprint_is_the_state_s_to_refuse() {
    for name in ["golden-1-pkg.tgz", "golden-1-job.tgz"] {
        let (changed, _) = import(&recorded(name)).unwrap(); // Its release.MF comes last, which is fine too.
        let (golden, _) = import(&recorded("golden-1.tgz")).unwrap();
        assert_ne!((changed.jobs, changed.packages), (golden.jobs, golden.packages));
    }
}

/// Makes tarballs that no tool would make.
struct Forge {
    tar: Builder<Vec<u8>>,
}

impl Forge {
    fn new() -> Self {
        Self { tar: Builder::new(Vec::new()) }
    }

    /// Writes a name as it is: the library refuses the interesting ones.
    fn entry(&mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> &mut Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.tar.append(&header, content).unwrap();
        self
    }

    fn file(&mut self, name: &str, content: &[u8]) -> &mut Self {
        self.entry(EntryType::Regular, name, "", content)
    }

    /// Adds bytes that are entries already.
    fn raw(&mut self, entries: &[u8]) -> &mut Self {
        self.tar.get_mut().extend_from_slice(entries);
        self
    }

    fn tgz(&mut self) -> Vec<u8> {
        gzipped(&std::mem::replace(&mut self.tar, Builder::new(Vec::new())).into_inner().unwrap())
    }

    /// Writes the tarball to a file that lives as long as the answer.
    fn path(&mut self) -> TempPath {
        raw(&self.tgz())
    }
}

fn raw(bytes: &[u8]) -> TempPath {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.into_temp_path()
}

const EMPTY_RELEASE: &[u8] = b"name: r\nversion: '1'\njobs: []\npackages: []\n";

#[test]
fn what_is_no_archive_is_refused() {
    let code = ErrorCode::ReleaseInvalidArchive;
    let mut forge = Forge::new();
    check_refused(&raw(b"this is not a tarball\n"), code, "Extracting release archive failed");
    check_refused(&raw(b""), code, "Extracting release archive failed");
    check_refused(&raw(&[0x1f, 0x8b, 8, 0]), code, "Extracting release archive failed");
    let whole = fs::read(recorded("golden-1.tgz")).unwrap();
    for length in [20, whole.len() / 2, whole.len() - 9] {
        check_refused(&raw(&whole[..length]), code, "Extracting release archive failed");
    }
    check_refused(&forge.file("release.MF", b"a: [").path(), code, "release.MF is not YAML");
    check_refused(&forge.file("release.MF", b"\xff\xfe").path(), code, "release.MF is not UTF-8");
}

#[test]
fn names_that_leave_the_archive_are_refused() {
    let refuse = |name: &str, why: &str| {
        let path = Forge::new().file("release.MF", EMPTY_RELEASE).file(name, b"x").path();
        check_refused(&path, ErrorCode::ReleaseInvalidArchive, why);
    };
    refuse("../evil", "`../evil` leads out of the archive");
    refuse("jobs/../../evil", "leads out of the archive");
    refuse("/etc/passwd", "`/etc/passwd` is an absolute name");
    let link = |kind, target: &str, why: &str| {
        let mut forge = Forge::new();
        let path = forge.file("release.MF", EMPTY_RELEASE).entry(kind, "jobs/x.tgz", target, b"").path();
        check_refused(&path, ErrorCode::ReleaseInvalidArchive, why);
    };
    link(EntryType::Symlink, "/etc/shadow", "links to `/etc/shadow`, outside");
    link(EntryType::Symlink, "../../shadow", "outside of the archive");
    link(EntryType::Link, "../shadow", "leads out of the archive");
    link(EntryType::Char, "", "neither a file nor a folder nor a link");
    link(EntryType::Fifo, "", "neither a file nor a folder nor a link");
}

#[test]
fn a_link_in_place_of_a_part_is_refused() {
    let row = format!(
        "name: r\nversion: '1'\njobs:\n- {{name: j, version: a, fingerprint: a, sha1: '{}'}}\n",
        "0".repeat(40)
    );
    let mut forge = Forge::new();
    forge.file("release.MF", row.as_bytes()).entry(EntryType::Symlink, "jobs/j.tgz", "k.tgz", b"");
    check_refused(&forge.path(), ErrorCode::ReleaseInvalidArchive, "`jobs/j.tgz` is not a file");
}

#[test]
fn bombs_are_stopped() {
    // 80 MB of zeros in 80 KB.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let mut tar = Builder::new(&mut gzip);
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(80 << 20);
    header.set_cksum();
    tar.append(&header, std::io::Read::take(std::io::repeat(0), 80 << 20)).unwrap();
    drop(tar);
    let path = raw(&gzip.finish().unwrap());
    check_refused(&path, ErrorCode::ReleaseInvalidArchive, "expands to more than 100 times its size");

    let mut forge = Forge::new();
    for _ in 0..20_001 {
        forge.file("a", b"");
    }
    check_refused(&forge.path(), ErrorCode::ReleaseInvalidArchive, "more than 20000 entries");

    let mut header = Header::new_gnu();
    header.set_path("release.MF").unwrap();
    header.set_size(1 << 40); // A terabyte, it says.
    header.set_cksum();
    let path = raw(header.as_bytes());
    check_refused(&path, ErrorCode::ReleaseInvalidArchive, "more than");
}

/// A sparse file of one hole: no data, however large it says that it is.
fn hole(name: &str, bytes: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(0);
    let octal =
        |field: &mut [u8; 12], number: u64| field.copy_from_slice(format!("{number:011o}\0").as_bytes());
    let gnu = header.as_gnu_mut().unwrap();
    octal(&mut gnu.realsize, bytes);
    octal(&mut gnu.sparse[0].offset, bytes);
    octal(&mut gnu.sparse[0].numbytes, 0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn gzipped(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn holes_are_refused() {
    let small = hole("image", 4096);
    let mut zeros = Vec::new();
    let mut library = tar::Archive::new(&small[..]);
    library.entries().unwrap().next().unwrap().unwrap().read_to_end(&mut zeros).unwrap();
    assert_eq!(zeros, [0; 4096], "the library makes zeros of it");
    let bomb = hole("jobs/j.tgz", 4 << 30);
    let release = Forge::new().file("release.MF", one_job(&[], "j").as_bytes()).raw(&bomb).path();
    check_refused(&release, ErrorCode::ReleaseInvalidArchive, "`jobs/j.tgz` is a sparse file");
    let job = gzipped(&[hole("monit", 64 << 20), hole("job.MF", 64 << 20)].concat());
    check_refused(&release_around(&job), ErrorCode::JobInvalidArchive, "`monit` is a sparse file");
    let stemcell = format!("name: s\nversion: '1'\nsha1: {}\n", "0".repeat(40));
    let path = Forge::new().file("stemcell.MF", stemcell.as_bytes()).raw(&hole("image", 4 << 30)).path();
    let refused = StemcellArchive::open(&*path).unwrap().import(&mut MemorySink::default()).unwrap_err();
    assert!(refused.message.contains("`image` is a sparse file"), "{refused}");
}

#[test]
fn headers_have_bounds() {
    // The library reads both into memory before it tells of an entry.
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut forge = Forge::new();
        let path = forge.entry(kind, "././@LongLink", "", &vec![b'a'; 2 << 20]).path();
        check_refused(&path, ErrorCode::ReleaseInvalidArchive, "the headers of an entry have more than");
    }
    // Contents that nobody looks at are no headers.
    let mut forge = Forge::new();
    let unread = vec![7; 3 << 20];
    let path = forge.file("unread", &unread).file("release.MF", EMPTY_RELEASE).file("more", &unread).path();
    import(&path).unwrap();
}

#[test]
fn links_do_not_multiply_a_file() {
    let mut forge = Forge::new();
    forge.file("job.MF", b"name: j\n").file("monit", b"").file("templates/t", &vec![b'#'; 8 << 20]);
    for n in 0..100 {
        forge.entry(EntryType::Symlink, &format!("templates/{n}"), "t", b"");
    }
    let job = forge.tgz();
    check_refused(&release_around(&job), ErrorCode::JobInvalidArchive, "its links expand it to more than");
}

#[test]
fn what_is_too_large_to_be_filed_is_refused() {
    let description = format!("name: j\nproperties: {{p: {{description: {}}}}}\n", "d".repeat(600 << 10));
    let path = release_with_job(&[("job.MF", &description), ("monit", "")]);
    let (imported, _) = import(&path).unwrap();
    assert_eq!(imported.jobs[0].properties[0].name, "p", "descriptions are not filed");
    let too_long = format!("name: j\n# {}\n", "d".repeat(1 << 20));
    let path = release_with_job(&[("job.MF", &too_long), ("monit", "")]);
    check_refused(&path, ErrorCode::JobInvalidArchive, "`job.MF` has 1048587 bytes, more than 1048576");
    // Aliases: a short text may say much.
    let defaults: Vec<String> = (0..200).map(|n| format!("  p{n}: {{default: *text}}\n")).collect();
    let spec = format!("name: j\nx: &text {}\nproperties:\n{}", "d".repeat(10_000), defaults.concat());
    let path = release_with_job(&[("job.MF", &spec), ("monit", "")]);
    check_refused(&path, ErrorCode::ReleaseInvalidArchive, "Release 'r/1' is too large to be filed");
    check_refused(&path, ErrorCode::ReleaseInvalidArchive, "largest job: 'j'");
}

/// Packs a job and a release around it.
fn release_with_job(job: &[(&str, &str)]) -> TempPath {
    let mut inner = Forge::new();
    for (name, content) in job {
        inner.file(name, content.as_bytes());
    }
    release_around(&inner.tgz())
}

fn release_around(job: &[u8]) -> TempPath {
    Forge::new().file("./release.MF", one_job(job, "j").as_bytes()).file("./jobs/j.tgz", job).path()
}

/// The release.MF of a release with one job.
fn one_job(archive: &[u8], name: &str) -> String {
    let sha = hex::encode(Sha256::digest(archive));
    format!(
        "name: r\nversion: '1'\njobs:\n- {{name: {name}, version: a, fingerprint: a, sha1: 'sha256:{sha}'}}\n"
    )
}

#[track_caller]
fn check_job(spec: &str, code: ErrorCode, why: &str) {
    let path = release_with_job(&[("job.MF", spec), ("monit", ""), ("templates/t", "x")]);
    check_refused(&path, code, why);
}

#[test]
fn problems_of_job_mf_have_their_numbers() {
    check_job("name: k\n", ErrorCode::JobInvalidName, "Inconsistent name for job 'j'");
    check_job("[", ErrorCode::JobInvalidArchive, "job.MF of job 'j' is not YAML");
    check_job(
        "name: j\ntemplates: {gone: x}",
        ErrorCode::JobMissingTemplateFile,
        "Missing template file 'gone'",
    );
    check_job("name: j\ntemplates: {t: ../x}", ErrorCode::JobInvalidArchive, "outside of the job's folder");
    check_job("name: j\npackages: {a: b}", ErrorCode::JobInvalidPackageSpec, "invalid package spec format");
    check_job("name: j\npackages: [a]", ErrorCode::JobMissingPackage, "requires package 'a'");
    check_job("name: j\nlogs: [a]", ErrorCode::JobInvalidLogSpec, "invalid logs spec format");
    check_job(
        "name: j\nproperties: [a]",
        ErrorCode::JobInvalidPropertySpec,
        "invalid properties spec format",
    );
    check_job(
        "name: j\nproperties: {a: 1}",
        ErrorCode::JobInvalidPropertySpec,
        "invalid properties spec format",
    );
    check_job("name: j\nprovides: [{name: a}]", ErrorCode::JobInvalidLinkSpec, "invalid 'provides'");
    check_job("name: j\nconsumes: a", ErrorCode::JobInvalidLinkSpec, "invalid 'consumes'");
    let twice = "name: j\nprovides: [{name: a, type: x}, {name: a, type: y}]";
    check_job(twice, ErrorCode::JobDuplicateLinkName, "two links called 'a'");
    let undeclared = "name: j\nprovides: [{name: a, type: x, properties: [p]}]";
    check_job(undeclared, ErrorCode::JobInvalidLinkSpec, "property 'p', which is not defined");
    check_refused(&release_with_job(&[("monit", "")]), ErrorCode::JobMissingManifest, "Missing job manifest");
    check_refused(
        &release_with_job(&[("job.MF", "name: j")]),
        ErrorCode::JobMissingMonit,
        "missing monit file",
    );
    let damaged = release_with_job(&[("job.MF", "name: j"), ("../x", "")]);
    check_refused(&damaged, ErrorCode::JobInvalidArchive, "leads out of the archive");
}

#[test]
fn another_monit_file_is_enough_to_upload() {
    let path = release_with_job(&[("job.MF", "name: j\ntemplates: ~\n"), ("extra.monit", "")]);
    let (imported, sink) = import(&path).unwrap();
    let archive = JobArchive::read(&"j".into(), &sink.blobs[&imported.jobs[0].blob][..]).unwrap();
    assert_eq!(archive.templates(&imported.release).unwrap_err().code, ErrorCode::JobMissingMonit);
}

#[test]
fn a_job_whose_properties_could_not_be_checked_is_refused_by_name() {
    let job = |schema| {
        let spec = "name: j\n";
        release_with_job(&[("job.MF", spec), ("monit", ""), ("properties_schema.json", schema)])
    };
    let refuse = |schema, why| check_refused(&job(schema), ErrorCode::JobInvalidPropertySpec, why);
    let demanding = r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "required": ["port"]}"#;
    refuse(demanding, "properties_schema.json of job 'j' makes demands ('required')");
    refuse("[]", "is not a hash in JSON");
    import(&job(r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t"}"#)).unwrap();
}

#[test]
fn a_version_that_no_list_could_show_is_refused() {
    for version in ["1+a+b", "-1", "1-", "1+"] {
        let text = format!("name: r\nversion: '{version}'\njobs: []\npackages: []\n");
        let path = Forge::new().file("release.MF", text.as_bytes()).path();
        check_refused(
            &path,
            ErrorCode::ReleaseVersionInvalid,
            &format!("release version '{version}' is invalid"),
        );
    }
}

#[test]
fn release_mf_is_checked() {
    let refuse = |text: &str, code, why: &str| {
        let path = Forge::new().file("release.MF", text.as_bytes()).path();
        check_refused(&path, code, why);
    };
    refuse("version: 1", ErrorCode::ValidationMissingField, "Required property 'name'");
    refuse("name: r\nversion: 'a b'", ErrorCode::ReleaseVersionInvalid, "release version 'a b' is invalid");
    refuse("name: ..\nversion: 1", ErrorCode::ValidationInvalidValue, "release name '..' is invalid");
    let package = |name: &str, dependencies: &str| {
        format!(
            "- {{name: {name}, version: a, fingerprint: a, sha1: '{}', dependencies: [{dependencies}]}}\n",
            "0".repeat(40)
        )
    };
    let head = "name: r\nversion: 1\npackages:\n";
    let circle = format!("{head}{}{}", package("a", "b"), package("b", "a"));
    refuse(&circle, ErrorCode::ReleaseInvalidPackage, "in a circle: a -> b -> a");
    refuse(&format!("{head}{}", package("a", "c")), ErrorCode::ReleaseInvalidPackage, "unknown package 'c'");
    refuse(
        &format!("{head}{}", package("../a", "")),
        ErrorCode::ReleaseInvalidPackage,
        "package name '../a'",
    );
    refuse(&format!("{head}{0}{0}", package("a", "")), ErrorCode::ReleaseInvalidArchive, "more than once");
    refuse(
        &format!("{head}{}", package("a", "")),
        ErrorCode::PackageInvalidArchive,
        "lacks `packages/a.tgz`",
    );
    let digest = format!("{head}- {{name: a, version: a, fingerprint: a, sha1: zz}}\n");
    refuse(&digest, ErrorCode::ReleaseDigestMismatch, "digest of package 'a'");
}

#[test]
fn a_compiled_release_brings_packages_with_their_keys() {
    let tgz = Forge::new().file("bin/x", b"x").tgz();
    let sha = hex::encode(Sha256::digest(&tgz));
    let row = |name: &str, dependencies: &str| {
        format!(
            "- {{name: {name}, version: f{name}, fingerprint: f{name}, sha1: 'sha256:{sha}', stemcell: os/1.2, dependencies: [{dependencies}]}}\n"
        )
    };
    let text = format!("name: r\nversion: 1\ncompiled_packages:\n{}{}", row("a", "b"), row("b", ""));
    let mut forge = Forge::new();
    forge.file("./release.MF", text.as_bytes());
    forge.file("./compiled_packages/a.tgz", &tgz).file("./compiled_packages/b.tgz", &tgz);
    let (imported, _) = import(&forge.path()).unwrap();
    assert!(imported.packages.iter().all(|p| p.source.is_none()));
    let keys: Vec<_> =
        imported.compiled.iter().map(|c| (c.key.os.as_str(), c.key.dependency_key.as_str())).collect();
    assert_eq!(keys, [("os", r#"[["b","fb"]]"#), ("os", "[]")]);
}

#[tokio::test]
async fn stemcells_stream_into_a_store() {
    let image = vec![7u8; 300_000];
    let manifest = |sha: &str| {
        format!("name: s\nversion: '1.1'\nsha1: {sha}\ncloud_properties: {{a: 1}}\napi_version: 3\n")
    };
    let sha = format!("sha256:{}", hex::encode(Sha256::digest(&image)));
    let good = Forge::new().file("stemcell.MF", manifest(&sha).as_bytes()).file("image", &image).path();
    let wrong = format!("sha256:{}", "0".repeat(64));
    let bad = Forge::new().file("stemcell.MF", manifest(&wrong).as_bytes()).file("image", &image).path();
    let none = Forge::new().file("./stemcell.MF", manifest(&sha).as_bytes()).path();
    let dir = tempfile::tempdir().unwrap();
    let store = LocalBlobs::open(dir.path()).unwrap();
    let sink = StoreSink::new(Arc::new(store.clone()), tokio::runtime::Handle::current());
    let work = move || {
        let mut sink = sink;
        let mut import = |path: &Path| StemcellArchive::open(path).and_then(|a| a.import(&mut sink));
        (import(&bad).unwrap_err(), import(&none).unwrap_err(), import(&good).unwrap())
    };
    let (bad, none, good) = tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(bad.code, ErrorCode::StemcellDigestMismatch, "{bad}");
    assert_eq!(none.code, ErrorCode::StemcellImageNotFound, "{none}");
    assert_eq!((good.manifest.os.as_str(), good.manifest.api_version, good.image.bytes), ("s", 3, 300_000));
    assert_eq!(store.list().await.unwrap().len(), 1, "only the good image is stored");
    assert!(store.has(&good.image.digest).await.unwrap());
}
