//! Arguments of the commands about links.

use clap::{Args, ValueEnum};

/// `create-link`
#[derive(Debug, Args)]
pub struct CreateLink {
    /// The provider's number, as `link-providers` shows it; it must be shared
    pub provider: u64,
    /// What the consumer is called
    pub consumer: String,
    /// The provider's network in which it is reached, instead of its default one
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub network: String,
}

/// `delete-link`
#[derive(Debug, Args)]
pub struct DeleteLink {
    /// The link's number, as `links` shows it; it must be one that `create-link` made
    pub id: u64,
}

/// `link-address`
#[derive(Debug, Args)]
pub struct LinkAddress {
    /// The link's number, as `links` shows it
    pub id: u64,
    /// Only instances in this zone; may be given several times
    #[arg(long = "az", value_name = "NAME")]
    pub azs: Vec<String>,
    /// How the instances are to fare; if nothing is said the healthy ones, or all where none is
    #[arg(long, value_enum, default_value = "default")]
    pub status: LinkStatus,
}

/// How instances behind a link fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the words speak for themselves")]
pub enum LinkStatus {
    Default,
    Healthy,
    Unhealthy,
    All,
}

impl LinkStatus {
    /// Returns the word that the directors know.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::All => "all",
        }
    }
}
