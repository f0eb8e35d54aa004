//! The sample deployment of Redis, built beforehand: compiling Redis takes more than a minute, on each substrate anew.
//!
//! Manifest, jobs, links, templates and the packaging script are those in `examples/`. Only what they call the source is another
//! archive of the same layout, which holds this machine's Redis and all the libraries that it wants: stemcells have none of them.
//! What `make` builds out of it runs wherever there is a shell.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, Header};

use crate::needs::Need;
use crate::workload::{ReleaseFolder, example};

/// What the package is made of.
const BLOB: &str = "redis/redis-7.0.15.tar.gz";

/// The folder in it.
const SOURCE: &str = "redis-7.0.15";

/// Builds what the packaging script installs, and puts beside it what that runs.
const MAKEFILE: &str = "\
redis-server redis-cli: libraries
\tinstall -m 0755 run $@

libraries:
\tmkdir -p \"$(BOSH_INSTALL_TARGET)/lib\"
\tcp ../lib/* \"$(BOSH_INSTALL_TARGET)/lib/\"

.PHONY: libraries
";

/// Runs the program of its own name, with the libraries and the loader that it was linked for.
const RUN: &str = "\
#!/bin/sh
lib=${0%/*}/../lib
exec \"$lib\"/ld-*.so.* --library-path \"$lib\" \"$lib/${0##*/}\" \"$@\"
";

/// What Redis is in a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// This machine's, see [`Need::Redis`].
    Prebuilt,
    /// Nothing that could run, for VMs in which nothing runs.
    StandIn,
}

/// Makes the archive of the release in `folder`.
pub fn release(folder: &Path, content: Content) -> Result<PathBuf> {
    let release = ReleaseFolder::copy_of("redis", folder)?;
    release.only_blob(
        BLOB,
        &match content {
            Content::Prebuilt => prebuilt()?,
            Content::StandIn => b"not the source of Redis".to_vec(),
        },
    )?;
    release.archive()
}

/// The sample with one replica, on whatever carries it.
#[derive(Clone, Debug)]
pub struct Redis {
    /// The operating system and the version of the stemcell.
    pub stemcell: (&'static str, &'static str),
    /// What the errand's VM is.
    pub errand_vm_type: &'static str,
    /// How long an instance may take to be healthy.
    pub watch_ms: u32,
}

impl Redis {
    /// Returns the manifest.
    pub fn manifest(&self) -> Result<String> {
        let text = fs::read_to_string(example("redis.yml"))?;
        let mut manifest = Value::Object(model::yaml::parse_mapping(&text)?);
        let (os, version) = self.stemcell;
        manifest["stemcells"][0] = json!({ "alias": "default", "os": os, "version": version });
        for (key, watch) in manifest["update"].as_object_mut().context("it says how to update")? {
            if key.ends_with("_watch_time") {
                *watch = format!("100-{}", self.watch_ms).into();
            }
        }
        for group in manifest["instance_groups"].as_array_mut().context("it has groups")? {
            group["instances"] = 1.into();
            if group["lifecycle"] == "errand" {
                group["vm_type"] = self.errand_vm_type.into();
                continue;
            }
            group["persistent_disk_type"] = "small".into();
            // What was acknowledged is on the disk, whatever becomes of the VM a moment later.
            group["jobs"][0]["properties"]["appendfsync"] = "always".into();
        }
        Ok(serde_json::to_string_pretty(&manifest)?)
    }
}

/// Returns an archive that `make` builds Redis from.
fn prebuilt() -> Result<Vec<u8>> {
    let programs = [Need::Redis.path()?, Need::RedisCli.path()?];
    let libraries = libraries(&programs)?;
    let [redis, cli] = programs;
    // One program by several names: what it is called when it starts is what it does.
    let mut files = vec![("redis-server".to_owned(), redis), ("redis-cli".to_owned(), cli)];
    for library in libraries {
        let name = library.file_name().context("a library has a name")?;
        files.push((name.to_str().context("UTF-8")?.to_owned(), library));
    }
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, text) in [("Makefile", MAKEFILE), ("run", RUN)] {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, format!("{SOURCE}/src/{name}"), text.as_bytes())?;
    }
    for (name, path) in &files {
        let mut content = File::open(path).with_context(|| format!("open {}", path.display()))?;
        archive.append_file(format!("{SOURCE}/lib/{name}"), &mut content)?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// Returns what programs are linked with, the loader included.
fn libraries(programs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").args(programs).output().context("run ldd")?;
    ensure!(listed.status.success(), "ldd: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout)?;
    // `name => /path (address)`, and `/path (address)` for the loader; a program's own name ends in a colon.
    let paths = listed.split_ascii_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    let mut paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}
