//! Dynamic disks.

use clap::Args;

/// A disk to make.
#[derive(Debug, Args)]
pub struct DynamicDiskWish {
    /// What the disk is to be called
    pub name: String,
    /// Its disk type, of the cloud config
    #[arg(long = "type", value_name = "TYPE")]
    pub disk_type: String,
    /// Its size in MiB
    #[arg(long = "size", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub size_mib: u64,
    /// What its cloud is told of it; repeat it for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
}

/// `create-dynamic-disk`
#[derive(Debug, Args)]
pub struct CreateDynamicDisk {
    /// The disk.
    #[command(flatten)]
    pub disk: DynamicDiskWish,
    /// The zone in which VMs are to use it
    #[arg(long)]
    pub az: String,
}

/// `provide-dynamic-disk`
#[derive(Debug, Args)]
pub struct ProvideDynamicDisk {
    /// The disk.
    #[command(flatten)]
    pub disk: DynamicDiskWish,
    /// The UUID of the instance that is to have it
    #[arg(long, value_name = "UUID")]
    pub instance: String,
}

/// `attach-dynamic-disk`
#[derive(Debug, Args)]
pub struct AttachDynamicDisk {
    /// The disk's name
    pub name: String,
    /// The UUID of the instance that is to have it
    pub instance: String,
    /// What its cloud is told of it; repeat it for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
}

/// `detach-dynamic-disk`, `delete-dynamic-disk`
#[derive(Debug, Args)]
pub struct NamedDynamicDisk {
    /// The disk's name
    pub name: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is to be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
