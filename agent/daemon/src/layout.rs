//! Where things are below the base directory (`/var/vcap`), by name.

use std::path::{Path, PathBuf};

/// The base directory that releases are written for.
pub const BASE_DIR: &str = "/var/vcap";

/// The paths of one agent.
#[derive(Clone, Debug)]
pub struct Layout {
    base: PathBuf,
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident => $path:literal),+ $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> PathBuf {
            self.base.join($path)
        }
    )+};
}

impl Layout {
    /// Returns the paths below `base`.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// Returns the base directory itself.
    pub fn base(&self) -> &Path {
        &self.base
    }

    paths! {
        /// The agent's own files.
        bosh => "bosh",
        /// Key and certificate.
        identity => "bosh/identity.json",
        /// Where directors were last known to be.
        endpoints => "bosh/endpoints.json",
        /// What the machine was told about itself.
        settings => "bosh/settings.json",
        /// The highest epoch heard of.
        epoch => "bosh/epoch",
        /// Recorded requests.
        requests => "bosh/requests",
        /// The stored apply spec.
        spec => "bosh/spec.json",
        /// What `update_settings` last brought.
        update_settings => "bosh/update_settings.json",
        /// Hints of attached disks, by cid.
        disk_hints => "bosh/disk_hints.json",
        /// Which disk is mounted where.
        mounted_disks => "bosh/mounted_disks.json",
        /// Links to the installed jobs.
        jobs => "jobs",
        /// Links to the installed packages.
        packages => "packages",
        /// Everything that may be lost with the VM.
        data => "data",
        /// Installed jobs.
        data_jobs => "data/jobs",
        /// Installed packages.
        data_packages => "data/packages",
        /// Work space of installations; same file system as what is installed.
        tmp => "data/tmp",
        /// Compiled packages' sources.
        compile => "data/compile",
        /// Links to dynamic disks, by cid.
        dynamic_disks => "data/dynamic_disks",
        /// Blobs that hold secrets.
        sensitive_blobs => "data/sensitive_blobs",
        /// Logs and runtime files of jobs.
        data_sys => "data/sys",
        /// Link to `data/sys`.
        sys => "sys",
        /// Logs of jobs.
        log => "data/sys/log",
        /// Pid files and sockets of jobs.
        run => "data/sys/run",
        /// Control files of jobs, as `start` writes them.
        monit_jobs => "monit/job",
        /// Which services are looked after.
        looked_after => "monit/looked_after.json",
        /// Exists while the jobs are stopped on request.
        stopped => "monit/stopped",
        /// The persistent disk.
        store => "store",
        /// A second persistent disk while the first one is copied to it.
        store_migration_target => "store_migration_target",
        /// The machine's own SSH host key, public: the stemcell's are not used.
        ssh_host_key => "bosh/ssh_host_key.pub",
        /// How the SSH server goes about it.
        sshd_config => "bosh/sshd_config",
        /// What the SSH server says.
        sshd_log => "bosh/log/sshd.log",
        /// Homes of operators' users.
        operators => "bosh_ssh",
        /// Who the instance is.
        instance => "instance",
        /// The DNS records of all instances.
        dns_records => "instance/dns/records.json",
        /// How those instances fare.
        dns_health => "instance/dns/health.json",
    }

    /// Returns where the files of a job are, through its link.
    pub fn job(&self, job: &str) -> PathBuf {
        self.jobs().join(job)
    }

    /// Returns the script `name` of a job.
    pub fn job_script(&self, job: &str, name: &str) -> PathBuf {
        self.job(job).join("bin").join(name)
    }
}
