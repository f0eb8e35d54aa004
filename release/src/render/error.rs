//! What can go wrong, and the texts that operators know from BOSH.

use std::fmt;
use std::io;

use model::JobName;
use serde::Deserialize;

use super::Isolation;

/// A template that failed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TemplateError {
    /// The template's source path, `monit` for the monit file.
    pub source: String,
    /// The innermost line inside this template; none for errors that have no line, like those of syntax.
    pub line: Option<u32>,
    /// What Ruby said.
    pub message: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error filling in template '{}' (line ", self.source)?;
        match self.line {
            Some(line) => write!(f, "{line}")?,
            None => f.write_str("(unknown)")?,
        }
        write!(f, ": {})", self.message)
    }
}

/// A job whose templates failed for one instance. `Display` gives BOSH's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobFailure {
    /// Its properties or links can't be had, for these reasons: nothing was rendered.
    Properties {
        /// The job.
        job: JobName,
        /// Lines of text.
        lines: Vec<String>,
    },
    /// `monit` failed, which ends the job at once.
    Monit(TemplateError),
    /// These templates failed; all were tried.
    Templates {
        /// The job.
        job: JobName,
        /// What failed, in the order of the job's spec.
        errors: Vec<TemplateError>,
    },
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Properties { job, lines } => f.write_str(&nested(&header(job), lines.iter().cloned())),
            Self::Monit(error) => error.fmt(f),
            Self::Templates { job, errors } => {
                f.write_str(&nested(&header(job), errors.iter().map(|e| format!("- {e}"))))
            }
        }
    }
}

fn header(job: &JobName) -> String {
    format!("Unable to render templates for job '{job}'. Errors are:")
}

/// Returns the text for an instance group of which some jobs failed.
pub fn group_failure_text<'a>(group: &str, failures: impl IntoIterator<Item = &'a JobFailure>) -> String {
    let header = format!("Unable to render jobs for instance group '{group}'. Errors are:");
    nested(&header, failures.into_iter().map(JobFailure::to_string))
}

/// Returns the text for a deployment, given its groups' texts.
pub fn deployment_failure_text(groups: impl IntoIterator<Item = String>) -> String {
    let text = nested("Unable to render instance groups for deployment. Errors are:", groups);
    // Nobody's entry: BOSH prints the outermost header without a dash.
    text.strip_prefix("- ").map(str::to_owned).unwrap_or(text)
}

/// Puts entries under a header, two spaces deeper, including the further lines of an entry.
fn nested(header: &str, entries: impl IntoIterator<Item = String>) -> String {
    let mut text = format!("- {header}");
    for line in entries.into_iter().flat_map(|e| e.split('\n').map(str::to_owned).collect::<Vec<_>>()) {
        text.push_str("\n  ");
        text.push_str(&line);
    }
    text
}

/// Why nothing could be rendered at all.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A template says no; the text is BOSH's.
    #[error("{0}")]
    Job(JobFailure),
    /// Several jobs of an instance say no.
    #[error("{}", group_failure_text(group, failures))]
    Instance {
        /// The instance group.
        group: String,
        /// Its failing jobs.
        failures: Vec<JobFailure>,
    },
    /// No worker could be started.
    #[error("failed to start the template renderer `{ruby}`")]
    Start {
        /// The interpreter.
        ruby: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The machine cannot lock workers in as far as the configuration demands.
    #[error("templates can only be rendered with isolation `{offered}` here, but `{wanted}` is required")]
    Isolation {
        /// What the machine offers.
        offered: Isolation,
        /// What was asked for.
        wanted: Isolation,
    },
    /// Rendering took too long; the worker was killed.
    #[error("rendering the templates of job '{job}' took longer than {seconds} s and was stopped")]
    Timeout {
        /// The job.
        job: JobName,
        /// The limit.
        seconds: u64,
    },
    /// The worker or its child died: out of memory, out of CPU time, killed.
    #[error("rendering the templates of job '{job}' ended without a result: {reason}")]
    Died {
        /// The job.
        job: JobName,
        /// What is known about the end.
        reason: String,
    },
    /// The templates rendered more than a request may.
    #[error("the templates of job '{job}' render more than {bytes_max} bytes")]
    OutputTooLarge {
        /// The job.
        job: JobName,
        /// The limit.
        bytes_max: usize,
    },
    /// The worker answered something that is not an answer.
    #[error("the template renderer gave no valid answer for job '{job}'")]
    Protocol {
        /// The job.
        job: JobName,
        /// What was wrong with it.
        #[source]
        source: io::Error,
    },
}
