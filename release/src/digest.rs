//! Digest texts as BOSH writes them: bare 40 hex digits are SHA-1, others name their algorithm, several are joined
//! with `;`. The strongest one decides.

use std::fmt;
use std::io::{self, Read};

use sha1::Digest as _;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

/// Bytes read at once while hashing.
const CHUNK_BYTES: usize = 64 * 1024;

/// A hash function, weakest first: of several digests the strongest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Only for releases made before 2017.
    Sha1,
    /// What the CLI writes today.
    Sha256,
    /// Allowed, rarely seen.
    Sha512,
}

impl Algorithm {
    fn hex_len(self) -> usize {
        match self {
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// One or more digests of the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiDigest {
    digests: Vec<(Algorithm, String)>,
}

/// Why a digest text cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a digest: expected 40 hex digits or `sha256:<hex>`, several joined with `;`")]
pub struct InvalidDigest {
    text: String,
}

impl MultiDigest {
    /// Parses a digest text. An algorithm that we do not know is skipped if one that we know is left.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest { text: text.chars().take(200).collect() };
        let mut digests = Vec::new();
        for part in text.split(';').map(str::trim) {
            let (algorithm, hex) = match part.split_once(':') {
                None => (Algorithm::Sha1, part),
                Some(("sha1", hex)) => (Algorithm::Sha1, hex),
                Some(("sha256", hex)) => (Algorithm::Sha256, hex),
                Some(("sha512", hex)) => (Algorithm::Sha512, hex),
                Some(_) => continue,
            };
            if hex.len() != algorithm.hex_len() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            digests.push((algorithm, hex.to_ascii_lowercase()));
        }
        if digests.is_empty() { Err(invalid()) } else { Ok(Self { digests }) }
    }

    /// Returns the digest that decides.
    pub fn strongest(&self) -> (Algorithm, &str) {
        let (algorithm, hex) =
            self.digests.iter().max_by_key(|(a, _)| *a).expect("parse refuses an empty list");
        (*algorithm, hex)
    }

    /// Returns whether the content that was hashed is the one described.
    pub fn matches(&self, hashed: &Hashed) -> bool {
        let (algorithm, hex) = self.strongest();
        hashed.hex(algorithm) == hex
    }
}

impl MultiDigest {
    /// Returns whether a content is the one described. Reads it to its end, through the hash function that decides only.
    pub fn matches_content(&self, content: impl Read) -> io::Result<bool> {
        let (algorithm, expected) = self.strongest();
        let actual = match algorithm {
            Algorithm::Sha1 => hash::<Sha1>(content)?,
            Algorithm::Sha256 => hash::<Sha256>(content)?,
            Algorithm::Sha512 => hash::<Sha512>(content)?,
        };
        Ok(actual == expected)
    }
}

fn hash<D: sha1::Digest>(mut content: impl Read) -> io::Result<String> {
    let (mut hasher, mut chunk) = (D::new(), vec![0; CHUNK_BYTES]);
    loop {
        match content.read(&mut chunk) {
            Ok(0) => return Ok(hex::encode(hasher.finalize())),
            Ok(n) => hasher.update(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl fmt::Display for MultiDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (algorithm, hex)) in self.digests.iter().enumerate() {
            let separator = if i == 0 { "" } else { ";" };
            let prefix = match algorithm {
                Algorithm::Sha1 => "",
                Algorithm::Sha256 => "sha256:",
                Algorithm::Sha512 => "sha512:",
            };
            write!(f, "{separator}{prefix}{hex}")?;
        }
        Ok(())
    }
}

/// All hashes of some content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    sha1: String,
    sha256: String,
    sha512: String,
    /// The content's length.
    pub bytes: u64,
}

impl Hashed {
    /// Hashes bytes that are already in memory.
    pub fn of(content: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(content);
        hasher.finish()
    }

