//! Digests of texts and of files that have arrived. How digest texts are read, and which of several decides, is
//! [`release::digest`]'s.

use std::fs::File;
use std::io;
use std::path::Path;

use release::digest::{Algorithm, Hashed, MultiDigest};

/// Returns the SHA-1 of a text in hex, as install paths are made of.
pub(crate) fn sha1_hex(text: &str) -> String {
    Hashed::of(text.as_bytes()).hex(Algorithm::Sha1).to_owned()
}

/// Returns the SHA-256 of a text in hex.
pub(crate) fn sha256_hex(text: &str) -> String {
    Hashed::of(text.as_bytes()).hex(Algorithm::Sha256).to_owned()
}

/// Returns whether what is read has the digest that a text demands; an error text if the digest can't be used.
pub(crate) fn content_matches(content: impl io::Read, digest: &str) -> io::Result<bool> {
    let digest = MultiDigest::parse(digest).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    digest.matches_content(content)
}

/// Returns whether a file has the digest that a text demands; an error text if the digest can't be used.
pub(crate) fn file_matches(path: &Path, digest: &str) -> io::Result<bool> {
    content_matches(File::open(path)?, digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(digest: &str, expect: Result<bool, ()>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(file_matches(&path, digest).map_err(|_| ()), expect, "{digest}");
    }

    #[test]
    fn the_strongest_digest_decides() {
        let sha1 = "a9993e364706816aba3e25717850c26c9cd0d89d";
        let sha256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(sha1, Ok(true));
        check(&format!("sha1:{sha1}"), Ok(true));
        check(&sha256.to_uppercase().replace("SHA256", "sha256"), Ok(true));
        check(&format!("{sha1};sha256:{}", "0".repeat(64)), Ok(false));
        check(&format!("{};{sha256};md9:77", "0".repeat(40)), Ok(true));
        check("md9:77", Err(()));
        check("", Err(()));
    }
}
