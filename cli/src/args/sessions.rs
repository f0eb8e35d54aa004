//! Sessions on machines: `ssh` and `scp`.

use clap::Args;

use super::InstanceSlug;

/// How `ssh` gets there.
#[derive(Clone, Debug, Default, Args)]
pub struct Way {
    /// An argument for ssh, as it is (`--opts=-v`); repeat it for more
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub opts: Vec<String>,
    /// Go straight there, also if the directors name a gateway
    #[arg(long, conflicts_with_all = ["gw_host", "gw_user", "gw_private_key"])]
    pub gw_disable: bool,
    /// Go by way of this machine, instead of the one that the directors name
    #[arg(long, value_name = "HOST", env = "DCTL_GW_HOST")]
    pub gw_host: Option<String>,
    /// Who we are at the gateway
    #[arg(long, value_name = "USER", env = "DCTL_GW_USER")]
    pub gw_user: Option<String>,
    /// The key that opens the gateway
    #[arg(long, value_name = "FILE", env = "DCTL_GW_PRIVATE_KEY")]
    pub gw_private_key: Option<String>,
}

/// `ssh`
#[derive(Debug, Args)]
pub struct Ssh {
    /// A group, or one instance of it; everything if absent. A shell needs one that is alone
    #[arg(value_name = "GROUP[/ID]")]
    pub instances: Option<InstanceSlug>,
    /// Run this instead of a shell, on all that are meant
    #[arg(long, short = 'c', value_name = "COMMAND")]
    pub command: Option<String>,
    /// How to get there.
    #[command(flatten)]
    pub way: Way,
}

/// `scp`
#[derive(Debug, Args)]
pub struct Scp {
    /// Files, and where to last: PATH here, GROUP[/ID]:PATH there
    #[arg(required = true, num_args = 2.., value_name = "[GROUP[/ID]:]PATH")]
    pub paths: Vec<String>,
    /// Folders with what is in them
    #[arg(long, short = 'r')]
    pub recursive: bool,
    /// How to get there.
    #[command(flatten)]
    pub way: Way,
}
