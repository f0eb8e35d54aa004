//! Generating values: passwords, certificates, ssh and rsa keys.
//!
//! Generating is not pure, so it happens before planning: each value is sealed, committed and pinned in the task's
//! variable set; a new leader that plans the same task again finds them pinned and makes no others.

use model::task::TaskError;
use model::{ErrorCode, VariableName, VariableSetId};
use rand::Rng as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ring::digest::{SHA256, digest};
use scheduler::VariableDefinition;
use serde_json::{Value, json};
use state::State;
use state::command::{Command, NewVariable, Outcome};
use state::log::Proposal;

use super::StandIns;
use crate::context::TaskContext;
use crate::error::{Interrupted, StepError};

/// Length of a generated password, where none is asked for.
const PASSWORD_LENGTH: usize = 30;

/// How long a generated certificate is valid, where nothing is said.
const CERTIFICATE_DAYS: i64 = 365;

/// Opens the task's variable set and makes sure that every definition has a value in it, in order.
pub async fn generate_missing(
    task: &TaskContext,
    definitions: &[VariableDefinition],
) -> Result<Result<VariableSetId, TaskError>, Interrupted> {
    let deployment = task.task.deployment.clone().unwrap_or_default();
    let open = Command::VariableSetOpen { task: task.id(), epoch: task.fence.epoch(), deployment };
    let set = match task.ports.log.propose(Proposal::own(open)).await?.outcome.accepted()? {
        Outcome::VariableSet(set) => set,
        _ => return Ok(Err(TaskError::plain("the state opened no variable set"))),
    };
    for definition in definitions {
        let value = match new_value(task, set, definition) {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        };
        let Some(value) = value else { continue };
        let put =
            Command::VariablesPut { task: task.id(), epoch: task.fence.epoch(), set, values: vec![value] };
        task.ports.log.propose(Proposal::own(put)).await?.outcome.accepted()?;
    }
    Ok(Ok(set))
}

/// Returns what a dry run shows in the place of the values that the deploy would generate, in their shapes. Nothing of
/// it is a secret, and the same deploy gives the same again.
pub fn stand_ins(task: &TaskContext, definitions: &[VariableDefinition]) -> StandIns {
    let view = task.view();
    let state = State::new(&*view);
    let made = definitions.iter().filter(|d| !keeps_value(&state, d, &options_digest(d)));
    made.map(|d| (d.name.clone(), stand_in(d))).collect()
}

fn stand_in(definition: &VariableDefinition) -> Value {
    let parts: &[&str] = match definition.kind.as_str() {
        "certificate" => &["ca", "certificate", "private_key"],
        "user" => &["username", "password"],
        "ssh" => &["private_key", "public_key", "public_key_fingerprint"],
        "rsa" => &["private_key", "public_key"],
        _ => return json!(format!("(({}))", definition.name)),
    };
    parts.iter().map(|part| ((*part).to_owned(), json!(format!("(({}.{part}))", definition.name)))).collect()
}

/// Decides whether a definition needs a new value, only needs to be pinned, or is pinned already.
fn new_value(
    task: &TaskContext,
    set: VariableSetId,
    definition: &VariableDefinition,
) -> Result<Option<NewVariable>, TaskError> {
    let view = task.view();
    let state = State::new(&*view);
    if state.variable_set(set).is_some_and(|set| set.pins.contains_key(&definition.name)) {
        return Ok(None);
    }
    let options_digest = options_digest(definition);
    let sealed = match keeps_value(&state, definition, &options_digest) {
        true => None,
        false => {
            let value = generate(task, definition)?;
            Some(task.ports.vault.seal(definition.name.as_str(), &value))
        }
    };
    Ok(Some(NewVariable {
        name: definition.name.clone(),
        kind: definition.kind.clone(),
        options_digest,
        sealed,
    }))
}

fn options_digest(definition: &VariableDefinition) -> String {
    hex::encode(digest(&SHA256, definition.options.to_string().as_bytes()))
}

/// Returns whether a definition is content with the newest value that there is.
fn keeps_value(state: &State<'_>, definition: &VariableDefinition, options_digest: &str) -> bool {
    match (state.latest_variable(&definition.name), definition.mode.as_str()) {
        (None, _) | (Some(_), "overwrite") => false,
        (Some(existing), "converge") => existing.options_digest == options_digest,
        (Some(_), _) => true,
    }
}

fn generate(task: &TaskContext, definition: &VariableDefinition) -> Result<Value, TaskError> {
    match definition.kind.as_str() {
        "password" => Ok(password(&definition.options)),
        "user" => Ok(json!({
            "username": definition.options.get("username").cloned().unwrap_or_else(|| password(&Value::Null)),
            "password": password(&definition.options),
        })),
        "certificate" => certificate(task, definition),
        "ssh" => key_pair(definition, Form::Ssh),
        "rsa" => key_pair(definition, Form::Rsa),
        other => Err(TaskError::new(
            ErrorCode::ConfigServerGenerationError,
            format!(
                "variable '{}' has type '{other}', which this director can't generate (password, user, certificate, \
                 ssh and rsa it can)",
                definition.name
            ),
        )),
    }
}

