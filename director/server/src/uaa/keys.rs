//! The keys that tokens are signed with: read from files, and from what a UAA answers.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Keys that a UAA may have at once: the present one, and those that it had before.
const KEYS_MAX: usize = 16;

/// The shortest symmetric key: as long as the shortest digest that it makes.
const SECRET_BYTES_MIN: usize = 32;

/// A key that tokens may be signed with.
pub(super) struct Key {
    /// The name by which a token says which key it was signed with. One out of a file has none, and may be any.
    pub id: Option<String>,
    /// The key itself.
    pub key: DecodingKey,
}

impl Key {
    /// Returns whether a token of this kind that names this key may have been signed with it.
    pub fn may_have_signed(&self, family: AlgorithmFamily, id: Option<&str>) -> bool {
        let is_named = match (&self.id, id) {
            (Some(own), Some(named)) => own == named,
            _ => true,
        };
        self.key.family() == family && is_named
    }
}

/// Reads public keys: PEM, one or more of them.
pub(super) fn public(path: &Path) -> anyhow::Result<Vec<Key>> {
    let content = std::fs::read(path).with_context(|| format!("read the UAA's keys `{}`", path.display()))?;
    let keys = SubjectPublicKeyInfoDer::pem_slice_iter(&content).map(|der| rsa(der?.as_ref()));
    let keys: Vec<DecodingKey> =
        keys.collect::<Result<_, _>>().with_context(|| format!("`{}`", path.display()))?;
    ensure!(
        (1..=KEYS_MAX).contains(&keys.len()),
        "`{}` has {} public keys (BEGIN PUBLIC KEY): 1 to {KEYS_MAX} are needed",
        path.display(),
        keys.len()
    );
    Ok(keys.into_iter().map(|key| Key { id: None, key }).collect())
}

fn rsa(der: &[u8]) -> anyhow::Result<DecodingKey> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).context("this is no public key")?;
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => {
            Ok(DecodingKey::from_rsa_raw_components(positive(key.modulus), key.exponent))
        }
        _ => bail!("it has a public key that is not an RSA key"),
    }
}

/// A number in DER begins with a zero where it would pass for a negative one otherwise.
fn positive(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

/// Reads a symmetric key: the file's text, without the blanks around it.
pub(super) fn symmetric(path: &Path) -> anyhow::Result<Key> {
    let read = || format!("read the UAA's key `{}`", path.display());
    let content = std::fs::read_to_string(path).with_context(read)?;
    let secret = content.trim();
    // A public key is known to everybody: whoever could sign with it could be anybody.
    ensure!(!secret.starts_with("-----BEGIN"), "`{}` is no symmetric key, but a PEM file", path.display());
    ensure!(
        secret.len() >= SECRET_BYTES_MIN,
        "the symmetric key `{}` has fewer than {SECRET_BYTES_MIN} bytes",
        path.display()
    );
    Ok(Key { id: None, key: DecodingKey::from_secret(secret.as_bytes())? })
}

#[derive(Deserialize)]
struct Answer {
    keys: Vec<Described>,
}

/// A key as a UAA tells it. What is no RSA key for signatures is passed over: above all symmetric keys, which nobody hands
/// out who has sense.
#[derive(Deserialize)]
struct Described {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    for_use: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
}

/// Reads what a UAA answers when it is asked for its keys.
pub(super) fn answered(content: &[u8]) -> anyhow::Result<Vec<Key>> {
    let answer: Answer = serde_json::from_slice(content).context("it is no list of keys")?;
    let mut keys = Vec::new();
    let mut names = BTreeSet::new();
    for described in answer.keys {
        let is_for_signatures = described.for_use.as_deref().is_none_or(|word| word == "sig");
        let (true, Some(n), Some(e)) =
            (described.kty == "RSA" && is_for_signatures, described.n, described.e)
        else {
            continue;
        };
        let key = DecodingKey::from_rsa_components(&n, &e).context("a key is not written as keys are")?;
        ensure!(names.insert(described.kid.clone()), "two keys have the same name");
        keys.push(Key { id: described.kid, key });
    }
    ensure!(
        (1..=KEYS_MAX).contains(&keys.len()),
        "it has {} RSA keys: 1 to {KEYS_MAX} are taken",
        keys.len()
    );
    Ok(keys)
}
