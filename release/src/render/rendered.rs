//! What rendering gives: files, the hashes that decide whether an instance changed, and the archive for the agent.

use std::collections::BTreeMap;
use std::io;

use model::JobName;
use sha1::{Digest as _, Sha1};

use super::LinkGroup;
use crate::archive::pack::TgzWriter;

/// A rendered template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedFile {
    /// The template's source path; hashes take files in its order.
    pub source: String,
    /// Where the file goes, below the job's folder.
    pub destination: String,
    /// The rendered bytes.
    pub contents: Vec<u8>,
}

/// A job's rendered files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedJob {
    /// The job's name.
    pub name: JobName,
    /// The rendered `monit`.
    pub monit: Vec<u8>,
    /// The other files in the order of the job's spec, `.bosh/links.json` last.
    pub files: Vec<RenderedFile>,
}

impl RenderedJob {
    /// Returns the SHA-1 that stands for this job in an instance's `template_hashes`.
    pub fn template_hash(&self) -> String {
        let mut hash = Sha1::new_with_prefix(&self.monit);
        for file in self.by_source() {
            hash.update(&file.contents);
        }
        hex::encode(hash.finalize())
    }

    fn by_source(&self) -> Vec<&RenderedFile> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|a, b| a.source.cmp(&b.source));
        files
    }
}

/// All jobs of an instance, rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedInstance {
    /// Its jobs, in the group's order.
    pub jobs: Vec<RenderedJob>,
}

impl RenderedInstance {
    /// Returns the SHA-1 that changes whenever a rendered byte or a destination does.
    pub fn configuration_hash(&self) -> String {
        let mut jobs: Vec<_> = self.jobs.iter().collect();
        jobs.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hash = Sha1::new();
        for job in jobs {
            hash.update(&job.monit);
            hash.update(job.name.as_str());
            for file in job.by_source() {
                hash.update(&file.contents);
                hash.update(&file.destination);
            }
        }
        hex::encode(hash.finalize())
    }

    /// Returns one SHA-1 per job.
    pub fn template_hashes(&self) -> BTreeMap<JobName, String> {
        self.jobs.iter().map(|job| (job.name.clone(), job.template_hash())).collect()
    }

    /// Returns the archive for the agent (tgz): `<job>/monit` and `<job>/<destination>` for every file. Equal files
    /// give equal bytes.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let mut tgz = TgzWriter::new(Vec::new());
        for job in &self.jobs {
            tgz.file(&format!("{}/monit", job.name), SECRET_MODE, &job.monit)?;
            for file in &job.files {
                tgz.file(&format!("{}/{}", job.name, file.destination), SECRET_MODE, &file.contents)?;
            }
        }
        tgz.finish()
    }
}

/// Returns the file in which a job finds the DNS groups of the links it provides.
pub(super) fn links_file(links: &[LinkGroup]) -> RenderedFile {
    const PATH: &str = ".bosh/links.json";
    let mut links: Vec<_> = links.iter().collect();
    links.sort_by(|a, b| a.group.cmp(&b.group));
    let mut contents = serde_json::to_vec_pretty(&links).expect("texts are JSON");
    contents.push(b'\n');
    RenderedFile { source: PATH.to_owned(), destination: PATH.to_owned(), contents }
}

/// Rendered files hold secrets; the agent sets the modes it wants when it unpacks them.
const SECRET_MODE: u32 = 0o640;
