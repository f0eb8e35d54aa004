//! Makes stemcells with our agent: of this machine's own files, of a real Debian, and of that one a disk that boots by itself.
//!
//! All of them are archives as BOSH's are, and the same content gives the same bytes. What clouds and directors do with them is
//! theirs: only a Debian of ours is read here, to pack it for another cloud or with another agent.
//!
//! Read next: [`build_debian`], then `disk_image` for what makes a disk boot.

mod archive;
mod debian;
mod disk_image;
mod error;
mod initrd;
pub mod kept;
mod manifest;

pub use archive::build_host;
pub use debian::{DebianFormat, DebianStemcell, RepackedDebian, build_debian, repack_debian};
pub use error::StemcellError;
pub use initrd::Initrd;
pub use manifest::StemcellNames;

/// Format of stemcells whose image only says "the host's own files".
pub const HOST_FORMAT: &str = "directorate-host";
/// Format of stemcells whose image is the archive of a root file system.
pub const TAR_FORMAT: &str = "directorate-tar";
