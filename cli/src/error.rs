//! What can go wrong at the operator's side, what it means for the exit code, and what to do about it.

use std::fmt::Write as _;
use std::time::Duration;

use camino::Utf8PathBuf;

/// Exit codes; scripts rely on them, so they never change their meaning.
///
/// 130 is what shells give for an interrupted program: the task that was followed goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// The operation was refused, or its task failed.
    Failed = 1,
    /// The command line, a file or the configuration is wrong; nothing was sent.
    Usage = 2,
    /// No director answered.
    Unreachable = 3,
    /// The directors do not know who this is, or do not let them.
    NotAllowed = 4,
    /// Ctrl-C: we stopped watching; nothing was cancelled.
    Detached = 130,
}

/// One endpoint that did not help, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The endpoint as configured.
    pub endpoint: String,
    /// Its last answer, or what kept it from answering.
    pub why: String,
}

/// Everything that ends a command early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line, or something it points to, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file of this machine cannot be read or written.
    #[error("failed to {action} `{path}`")]
    File {
        /// What we were doing to it (`read`, `write`).
        action: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The terminal, or the pipe behind it, does not take our output.
    #[error("failed to write the output")]
    Output(#[from] std::io::Error),
    /// No endpoint gave an answer within the time that we try.
    #[error("no director answered `{operation}` within {} s", within.as_secs())]
    Unreachable {
        /// The call.
        operation: &'static str,
        /// Every endpoint and its last failure.
        tried: Vec<Tried>,
        /// How long we tried.
        within: Duration,
    },
    /// The call lacks valid credentials.
    #[error("not logged in: {0}")]
    NotLoggedIn(String),
    /// The user may not do this.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The directors said no.
    #[error("{message}")]
    Refused {
        /// The call.
        operation: &'static str,
        /// BOSH's number and name of the error, where it has one.
        code: Option<(u32, String)>,
        /// The gRPC code's name, for those without a number.
        status: tonic::Code,
        /// What the directors said.
        message: String,
    },
    /// A task ended otherwise than well.
    #[error("task {id} ended in state `{state}`{}", if message.is_empty() { String::new() } else { format!(": {message}") })]
    TaskFailed {
        /// The task.
        id: u64,
        /// `error` or `cancelled`.
        state: String,
        /// BOSH's number, 0 if there is none.
        code: u32,
        /// Why.
        message: String,
    },
    /// A scan has found problems, and nobody said what to do about them.
    #[error("{count} problem(s) found")]
    ProblemsFound {
        /// How many.
        count: usize,
    },
    /// A replica can't make VMs in a cloud that it has to be able to lead for.
    #[error("not every replica can use its clouds: {}", .0.join("; "))]
    CloudsMissing(Vec<String>),
    /// An errand ran, and said no.
    #[error("errand `{errand}` failed on {failed}")]
    ErrandFailed {
        /// The errand.
        errand: String,
        /// Instances and their exit codes.
        failed: String,
    },
    /// Ctrl-C while following a task.
    #[error("detached from task {id}, which goes on")]
    Detached {
        /// The task.
        id: u64,
    },
    /// A session on a machine did not end well.
    #[error("the session on {instance} ended with {status}")]
    SessionFailed {
        /// `group/id`.
        instance: String,
        /// How.
        status: String,
    },
    /// Ctrl-C, or the end of the terminal, during a session.
    #[error("interrupted")]
    Interrupted,
    /// A release cannot be made from its folder.
    #[error("failed to create a release from `{folder}`")]
    CreateRelease {
        /// The release folder.
        folder: Utf8PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stemcell cannot be built.
    #[error("failed to build the stemcell `{file}`")]
    BuildStemcell {
        /// The archive that was wanted.
        file: Utf8PathBuf,
        /// Why.
        #[source]
        source: Box<stemcell::StemcellError>,
    },
    /// A backup is damaged, or is none.
    #[error("`{file}` is no sound backup:\n  {}", damages.join("\n  "))]
    Backup {
        /// The file.
        file: Utf8PathBuf,
        /// What is wrong with it.
        damages: Vec<String>,
    },
    /// An answer that breaks the API's promises.
    #[error("the directors broke a promise of their API: {0}")]
    Protocol(String),
}

impl Error {
    /// Makes an error about reading or writing `path`.
    pub fn file(action: &'static str, path: impl Into<Utf8PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Returns the process' exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            // A missing manifest is a wrong command line, whatever the operating system calls it.
            Self::File { action: "read", .. } => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::NotLoggedIn(_) | Self::NotAllowed(_) => Exit::NotAllowed,
            Self::Detached { .. } | Self::Interrupted => Exit::Detached,
            Self::File { .. }
            | Self::Output(_)
            | Self::Refused { .. }
            | Self::TaskFailed { .. }
            | Self::ErrandFailed { .. }
            | Self::ProblemsFound { .. }
            | Self::CloudsMissing(_)
            | Self::SessionFailed { .. }
            | Self::CreateRelease { .. }
            | Self::BuildStemcell { .. }
            | Self::Backup { .. }
            | Self::Protocol(_) => Exit::Failed,
        }
    }

    /// Returns what the operator can do, if we know.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Unreachable { tried, .. } => {
                let mut text = String::from("Tried:\n");
                for Tried { endpoint, why } in tried {
                    let _ = writeln!(text, "  {endpoint}: {why}");
                }
                text.push_str("Check the addresses (--endpoint, DCTL_ENDPOINTS or the profile), and that the directors run.");
                Some(text)
            }
            Self::NotLoggedIn(_) => Some(
                "Log in with --user and --password-file (or DCTL_USER and DCTL_PASSWORD), with DCTL_TOKEN, or with \
                 the profile that `directord init` wrote (--profile FILE or DCTL_PROFILE)."
                    .into(),
            ),
            Self::NotAllowed(_) => {
                Some("Ask an admin for the scope (`dctl user list` shows who has which).".into())
            }
            Self::TaskFailed { id, .. } => Some(format!("`dctl task {id} --debug` shows what happened.")),
            Self::Detached { id } => {
                Some(format!("`dctl task {id}` follows it again, `dctl cancel-task {id}` cancels it."))
            }
            _ => None,
        }
    }

    /// Returns the error for programs, as `--json` prints it on standard error.
    pub fn to_json(&self) -> serde_json::Value {
        let (code, name) = match self {
            Self::Refused { code: Some((code, name)), .. } => (Some(*code), Some(name.clone())),
            Self::Refused { status, .. } => (None, Some(format!("{status:?}"))),
            Self::TaskFailed { code, .. } if *code != 0 => (Some(*code), None),
            _ => (None, None),
        };
        serde_json::json!({ "error": {
            "exit_code": self.exit() as u8,
            "code": code,
            "name": name,
            "message": chain(self),
            "advice": self.advice(),
        }})
    }
}

/// Returns an error with its causes, one after the other.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.contains(&next) {
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}
