//! The embedded store keeps the promises of a blobstore.

release::blobstore_conformance!(
    |dir: &std::path::Path| release::LocalBlobs::open(dir).expect("the folder is empty")
);
