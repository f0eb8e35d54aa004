//! Secrets at rest: a data key per value, under the fleet's key-encryption key. And the agents' tokens.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use executor::ports::{Vault, VaultError};
use model::{AgentId, RequestId, UserName};
use rand::Rng as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hmac;
use serde_json::Value;
use state::records::Sealed;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// A sealed data key: nonce, key, tag.
const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + 16;

/// The fleet's key-encryption key.
#[derive(Clone)]
pub struct Kek([u8; KEY_BYTES]);

/// The key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// It can't be read or written.
    #[error("failed to access the key-encryption key `{path}`")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("`{path}` should hold 32 bytes in base64: restore it from your copy")]
    Content {
        /// Which file.
        path: PathBuf,
    },
}

impl Kek {
    /// Makes a new key.
    pub fn generate() -> Self {
        Self(rand::rng().random())
    }

    /// Takes over a key that another replica has sent.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Returns the key's bytes, for a replica that joins.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key for one purpose that follows from it: whoever has that one has neither this nor any other.
    pub fn derived(&self, purpose: &str) -> hmac::Key {
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), purpose.as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
    }

    /// Reads the key file.
    pub fn load(path: &Path) -> Result<Self, KekError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| KekError::File { path: path.into(), source })?;
        let bytes = STANDARD.decode(text.trim()).ok();
        bytes.and_then(|b| Self::from_bytes(&b)).ok_or_else(|| KekError::Content { path: path.into() })
    }

    /// Writes the key file, readable by its owner only.
    pub fn store(&self, path: &Path) -> Result<(), KekError> {
        let text = format!("{}\n", STANDARD.encode(self.0));
        crate::files::write_private(path, text.as_bytes())
            .map_err(|source| KekError::File { path: path.into(), source })
    }
}

/// Seals and opens values under the key-encryption key.
#[derive(Clone)]
pub struct KekVault(Kek);

impl KekVault {
    /// Makes the vault of a key.
    pub fn new(kek: Kek) -> Self {
        Self(kek)
    }

    /// Encrypts bytes for `name`.
    pub fn seal_bytes(&self, name: &str, plain: &[u8]) -> Sealed {
        let data_key: [u8; KEY_BYTES] = rand::rng().random();
        let mut sealed = encrypt(&self.0.0, name, &data_key);
        sealed.extend(encrypt(&data_key, name, plain));
        Sealed(sealed)
    }

    /// Decrypts what was sealed for `name`.
    pub fn open_bytes(&self, name: &str, sealed: &Sealed) -> Result<Vec<u8>, VaultError> {
        let failed = || VaultError { name: name.into() };
        let (wrapped, content) = sealed.0.split_at_checked(WRAPPED_BYTES).ok_or_else(failed)?;
        let data_key = decrypt(&self.0.0, name, wrapped).ok_or_else(failed)?;
        let data_key: [u8; KEY_BYTES] = data_key.try_into().map_err(|_| failed())?;
        decrypt(&data_key, name, content).ok_or_else(failed)
    }
}

impl Vault for KekVault {
    fn seal(&self, name: &str, value: &Value) -> Sealed {
        self.seal_bytes(name, value.to_string().as_bytes())
    }

    fn open(&self, name: &str, sealed: &Sealed) -> Result<Value, VaultError> {
        let plain = self.open_bytes(name, sealed)?;
        serde_json::from_slice(&plain).map_err(|_| VaultError { name: name.into() })
    }
}

fn cipher(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has this cipher's length"))
}

/// Returns nonce, ciphertext and tag. The name is authenticated: a value can't be moved under another name.
fn encrypt(key: &[u8; KEY_BYTES], name: &str, plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_BYTES] = rand::rng().random();
    let mut content = plain.to_vec();
    cipher(key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(name.as_bytes()),
            &mut content,
        )
        .expect("values are far below the cipher's limit");
    [nonce.to_vec(), content].concat()
}

fn decrypt(key: &[u8; KEY_BYTES], name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, content) = sealed.split_at_checked(NONCE_BYTES)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut content = content.to_vec();
    let plain = cipher(key).open_in_place(nonce, Aad::from(name.as_bytes()), &mut content).ok()?;
    Some(plain.to_vec())
}

/// What a user's token starts with.
const USER_TOKEN: &str = "du1";

/// Returns the id and the secret of a user's token.
pub fn token_parts(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(USER_TOKEN)?.strip_prefix('.')?.split_once('.')?;
    (!id.is_empty() && !secret.is_empty()).then_some((id, secret))
}

/// Returns what is stored of a secret that is made of chance.
pub fn hash_of_secret(secret: &str) -> String {
    hex::encode(digest(&SHA256, secret.as_bytes()))
}

/// A user's token, fresh from the mint.
pub struct MintedToken {
    /// Its id.
    pub id: String,
    /// What is stored of its secret.
    pub hash: String,
    /// What its user gets.
    pub text: String,
}

/// Makes secrets for those who ask for one: by chance, or out of the fleet's key and the request's id. So a repeat, also to
/// another replica, gets the same one again, and it need not be stored for that.
#[derive(Clone)]
pub struct Mint(hmac::Key);

