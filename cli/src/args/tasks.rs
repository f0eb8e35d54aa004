//! Tasks and events.

use clap::Args;

/// `tasks`
#[derive(Debug, Args)]
pub struct ListTasks {
    /// Also ended tasks, newest first; how many [default: 30]
    #[arg(long, short = 'r', value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "30")]
    pub recent: Option<u32>,
}

/// A task's number.
#[derive(Debug, Args)]
pub struct TaskId {
    /// The task's number
    pub id: u64,
}

/// `task`
#[derive(Debug, Args)]
pub struct ShowTask {
    /// The task's number
    pub id: u64,
    /// Which output.
    #[command(flatten)]
    pub output: OutputChoice,
    /// Show what there is and end, do not follow
    #[arg(long)]
    pub no_follow: bool,
}

/// Which of a task's outputs; the rendered event log if none is named.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
pub struct OutputChoice {
    /// The debug log
    #[arg(long)]
    pub debug: bool,
    /// The result
    #[arg(long)]
    pub result: bool,
    /// The log of the cloud provider interface
    #[arg(long)]
    pub cpi: bool,
    /// The event log as it is, one JSON object a line
    #[arg(long)]
    pub event: bool,
    /// Plan and journal
    #[arg(long)]
    pub steps: bool,
}

/// `events`
#[derive(Debug, Args)]
pub struct ListEvents {
    /// Only of this task
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
    pub task: u64,
    /// Only of this instance
    #[arg(long, value_name = "GROUP/ID", default_value = "", hide_default_value = true)]
    pub instance: String,
    /// At most this many, newest first
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub max: usize,
}