fn password(options: &Value) -> Value {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let length =
        options.get("length").and_then(Value::as_u64).map_or(PASSWORD_LENGTH, |n| n.min(4096) as usize);
    let mut chance = rand::rng();
    let text: String = (0..length).map(|_| LETTERS[chance.random_range(0..LETTERS.len())] as char).collect();
    Value::String(text)
}

enum Form {
    Ssh,
    Rsa,
}

fn key_pair(definition: &VariableDefinition, form: Form) -> Result<Value, TaskError> {
    let failed = |what: &str| generation_failed(&definition.name, what);
    let bits = definition.options.get("key_length").and_then(Value::as_u64).unwrap_or(2048) as usize;
    let private = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).map_err(|_| failed("the key"))?;
    let public = rsa::RsaPublicKey::from(&private);
    use rsa::pkcs1::{EncodeRsaPrivateKey as _, LineEnding};
    use rsa::pkcs8::EncodePublicKey as _;
    let private_pem =
        private.to_pkcs1_pem(LineEnding::LF).map_err(|_| failed("the private key's text"))?.to_string();
    Ok(match form {
        Form::Rsa => json!({
            "private_key": private_pem,
            "public_key": public.to_public_key_pem(LineEnding::LF).map_err(|_| failed("the public key's text"))?,
        }),
        Form::Ssh => {
            let blob = openssh_blob(&public);
            use base64::Engine as _;
            let standard = base64::engine::general_purpose::STANDARD;
            let fingerprint = md5_style(&digest(&SHA256, &blob).as_ref()[..16]);
            json!({
                "private_key": private_pem,
                "public_key": format!("ssh-rsa {}", standard.encode(&blob)),
                "public_key_fingerprint": fingerprint,
            })
        }
    })
}

/// The wire form of an RSA public key in OpenSSH: three length-prefixed fields.
fn openssh_blob(public: &rsa::RsaPublicKey) -> Vec<u8> {
    use rsa::traits::PublicKeyParts as _;
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

fn md5_style(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

fn generation_failed(name: &VariableName, what: &str) -> TaskError {
    TaskError::new(
        ErrorCode::ConfigServerGenerationError,
        format!("failed to generate {what} of variable '{name}'"),
    )
}

/// Returns `{ca, certificate, private_key}`, signed by the CA that the options name, or by itself.
fn certificate(task: &TaskContext, definition: &VariableDefinition) -> Result<Value, TaskError> {
    let options = &definition.options;
    let failed = |what: &str| generation_failed(&definition.name, what);
    let key = KeyPair::generate().map_err(|_| failed("the key"))?;
    let params = certificate_params(options).map_err(|_| failed("the alternative names"))?;
    let private_key = key.serialize_pem();
    let Some(ca_name) = options.get("ca").and_then(Value::as_str) else {
        let certificate = params.self_signed(&key).map_err(|_| failed("the certificate"))?.pem();
        return Ok(json!({ "ca": certificate, "certificate": certificate, "private_key": private_key }));
    };
    let ca = open_authority(task, ca_name).map_err(|_| {
        TaskError::new(
            ErrorCode::ConfigServerGenerationError,
            format!(
                "variable '{}' is to be signed by '{ca_name}', which has no value yet: list that one first",
                definition.name
            ),
        )
    })?;
    let text = |field: &str| ca.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let ca_key = KeyPair::from_pem(&text("private_key")).map_err(|_| failed("the authority's key"))?;
    let issuer =
        Issuer::from_ca_cert_pem(&text("certificate"), ca_key).map_err(|_| failed("the authority"))?;
    let certificate = params.signed_by(&key, &issuer).map_err(|_| failed("the certificate"))?.pem();
    Ok(json!({ "ca": text("certificate"), "certificate": certificate, "private_key": private_key }))
}

fn open_authority(task: &TaskContext, name: &str) -> Result<Value, StepError> {
    super::Resolver::for_task(task)?.resolve(&Value::String(format!("(({name}))")))
}

fn certificate_params(options: &Value) -> Result<CertificateParams, rcgen::Error> {
    let texts = |key: &str| -> Vec<String> {
        let list = options.get(key).and_then(Value::as_array);
        list.map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
    };
    let mut params = CertificateParams::new(texts("alternative_names"))?;
    let text = |key: &str| options.get(key).and_then(Value::as_str);
    params.distinguished_name.remove(DnType::CommonName);
    if let Some(name) = text("common_name") {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    if let Some(name) = text("organization") {
        params.distinguished_name.push(DnType::OrganizationName, name);
    }
    let days = options.get("duration").and_then(Value::as_i64).unwrap_or(CERTIFICATE_DAYS).clamp(1, 36_500);
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::minutes(5);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
    if options.get("is_ca").and_then(Value::as_bool) == Some(true) {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    for usage in texts("extended_key_usage") {
        match usage.as_str() {
            "client_auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            "server_auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            _ => {}
        }
    }
    Ok(params)
}
