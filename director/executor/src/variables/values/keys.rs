//! RSA keys, as such and as ssh keys.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use model::task::TaskError;
use ring::digest::{SHA256, digest};
use rsa::pkcs1::{EncodeRsaPrivateKey as _, LineEnding};
use rsa::pkcs8::EncodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{RsaPrivateKey, RsaPublicKey};
use serde_json::{Value, json};

use super::options::Options;

/// Lengths of RSA keys in bits, the default first: those that CredHub offers. Shorter ones are weak, and longer ones take
/// minutes to make.
const LENGTHS: [u64; 3] = [2048, 3072, 4096];

/// A key to make.
pub(super) struct Rsa {
    bits: usize,
    /// What stands behind the public key in `authorized_keys`.
    comment: Option<String>,
}

impl Rsa {
    pub(super) fn read(options: &Options<'_>) -> Result<Self, TaskError> {
        Ok(Self { bits: options.one_of("key_length", &LENGTHS)? as usize, comment: None })
    }

    pub(super) fn read_ssh(options: &Options<'_>) -> Result<Self, TaskError> {
        let comment = options.text("ssh_comment")?;
        if comment.is_some_and(|comment| comment.contains(['\n', '\r'])) {
            return Err(options.refuse("ssh_comment", "must be one line"));
        }
        Ok(Self { comment: comment.map(str::to_owned), ..Self::read(options)? })
    }

    /// Makes the key itself.
    pub(super) fn key(&self) -> Result<RsaPrivateKey, TaskError> {
        RsaPrivateKey::new(&mut rsa::rand_core::OsRng, self.bits)
            .map_err(|e| TaskError::plain(format!("no key of {} bits: {e}", self.bits)))
    }

    pub(super) fn make_rsa(&self) -> Result<Value, TaskError> {
        let key = self.key()?;
        let public = key.to_public_key().to_public_key_pem(LineEnding::LF);
        let public = public.map_err(|e| TaskError::plain(format!("the public key can't be written: {e}")))?;
        Ok(json!({ "private_key": private_pem(&key)?, "public_key": public }))
    }

    pub(super) fn make_ssh(&self) -> Result<Value, TaskError> {
        let key = self.key()?;
        let blob = openssh_blob(&key.to_public_key());
        let comment = self.comment.as_ref().map(|comment| format!(" {comment}")).unwrap_or_default();
        Ok(json!({
            "private_key": private_pem(&key)?,
            "public_key": format!("ssh-rsa {}{comment}", STANDARD.encode(&blob)),
            // As `ssh-keygen -l` shows it behind `SHA256:`.
            "public_key_fingerprint": STANDARD_NO_PAD.encode(digest(&SHA256, &blob)),
        }))
    }
}

/// Returns a private key in the form that everybody reads: PKCS #1 in PEM.
pub(super) fn private_pem(key: &RsaPrivateKey) -> Result<String, TaskError> {
    let pem = key.to_pkcs1_pem(LineEnding::LF);
    pem.map(|pem| pem.to_string())
        .map_err(|e| TaskError::plain(format!("the private key can't be written: {e}")))
}

/// The wire form of an RSA public key in OpenSSH: three length-prefixed fields.
fn openssh_blob(public: &RsaPublicKey) -> Vec<u8> {
    let mut blob = Vec::new();
    let mut field = |bytes: &[u8]| {
        blob.extend((bytes.len() as u32).to_be_bytes());
        blob.extend(bytes);
    };
    // A leading zero keeps a number with its top bit set from being read as negative.
    let positive = |bytes: Vec<u8>| {
        if bytes.first().is_some_and(|b| b & 0x80 != 0) { [vec![0], bytes].concat() } else { bytes }
    };
    field(b"ssh-rsa");
    field(&positive(public.e().to_bytes_be()));
    field(&positive(public.n().to_bytes_be()));
    blob
}
