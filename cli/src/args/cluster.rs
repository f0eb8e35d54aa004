//! `cluster`, `cpi`, `user`, `health`, `leaks`, `watch`: the fleet itself.

use camino::Utf8PathBuf;
use clap::{Args, Subcommand, ValueEnum};

/// `cluster …`
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show every replica, who leads, and how far each one is
    Status,
    /// List when the certificates of the fleet's authority and of the replica that answers end
    Certificates,
    /// Make a single-use token for `directord join`
    JoinToken {
        /// Seconds until it is worthless
        #[arg(long, default_value_t = 600, value_name = "SECONDS")]
        ttl: u32,
    },
    /// Remove a replica from the cluster
    RemoveMember {
        /// Its number, as `cluster status` shows it
        id: u64,
    },
    /// Move leadership to another replica
    Transfer {
        /// Its number; without it the fleet chooses
        id: Option<u64>,
    },
    /// Back the fleet up, and check backups
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// `cpi …`
#[derive(Debug, Subcommand)]
pub enum CpiCommand {
    /// Have every replica try its clouds now, and the ways to isolate VMs on its machine
    Probe,
}

/// `cluster snapshot …`
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save everything that the fleet knows in a file, for `directord restore`
    Save {
        /// The file; one that is there is replaced once the new one is whole
        file: Utf8PathBuf,
        /// Also releases, stemcells, compiled packages and task output, as many bytes as a replica's `blobs` folder has
        #[arg(long)]
        with_blobs: bool,
    },
    /// Check a backup; needs no fleet
    Verify {
        /// The file
        file: Utf8PathBuf,
    },
}

/// What a user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(pub String);

impl std::str::FromStr for Scope {
    type Err = String;

    /// Reads a scope; one that gives nothing is a slip.
    fn from_str(text: &str) -> Result<Self, String> {
        let role = |role: &str| matches!(role, "admin" | "read");
        let is_known = match text.split('.').collect::<Vec<_>>()[..] {
            ["bosh", "releases" | "stemcells", "upload"] => true,
            ["bosh", "dynamic-disks", verb] => {
                matches!(verb, "list" | "create" | "attach" | "detach" | "delete")
            }
            ["bosh", last] => role(last),
            ["bosh", director, last] => !director.is_empty() && role(last),
            ["bosh", "teams", team, last] => !team.is_empty() && role(last),
            _ => false,
        };
        let known = "bosh.admin, bosh.read, bosh.DIRECTOR-UUID.admin or .read, bosh.teams.TEAM.admin or .read, \
                     bosh.releases.upload, bosh.stemcells.upload, bosh.dynamic-disks.VERB";
        is_known.then(|| Self(text.to_owned())).ok_or_else(|| format!("a scope is one of {known}"))
    }
}

/// `user …`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user, or give one a new password and scopes
    Add {
        /// The user's name
        name: String,
        /// A file with the password; without it one is made and shown once
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<Utf8PathBuf>,
        /// What the user may do: bosh.admin (everything), bosh.read (look at everything but secrets), bosh.teams.TEAM.admin
        /// or .read, bosh.releases.upload, bosh.stemcells.upload, bosh.dynamic-disks.list, .create, .attach, .detach or
        /// .delete; repeat it for more
        #[arg(long = "scope", value_name = "SCOPE", default_value = "bosh.read")]
        scopes: Vec<Scope>,
    },
    /// Remove a user
    Remove {
        /// The user's name
        name: String,
    },
    /// List users and their scopes
    List,
    /// Make a token for a program to log in with (DCTL_TOKEN), and show it once
    CreateToken {
        /// Whose it will be, for admins; yours without it
        #[arg(long = "for", value_name = "USER")]
        user: Option<String>,
        /// What it may do; all that its user may without it; repeat it for more
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// What it is for
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        note: String,
        /// Days until it is worthless
        #[arg(long, default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=366))]
        days: u32,
    },
    /// List tokens
    Tokens {
        /// Whose, for admins; yours without it
        #[arg(long = "for", value_name = "USER", conflicts_with = "all")]
        user: Option<String>,
        /// Everybody's, for admins
        #[arg(long)]
        all: bool,
    },
    /// Revoke a token
    RevokeToken {
        /// Its ID, as `user tokens` shows it
        id: String,
    },
}

/// `health …`
#[derive(Debug, Subcommand)]
pub enum HealthCommand {
    /// List agents and how they are
    Agents,
    /// List deployments and how much of each has failed
    Deployments,
    /// List the replicas and which agents each one watches
    Shards,
    /// Switch resurrection of dead instances on or off
    Resurrection {
        /// on or off
        state: Switch,
    },
}

/// on or off
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// From here on
    On,
    /// No more
    Off,
}

/// `leaks …`
#[derive(Debug, Args)]
pub struct Leaks {
    /// Without it: list.
    #[command(subcommand)]
    pub command: Option<LeaksCommand>,
}

/// `leaks clear`
#[derive(Debug, Subcommand)]
pub enum LeaksCommand {
    /// Take a leak off the list once it has been dealt with
    Clear {
        /// Its number
        id: u64,
    },
}

/// `watch`
#[derive(Debug, Args)]
pub struct Watch {
    /// Begin after this revision, which every list tells with --json; from now on without it
    #[arg(long, value_name = "REVISION")]
    pub after: Option<u64>,
    /// Only these tables; repeat it, or separate with commas
    #[arg(long = "table", value_name = "TABLE", value_delimiter = ',')]
    pub tables: Vec<String>,
}
