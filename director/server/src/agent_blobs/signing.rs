//! URLs that open one blob to one agent, one way, for a day. Any replica can make them and check them, and nobody keeps them
//! (`docs/decisions/0026-urls-for-blobs-are-signed.md`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::AgentId;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;

use crate::secrets::Kek;

/// How long a URL is good, in seconds: as long as BOSH's. An agent may have to wait for its turn.
pub const GOOD_FOR: i64 = 24 * 3600;

/// Which way a blob goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the agent.
    Get,
    /// From the agent.
    Put,
}

impl Way {
    /// Returns the method of HTTP by which it goes.
    fn method(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
        }
    }

    /// Returns the folder in which the blobs that go this way stand in URLs.
    fn folder(self) -> &'static str {
        match self {
            Self::Get => "blobs",
            Self::Put => "brought",
        }
    }
}

/// What a URL opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opens<'a> {
    /// Which way.
    pub way: Way,
    /// To whom.
    pub agent: &'a AgentId,
    /// What: a blob's address, or the name of one that is brought.
    pub blob: &'a str,
}

/// Why a URL opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its day is over.
    #[error("this URL is no longer good")]
    Over,
    /// Nobody of this fleet has made it, or not for this.
    #[error("this URL was not made for this")]
    NotSigned,
}

/// The key that URLs are signed with.
pub struct UrlKey(hmac::Key);

impl UrlKey {
    /// Derives it from the fleet's.
    pub fn new(kek: &Kek) -> Self {
        Self(kek.derived("urls of blobs"))
    }

    /// Returns the path and query of a URL that is good until a time by the Unix clock.
    pub fn path(&self, opens: Opens<'_>, until: i64) -> String {
        let [agent, blob] =
            [opens.agent.as_str(), opens.blob].map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, &signed(opens, until)));
        let folder = opens.way.folder();
        format!("/agents/{agent}/{folder}/{blob}?until={until}&signature={signature}")
    }

    /// Checks what stands in a URL, at a time by the Unix clock. Takes equally long for right and wrong signatures.
    pub fn check(&self, opens: Opens<'_>, until: i64, signature: &str, now: i64) -> Result<(), Refused> {
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refused::NotSigned)?;
        hmac::verify(&self.0, &signed(opens, until), &signature).map_err(|_| Refused::NotSigned)?;
        if now < until { Ok(()) } else { Err(Refused::Over) }
    }
}

/// Lengths first: nothing else gives the same bytes.
fn signed(opens: Opens<'_>, until: i64) -> Vec<u8> {
    let mut bytes = until.to_be_bytes().to_vec();
    for part in [opens.way.method(), opens.agent.as_str(), opens.blob] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_what_it_was_made_for_and_no_longer() {
        let (kek, agent, other) = (Kek::generate(), AgentId::new("a1"), AgentId::new("a1b"));
        let key = UrlKey::new(&kek);
        let opens = Opens { way: Way::Get, agent: &agent, blob: "beef" };
        let path = key.path(opens, 100);
        let (_, signature) = path.split_once("signature=").unwrap();
        let check = |opens, until, signature: &str| UrlKey::new(&kek).check(opens, until, signature, 99);
        assert_eq!(check(opens, 100, signature), Ok(()), "on another replica");
        assert_eq!(key.check(opens, 100, signature, 100), Err(Refused::Over));
        let wrong = Err(Refused::NotSigned);
        assert_eq!(check(opens, 101, signature), wrong, "another end");
        assert_eq!(check(Opens { way: Way::Put, ..opens }, 100, signature), wrong, "the other way");
        assert_eq!(check(Opens { blob: "bee", ..opens }, 100, signature), wrong);
        assert_eq!(check(Opens { agent: &other, blob: "eef", ..opens }, 100, signature), wrong);
        assert_eq!(UrlKey::new(&Kek::generate()).check(opens, 100, signature, 99), wrong, "another fleet's");
        for forged in ["", "nonsense!", &signature[1..], &format!("{signature}A"), &signature.to_lowercase()]
        {
            assert_eq!(check(opens, 100, forged), wrong, "{forged}");
        }
    }

    #[test]
    fn names_stay_whole_in_a_path() {
        let agent = AgentId::new("a/../b");
        let path = UrlKey::new(&Kek::generate()).path(Opens { way: Way::Get, agent: &agent, blob: "x?y" }, 1);
        assert!(path.starts_with("/agents/a%2F%2E%2E%2Fb/blobs/x%3Fy?until=1&signature="), "{path}");
    }
}
