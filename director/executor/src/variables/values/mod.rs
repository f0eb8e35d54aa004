//! Making values: passwords, users, RSA and ssh keys, certificates. Chance is all that goes in beside the definition.
//!
//! Everything here blocks: an RSA key takes up to seconds. What a definition asks for is honoured or refused by name.

mod certificate;
mod keys;
mod options;
mod password;

use model::ErrorCode;
use model::task::TaskError;
use scheduler::VariableDefinition;
use serde_json::{Value, json};

use options::Options;

/// Makes a value. `authority` is the value of the certificate's CA, if the definition names one.
pub fn make(definition: &VariableDefinition, authority: Option<&Value>) -> Result<Value, TaskError> {
    let made = match Recipe::read(definition)? {
        Recipe::Password(recipe) => Ok(Value::String(recipe.make())),
        Recipe::User(recipe) => recipe.make(),
        Recipe::Rsa(recipe) => recipe.make_rsa(),
        Recipe::Ssh(recipe) => recipe.make_ssh(),
        Recipe::Certificate(recipe) => recipe.make(authority),
    };
    made.map_err(|error: TaskError| {
        let message = format!("failed to generate variable '{}': {}", definition.name, error.message);
        TaskError::new(ErrorCode::ConfigServerGenerationError, message)
    })
}

/// Checks what a definition asks for, and returns what a dry run shows in its place: a value of the same shape, none of
/// it secret.
pub fn stand_in(definition: &VariableDefinition) -> Result<Value, TaskError> {
    let parts: &[&str] = match Recipe::read(definition)? {
        Recipe::Password(_) => return Ok(json!(format!("(({}))", definition.name))),
        Recipe::User(_) => &["username", "password", "password_hash"],
        Recipe::Rsa(_) => &["private_key", "public_key"],
        Recipe::Ssh(_) => &["private_key", "public_key", "public_key_fingerprint"],
        Recipe::Certificate(_) => &["ca", "certificate", "private_key"],
    };
    let part = |part: &&str| ((*part).to_owned(), json!(format!("(({}.{part}))", definition.name)));
    Ok(Value::Object(parts.iter().map(part).collect()))
}

/// A definition whose options are known and sound.
enum Recipe {
    Password(password::Password),
    User(password::User),
    Rsa(keys::Rsa),
    Ssh(keys::Rsa),
    Certificate(Box<certificate::Certificate>),
}

impl Recipe {
    fn read(definition: &VariableDefinition) -> Result<Self, TaskError> {
        let options = Options::of(definition);
        let recipe = match definition.kind.as_str() {
            "password" => Self::Password(password::Password::read(&options)?),
            "user" => Self::User(password::User::read(&options)?),
            "rsa" => Self::Rsa(keys::Rsa::read(&options)?),
            "ssh" => Self::Ssh(keys::Rsa::read_ssh(&options)?),
            "certificate" => Self::Certificate(Box::new(certificate::Certificate::read(&options)?)),
            other => {
                return Err(TaskError::new(
                    ErrorCode::ConfigServerGenerationError,
                    format!(
                        "variable '{}' has type '{other}', which this director can't generate (password, user, \
                         certificate, ssh and rsa it can)",
                        definition.name
                    ),
                ));
            }
        };
        options.refuse_others()?;
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests;