impl Mint {
    /// Makes the mint of a key.
    pub fn new(kek: &Kek) -> Self {
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &kek.0), b"mint");
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// Returns a token for a request of `user`.
    pub fn user_token(&self, user: &UserName, request_id: Option<&RequestId>) -> MintedToken {
        let id = URL_SAFE_NO_PAD.encode(&self.draw("user token id", user, request_id)[..9]);
        let secret = URL_SAFE_NO_PAD.encode(self.draw("user token", user, request_id));
        MintedToken { hash: hash_of_secret(&secret), text: format!("{USER_TOKEN}.{id}.{secret}"), id }
    }

    /// Returns a join token's secret for a request of `user`.
    pub fn join_secret(&self, user: &UserName, request_id: Option<&RequestId>) -> String {
        URL_SAFE_NO_PAD.encode(self.draw("join token", user, request_id))
    }

    fn draw(&self, purpose: &str, user: &UserName, request_id: Option<&RequestId>) -> [u8; 32] {
        let Some(request_id) = request_id else { return rand::random() };
        let mut context = hmac::Context::with_key(&self.0);
        for part in [purpose, user.as_str(), request_id.as_str()] {
            // Lengths first: no other parts give the same bytes.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Tokens of new agents: derived from the fleet's key, so that any replica can make and check them without a record.
/// That each is good once is the state's affair.
#[derive(Clone)]
pub struct AgentTokens(hmac::Key);

impl AgentTokens {
    /// Makes the tokens of a key.
    pub fn new(kek: &Kek) -> Self {
        Self(kek.derived("agent tokens"))
    }

    /// Makes the passwords by which agents come to blobs that are given no URLs.
    pub fn for_blobs(kek: &Kek) -> Self {
        Self(kek.derived("passwords for blobs"))
    }

    /// Returns an agent's token of a generation.
    pub fn token(&self, agent: &AgentId, generation: u32) -> String {
        let tag = hmac::sign(&self.0, &signed(agent, generation));
        format!("{generation}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Returns the generation of a token, if it is one of the agent's. Takes equally long for right and wrong ones.
    pub fn generation(&self, agent: &AgentId, token: &str) -> Option<u32> {
        let (generation, tag) = token.split_once('.')?;
        let (generation, tag) = (generation.parse().ok()?, URL_SAFE_NO_PAD.decode(tag).ok()?);
        hmac::verify(&self.0, &signed(agent, generation), &tag).ok().map(|()| generation)
    }
}

/// The number first: whatever an agent is called, no other pair gives the same bytes.
fn signed(agent: &AgentId, generation: u32) -> Vec<u8> {
    [&generation.to_be_bytes(), agent.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_under_its_own_name_and_key_only() {
        let vault = KekVault::new(Kek::generate());
        let sealed = vault.seal("/d/a", &serde_json::json!({ "k": "secret" }));
        assert_eq!(vault.open("/d/a", &sealed).unwrap()["k"], "secret");
        assert!(vault.open("/d/b", &sealed).is_err());
        assert!(KekVault::new(Kek::generate()).open("/d/a", &sealed).is_err());
        assert!(!sealed.0.windows(6).any(|w| w == b"secret"));
        assert!(vault.open("/d/a", &Sealed(vec![1, 2, 3])).is_err());
    }

    #[test]
    fn a_repeat_gets_the_same_secret_and_nobody_else_does() {
        let kek = Kek::generate();
        let (mint, other) = (Mint::new(&kek), Mint::new(&Kek::generate()));
        let (ann, bob): (UserName, UserName) = ("ann".into(), "bob".into());
        let (one, two): (RequestId, RequestId) = ("1".into(), "2".into());
        let token = mint.user_token(&ann, Some(&one));
        assert_eq!(token.text, Mint::new(&kek).user_token(&ann, Some(&one)).text, "on another replica");
        let (id, secret) = token_parts(&token.text).unwrap();
        assert_eq!((id, hash_of_secret(secret)), (token.id.as_str(), token.hash));
        let others = [
            mint.user_token(&ann, Some(&two)),
            mint.user_token(&bob, Some(&one)),
            other.user_token(&ann, Some(&one)),
            mint.user_token(&ann, None),
            mint.user_token(&ann, None),
        ];
        let mut seen: Vec<String> = others.into_iter().map(|token| token.text).collect();
        seen.extend([token.text, mint.join_secret(&ann, Some(&one))]);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 7);
    }

    #[test]
    fn a_token_is_good_for_its_agent_only() {
        let tokens = AgentTokens::new(&Kek::generate());
        let (a, b) = (AgentId::new("a"), AgentId::new("b"));
        let token = tokens.token(&a, 3);
        assert_eq!(tokens.generation(&a, &token), Some(3));
        assert_eq!(tokens.generation(&b, &token), None);
        for forged in ["nonsense!", "3.", &token.replacen('3', "4", 1)] {
            assert_eq!(tokens.generation(&a, forged), None, "{forged}");
        }
    }

    #[test]
    fn a_key_file_is_private_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let kek = Kek::generate();
        kek.store(&path).unwrap();
        assert_eq!(Kek::load(&path).unwrap().bytes(), kek.bytes());
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(Kek::load(&path), Err(KekError::Content { .. })));
    }
}
