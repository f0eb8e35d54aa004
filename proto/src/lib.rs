//! Wire types generated from `proto/directorate/**/*.proto`; no logic.
//!
//! [`agent`] is what agents and directors say to each other, [`peer`] what replicas do, [`v1`] the public API.

#![allow(missing_docs, clippy::all, reason = "generated; the .proto files are the documentation")]

/// Agents and directors.
pub mod agent {
    /// `directorate.agent.v1`
    pub mod v1 {
        tonic::include_proto!("directorate.agent.v1");
    }
}

/// Replicas among themselves.
pub mod peer {
    /// `directorate.peer.v1`
    pub mod v1 {
        tonic::include_proto!("directorate.peer.v1");
    }
}

/// The public API.
pub mod v1 {
    tonic::include_proto!("directorate.v1");
}

/// Every message and service, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
