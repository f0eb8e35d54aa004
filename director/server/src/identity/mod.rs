//! Who is who: the fleet's authority, the certificates it gives, and what a replica keeps of its own. Not here: who may
//! do what (the service, and the gate of the peer port).

mod authority;
mod files;
mod renewal;

pub use authority::{Authority, AuthorityError, Issued, Names, NatsValid, replica_tls_name};
pub use files::{IdentityFiles, NodeIdentity};
pub use renewal::keep_fresh;
