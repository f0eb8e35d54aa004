//! The methods that an agent knows, and how each may be scheduled, recorded and given up.

/// What an action must have for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Installed jobs, their processes and scripts.
    Jobs,
    /// Mounts and hints of disks.
    Disks,
    /// Installed packages.
    Packages,
    /// Users of operators.
    Users,
    /// DNS records.
    Names,
}

/// Whether a resource can be had together with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Together with other such claims.
    Shared,
    /// Alone.
    Alone,
}

/// What of a request outlives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: it only looks, and a repeat looks again.
    Nothing,
    /// Its result. One that an agent restart interrupted is done again when it is asked for again.
    Result,
    /// Its beginning too: one that an agent restart interrupted must not be done again.
    BeginningAndResult,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "names, BOSH's where it has the method; the file of each action speaks for it"
)]
pub enum Method {
    Ping,
    Info,
    GetState,
    UpdateSettings,
    UploadBlob,
    Prepare,
    Apply,
    Start,
    Stop,
    Shutdown,
    Drain,
    RunScript,
    RunErrand,
    CompilePackage,
    ListDisk,
    AddPersistentDisk,
    RemovePersistentDisk,
    MountDisk,
    UnmountDisk,
    MigrateDisk,
    FetchLogs,
    Ssh,
    SyncDns,
    SyncDnsHealth,
    AddDynamicDisk,
    RemoveDynamicDisk,
}

impl Method {
    const ALL: [Self; 26] = [
        Self::Ping,
        Self::Info,
        Self::GetState,
        Self::UpdateSettings,
        Self::UploadBlob,
        Self::Prepare,
        Self::Apply,
        Self::Start,
        Self::Stop,
        Self::Shutdown,
        Self::Drain,
        Self::RunScript,
        Self::RunErrand,
        Self::CompilePackage,
        Self::ListDisk,
        Self::AddPersistentDisk,
        Self::RemovePersistentDisk,
        Self::MountDisk,
        Self::UnmountDisk,
        Self::MigrateDisk,
        Self::FetchLogs,
        Self::Ssh,
        Self::SyncDns,
        Self::SyncDnsHealth,
        Self::AddDynamicDisk,
        Self::RemoveDynamicDisk,
    ];

    /// Returns the method of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Info => "info",
            Self::GetState => "get_state",
            Self::UpdateSettings => "update_settings",
            Self::UploadBlob => "upload_blob",
            Self::Prepare => "prepare",
            Self::Apply => "apply",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Shutdown => "shutdown",
            Self::Drain => "drain",
            Self::RunScript => "run_script",
            Self::RunErrand => "run_errand",
            Self::CompilePackage => "compile_package",
            Self::ListDisk => "list_disk",
            Self::AddPersistentDisk => "add_persistent_disk",
            Self::RemovePersistentDisk => "remove_persistent_disk",
            Self::MountDisk => "mount_disk",
            Self::UnmountDisk => "unmount_disk",
            Self::MigrateDisk => "migrate_disk",
            Self::FetchLogs => "fetch_logs",
            Self::Ssh => "ssh",
            Self::SyncDns => "sync_dns",
            Self::SyncDnsHealth => "sync_dns_health",
            Self::AddDynamicDisk => "add_dynamic_disk",
            Self::RemoveDynamicDisk => "remove_dynamic_disk",
        }
    }

    /// Returns what the action must have, in the one order in which everybody takes it.
    pub fn claims(self) -> &'static [(Resource, Share)] {
        use Resource::{Disks, Jobs, Names, Packages, Users};
        use Share::{Alone, Shared};
        match self {
            Self::Ping
            | Self::Info
            | Self::GetState
            | Self::ListDisk
            | Self::UploadBlob
            | Self::FetchLogs => &[],
            Self::Prepare => &[(Packages, Alone)],
            Self::Apply => &[(Jobs, Alone), (Packages, Alone)],
            Self::Start | Self::Stop | Self::Shutdown | Self::Drain | Self::RunScript => &[(Jobs, Alone)],
            // An errand may run for hours: others may run beside it, but its job must stay installed.
            Self::RunErrand => &[(Jobs, Shared), (Packages, Shared)],
            Self::CompilePackage => &[(Packages, Alone)],
            Self::Ssh => &[(Users, Alone)],
            Self::SyncDns | Self::SyncDnsHealth => &[(Names, Alone)],
            Self::UpdateSettings
            | Self::AddPersistentDisk
            | Self::RemovePersistentDisk
            | Self::AddDynamicDisk
            | Self::RemoveDynamicDisk
            | Self::MountDisk
            | Self::UnmountDisk
            | Self::MigrateDisk => &[(Disks, Alone)],
        }
    }

    /// Returns what of a request outlives it.
    pub fn keep(self) -> Keep {
        match self {
            // What it does twice it does once: records that are there already are not fetched again.
            Self::Ping
            | Self::Info
            | Self::GetState
            | Self::ListDisk
            | Self::SyncDns
            | Self::SyncDnsHealth => Keep::Nothing,
            Self::RunErrand => Keep::BeginningAndResult,
            _ => Keep::Result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        for method in Method::ALL {
            assert_eq!(Method::named(method.name()), Some(method));
        }
        assert_eq!(Method::named("reticulate"), None);
    }

    #[test]
    fn claims_are_in_the_common_order() {
        for method in Method::ALL {
            assert!(method.claims().is_sorted_by_key(|(resource, _)| *resource), "{}", method.name());
        }
    }
}
