//! Passwords, and users with one.

use model::task::TaskError;
use rand::Rng as _;
use serde_json::{Value, json};
use sha_crypt::{Sha512Params, sha512_crypt_b64};

use super::options::Options;

/// Length of a generated password, where none is asked for.
const LENGTH: u64 = 30;

/// Characters of a generated user's name.
const NAME_LENGTH: usize = 20;

/// Characters of the salt of a password's hash: the most that the format has.
const SALT_LENGTH: usize = 16;

/// Rounds of a password's hash: those that need not be written into it.
const ROUNDS: usize = 5000;

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const NUMBERS: &str = "0123456789";
const SPECIAL: &str = "!#$%&()*,-./:;<=>?@[]^_`{|}~";

/// A password to make.
pub(super) struct Password {
    length: usize,
    characters: String,
}

impl Password {
    pub(super) fn read(options: &Options<'_>) -> Result<Self, TaskError> {
        let length = options.number("length", LENGTH, 4..=4096)? as usize;
        let mut characters = String::new();
        for (without, group) in
            [("exclude_lower", LOWER), ("exclude_upper", UPPER), ("exclude_number", NUMBERS)]
        {
            if !options.flag(without)? {
                characters.push_str(group);
            }
        }
        if options.flag("include_special")? && !options.flag("exclude_special")? {
            characters.push_str(SPECIAL);
        }
        if characters.is_empty() {
            return Err(options.refuse("exclude_number", "leaves no character to make a password of"));
        }
        Ok(Self { length, characters })
    }

    pub(super) fn make(&self) -> String {
        pick(self.characters.as_bytes(), self.length)
    }
}

/// A user to make.
pub(super) struct User {
    name: Option<String>,
    password: Password,
}

impl User {
    pub(super) fn read(options: &Options<'_>) -> Result<Self, TaskError> {
        Ok(Self { name: options.text("username")?.map(str::to_owned), password: Password::read(options)? })
    }

    pub(super) fn make(&self) -> Result<Value, TaskError> {
        let name = self.name.clone().unwrap_or_else(|| pick(LOWER.as_bytes(), NAME_LENGTH));
        let password = self.password.make();
        let hash = hash(&password)?;
        Ok(json!({ "username": name, "password": password, "password_hash": hash }))
    }
}

/// Returns the hash of a password as `/etc/shadow` has it (SHA-512).
fn hash(password: &str) -> Result<String, TaskError> {
    let failed = |_| TaskError::plain("the password can't be hashed");
    let salt = pick(format!("./{NUMBERS}{UPPER}{LOWER}").as_bytes(), SALT_LENGTH);
    let params = Sha512Params::new(ROUNDS).map_err(failed)?;
    let hash = sha512_crypt_b64(password.as_bytes(), salt.as_bytes(), &params).map_err(failed)?;
    Ok(format!("$6${salt}${hash}"))
}

/// Picks ASCII characters by chance.
fn pick(characters: &[u8], length: usize) -> String {
    let mut chance = rand::rng();
    (0..length).map(|_| characters[chance.random_range(0..characters.len())] as char).collect()
}