    /// Returns one hash in lower-case hex.
    pub fn hex(&self, algorithm: Algorithm) -> &str {
        match algorithm {
            Algorithm::Sha1 => &self.sha1,
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }
}

/// Hashes content with every algorithm while it streams by, because the digest to compare with names its own.
#[derive(Clone, Default)]
pub struct Hasher {
    sha1: Sha1,
    sha256: Sha256,
    sha512: Sha512,
    bytes: u64,
}

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha1.update(bytes);
        self.sha256.update(bytes);
        self.sha512.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Returns the hashes of everything taken in.
    pub fn finish(self) -> Hashed {
        Hashed {
            sha1: hex::encode(self.sha1.finalize()),
            sha256: hex::encode(self.sha256.finalize()),
            sha512: hex::encode(self.sha512.finalize()),
            bytes: self.bytes,
        }
    }
}

/// The end of a [`Verifying`] stream whose content was not what its digest says.
#[derive(Debug, thiserror::Error)]
#[error("content has digest {actual}, expected {expected}")]
pub struct DigestMismatch {
    /// What the content has.
    pub actual: String,
    /// What was announced.
    pub expected: String,
}

/// A reader that fails at the end of a content with the wrong digest, so that whoever stores the stream never commits
/// it. The error is [`io::ErrorKind::InvalidData`] around a [`DigestMismatch`].
pub struct Verifying<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: MultiDigest,
}

impl<R: Read> Verifying<R> {
    /// Returns a reader of `inner` that demands `expected`.
    pub fn new(inner: R, expected: MultiDigest) -> Self {
        Self { inner, hasher: Some(Hasher::default()), expected }
    }
}

impl<R: Read> Read for Verifying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..n]);
            }
            return Ok(n);
        }
        // Judged once: a reader that asks again after the end gets the end again.
        let Some(hashed) = self.hasher.take().map(Hasher::finish) else { return Ok(0) };
        if self.expected.matches(&hashed) {
            return Ok(0);
        }
        let (algorithm, expected) = self.expected.strongest();
        let mismatch = DigestMismatch { actual: hashed.hex(algorithm).into(), expected: expected.into() };
        Err(io::Error::new(io::ErrorKind::InvalidData, mismatch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_strongest_digest_decides() {
        let both = MultiDigest::parse(&format!("{};sha256:{EMPTY_SHA256}", "0".repeat(40))).unwrap();
        assert!(both.matches(&Hashed::of(b"")), "the wrong SHA-1 does not count beside a SHA-256");
        let both = MultiDigest::parse(&format!("{EMPTY_SHA1};sha256:{}", "0".repeat(64))).unwrap();
        assert!(!both.matches(&Hashed::of(b"")));
        assert!(MultiDigest::parse(EMPTY_SHA1).unwrap().matches(&Hashed::of(b"")));
        for (digest, content, expected) in [
            (EMPTY_SHA1.to_owned(), &b""[..], true),
            (format!("sha256:{}", EMPTY_SHA256.to_uppercase()), b"", true),
            (format!("{EMPTY_SHA1};sha256:{EMPTY_SHA256}"), b"x", false),
            (format!("{EMPTY_SHA1};sha512:{}", "0".repeat(128)), b"", false),
        ] {
            let digest = MultiDigest::parse(&digest).unwrap();
            assert_eq!(digest.matches_content(content).unwrap(), expected, "{digest}");
            assert_eq!(digest.matches(&Hashed::of(content)), expected, "{digest}");
        }
    }

    #[test]
    fn texts_that_are_no_digest_are_refused() {
        for text in ["", "abc", "sha256:zz", "md5:00", &"g".repeat(40), &format!("sha256:{}", "0".repeat(63))]
        {
            assert!(MultiDigest::parse(text).is_err(), "{text}");
        }
        let text = format!("{EMPTY_SHA1};sha256:{EMPTY_SHA256}");
        assert_eq!(MultiDigest::parse(&text).unwrap().to_string(), text);
        let unknown_too = format!("blake9:00;{EMPTY_SHA1}");
        assert_eq!(MultiDigest::parse(&unknown_too).unwrap().to_string(), EMPTY_SHA1);
    }

    #[test]
    fn a_wrong_content_fails_at_its_end() {
        let mut good = Verifying::new(&b""[..], MultiDigest::parse(EMPTY_SHA1).unwrap());
        assert_eq!(io::copy(&mut good, &mut io::sink()).unwrap(), 0);
        let mut bad = Verifying::new(&b"x"[..], MultiDigest::parse(EMPTY_SHA1).unwrap());
        let error = io::copy(&mut bad, &mut io::sink()).unwrap_err();
        assert!(error.get_ref().unwrap().is::<DigestMismatch>());
    }
}
