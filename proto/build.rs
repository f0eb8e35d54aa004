//! Generates the wire types without a system `protoc`.

use std::path::PathBuf;

use prost::Message as _;

const FILES: &[&str] = &[
    "directorate/agent/v1/agent.proto",
    "directorate/peer/v1/fleet.proto",
    "directorate/peer/v1/peer.proto",
    "directorate/peer/v1/relay.proto",
    "directorate/v1/common.proto",
    "directorate/v1/cluster.proto",
    "directorate/v1/artifacts.proto",
    "directorate/v1/cloud_check.proto",
    "directorate/v1/deployments.proto",
    "directorate/v1/links.proto",
    "directorate/v1/tasks.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=directorate");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection serves these bytes.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
