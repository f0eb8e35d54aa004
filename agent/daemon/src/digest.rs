//! BOSH's digest texts: `;`-separated `[algorithm:]hex`, SHA-1 where no algorithm is named; the strongest one decides.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha512};

/// Returns the SHA-1 of a text in hex, as install paths are made of.
pub(crate) fn sha1_hex(text: &str) -> String {
    hex::encode(Sha1::digest(text))
}

/// Returns the SHA-256 of a text in hex.
pub(crate) fn sha256_hex(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// Returns whether a file has the digest that a text demands; an error text if the digest can't be used.
pub(crate) fn file_matches(path: &Path, digest: &str) -> io::Result<bool> {
    let (algorithm, expected) = strongest(digest).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("`{digest}` is no usable digest"))
    })?;
    let actual = match algorithm {
        Algorithm::Sha1 => hash::<Sha1>(path)?,
        Algorithm::Sha256 => hash::<Sha256>(path)?,
        Algorithm::Sha512 => hash::<Sha512>(path)?,
    };
    Ok(actual == expected.to_ascii_lowercase())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

fn strongest(digest: &str) -> Option<(Algorithm, &str)> {
    let known = digest.split(';').filter_map(|part| match part.trim().split_once(':') {
        None => Some((Algorithm::Sha1, part.trim())),
        Some(("sha1", hex)) => Some((Algorithm::Sha1, hex)),
        Some(("sha256", hex)) => Some((Algorithm::Sha256, hex)),
        Some(("sha512", hex)) => Some((Algorithm::Sha512, hex)),
        Some(_) => None,
    });
    known.max_by_key(|(algorithm, _)| *algorithm).filter(|(_, hex)| !hex.is_empty())
}

fn hash<D: sha1::Digest>(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = D::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
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
        check(&format!("{sha1};sha256:00"), Ok(false));
        check(&format!("00;{sha256};md9:77"), Ok(true));
        check("md9:77", Err(()));
        check("", Err(()));
    }
}
