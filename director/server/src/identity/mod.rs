//! Who is who: the fleet's authority, the certificates it gives, and what a replica keeps of its own.

mod authority;
mod files;
mod renewal;

pub use authority::{Authority, AuthorityError, Issued, Names, replica_tls_name};
pub use files::{IdentityFiles, NodeIdentity};
pub use renewal::keep_fresh;
