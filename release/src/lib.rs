//! Releases and stemcells as files: archives, fingerprints, template rendering, and the [`Blobstore`] trait. Bytes in,
//! bytes out.
//!
//! Deliberately *not* here: what a deployment needs of a release (planning), where the records about it are kept (the
//! state), and who replicates blobs (the server). Everything that is read here comes from somebody else, so every
//! reader has bounds and refuses by BOSH's error numbers.
//!
//! Read next: [`blobstore`] (where bytes go), [`archive`] (what is read), [`create`] (what `create-release` makes), [`render`] (ERB in locked-in Ruby workers).

pub mod archive;
pub mod blobstore;
pub mod create;
pub mod digest;
pub mod render;
mod yaml;

pub use archive::{ArchiveError, ReleaseArchive, StemcellArchive};
pub use blobstore::{BlobError, BlobReader, BlobStat, Blobstore, LocalBlobs};
pub use create::{CreateOptions, CreatedRelease, create_dev_release};
pub use digest::MultiDigest;
pub use render::{RenderOptions, RenderedInstance, RenderedJob, Renderer};
