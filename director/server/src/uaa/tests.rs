//! Tokens that are signed here, and a stand-in for what a UAA answers when it is asked for its keys.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use owned_tasks::{OnExit, OwnedTasks};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};
use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rsa::traits::PublicKeyParts as _;
use rsa::{RsaPrivateKey, RsaPublicKey};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::fleet::log::now;

/// Two keys of a UAA. Making one takes a moment.
static KEYS: LazyLock<[RsaPrivateKey; 2]> =
    LazyLock::new(|| [(); 2].map(|()| RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap()));

const SECRET: &str = "a secret that the UAA and the directors share";

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn token_of(header: Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(&header), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn sign(key: usize, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let pair = RsaKeyPair::from_pkcs8(KEYS[key].to_pkcs8_der().unwrap().as_bytes()).unwrap();
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

/// Returns a token that a UAA has signed with the first or the second of its keys.
pub(crate) fn signed(key: usize, claims: &Value) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": format!("key-{key}") });
    token_of(header, claims, |message| sign(key, &RSA_PKCS1_SHA256, message))
}

fn with_secret(algorithm: &str, secret: &[u8], claims: &Value) -> String {
    let hash = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    };
    let key = hmac::Key::new(hash, secret);
    token_of(json!({ "alg": algorithm }), claims, |message| hmac::sign(&key, message).as_ref().to_vec())
}

/// Returns what a good token says.
pub(crate) fn claims(user: &str, scopes: &[&str]) -> Value {
    json!({ "jti": "4f0b", "user_name": user, "client_id": "bosh_cli", "scope": scopes, "exp": now().seconds() + 600 })
}

/// Returns claims with one of them changed, or without it.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims("ann", &["bosh.read"]);
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

pub(crate) fn pem(key: usize) -> String {
    RsaPublicKey::from(&KEYS[key]).to_public_key_pem(LineEnding::LF).unwrap()
}

fn described(key: usize) -> Value {
    let number = |n: &rsa::BigUint| URL_SAFE_NO_PAD.encode(n.to_bytes_be());
    let (n, e) = (number(KEYS[key].n()), number(KEYS[key].e()));
    json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": format!("key-{key}"), "n": n, "e": e, "value": pem(key) })
}

/// What is not configured.
fn config() -> UaaConfig {
    UaaConfig {
        urls: vec!["https://uaa.example:8443".into()],
        public_key_file: None,
        symmetric_key_file: None,
        fetch_keys: false,
        ca_file: None,
    }
}

fn file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn with_public_key(folder: &Path) -> Uaa {
    let public_key_file = Some(file(folder, "uaa.pem", &pem(0)));
    Uaa::open(&UaaConfig { public_key_file, ..config() }).unwrap()
}

async fn name(uaa: &Uaa, token: &str) -> Option<String> {
    uaa.bearer(token).await.unwrap().map(|bearer| bearer.name)
}

#[tokio::test]
async fn a_token_is_of_its_user_or_else_of_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let uaa = with_public_key(folder.path());
    let found = uaa.bearer(&signed(0, &claims("ann", &["bosh.read", "openid"]))).await.unwrap().unwrap();
    assert_eq!(
        (found.name.as_str(), found.scopes.as_slice()),
        ("ann", &["bosh.read".into(), "openid".into()][..])
    );
    assert_eq!(name(&uaa, &signed(0, &but("user_name", Value::Null))).await.unwrap(), "bosh_cli");
    let others: [(_, &'static dyn RsaEncoding); 2] =
        [("RS384", &RSA_PKCS1_SHA384), ("RS512", &RSA_PKCS1_SHA512)];
    for (algorithm, encoding) in others {
        let signed = |message: &[u8]| sign(0, encoding, message);
        let token = token_of(json!({ "alg": algorithm }), &claims("ann", &[]), signed);
        assert_eq!(name(&uaa, &token).await.unwrap(), "ann", "{algorithm}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_whole_good_and_in_time_is_nobody_s() {
    let folder = tempfile::tempdir().unwrap();
    let uaa = with_public_key(folder.path());
    for (what, claims) in [
        ("over", but("exp", json!(now().seconds() - 1))),
        ("without an end", but("exp", Value::Null)),
        ("with an end that is no number", but("exp", json!("4102444800"))),
        ("of tomorrow", but("nbf", json!(now().seconds() + 600))),
        ("without a number", but("jti", Value::Null)),
        ("with an empty number", but("jti", json!(""))),
        ("for getting others", but("jti", json!("4f0b-r"))),
        ("with scopes in a text", but("scope", json!("bosh.admin"))),
        ("of nobody", but("user_name", json!(""))),
    ] {
        assert_eq!(name(&uaa, &signed(0, &claims)).await, None, "a token {what}");
    }
    let good = signed(0, &claims("ann", &["bosh.read"]));
    let parts: Vec<&str> = good.split('.').collect();
    let better = encoded(&claims("ann", &["bosh.admin"]));
    for (what, token) in [
        ("of another key", signed(1, &claims("ann", &[]))),
        ("with other claims", format!("{}.{better}.{}", parts[0], parts[2])),
        ("without a signature", format!("{}.{}.", parts[0], parts[1])),
        ("without a third part", format!("{}.{}", parts[0], parts[1])),
        ("with a fourth part", format!("{good}.x")),
        ("of no parts", "eyJ".into()),
        ("without end", format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX))),
    ] {
        assert_eq!(name(&uaa, &token).await, None, "a token {what}");
    }
    assert_eq!(name(&uaa, &good).await.unwrap(), "ann");
}

#[tokio::test]
async fn an_algorithm_does_not_make_another_key_of_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let uaa = with_public_key(folder.path());
    let admin = claims("ann", &["bosh.admin"]);
    let pem = pem(0);
    let der = RsaPublicKey::from(&KEYS[0]).to_public_key_der().unwrap();
    for algorithm in ["HS256", "HS384", "HS512"] {
        // What everybody knows is no secret.
        for secret in [pem.as_bytes(), pem.trim().as_bytes(), der.as_bytes(), &KEYS[0].n().to_bytes_be(), b""]
        {
            assert_eq!(name(&uaa, &with_secret(algorithm, secret, &admin)).await, None, "{algorithm}");
        }
    }
    let signed_as_rs256 = |message: &[u8]| sign(0, &RSA_PKCS1_SHA256, message);
    for algorithm in ["none", "None", "NONE", "", "PS256", "ES256", "EdDSA", "RS384"] {
        let header = json!({ "alg": algorithm, "typ": "JWT" });
        assert_eq!(name(&uaa, &token_of(header.clone(), &admin, |_| Vec::new())).await, None, "{algorithm}");
        assert_eq!(name(&uaa, &token_of(header, &admin, signed_as_rs256)).await, None, "{algorithm}");
    }
    // Nor does a token bring its own key.
    let own = token_of(json!({ "alg": "RS256", "jwk": described(1) }), &admin, |message| {
        sign(1, &RSA_PKCS1_SHA256, message)
    });
    assert_eq!(name(&uaa, &own).await, None);

    let symmetric_key_file = Some(file(folder.path(), "secret", &format!("{SECRET}\n")));
    let shared = Uaa::open(&UaaConfig { symmetric_key_file, ..config() }).unwrap();
    for algorithm in ["HS256", "HS384", "HS512"] {
        assert_eq!(name(&shared, &with_secret(algorithm, SECRET.as_bytes(), &admin)).await.unwrap(), "ann");
        assert_eq!(name(&shared, &with_secret(algorithm, b"another secret", &admin)).await, None);
    }
    assert_eq!(name(&shared, &signed(0, &admin)).await, None, "there is no public key");
}

#[test]
fn files_that_hold_no_key_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (is_public, content, says) in [
        (true, "", "has 0 public keys"),
        (true, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "this is no public key"),
        (false, "short", "fewer than 32 bytes"),
        (false, pem(0).as_str(), "a PEM file"),
    ] {
        let path = Some(file(folder.path(), "key", content));
        let config = match is_public {
            true => UaaConfig { public_key_file: path, ..config() },
            false => UaaConfig { symmetric_key_file: path, ..config() },
        };
        let error = format!("{:#}", Uaa::open(&config).err().unwrap());
        assert!(error.contains(says) && error.contains("/key`"), "{error}");
        assert!(content.is_empty() || !error.contains("AAAA") && !error.contains("short"), "{error}");
    }
}

/// What answers `/token_keys`.
pub(crate) struct StandIn {
    url: String,
    answer: Arc<std::sync::Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
    tasks: OwnedTasks,
}

impl StandIn {
    pub(crate) async fn start(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (answer, asked, tasks) = (Arc::default(), Arc::new(AtomicUsize::new(0)), OwnedTasks::new());
        let stand_in = Self { url, answer: Arc::clone(&answer), asked: asked.clone(), tasks };
        stand_in.tasks.spawn("a stand-in for a UAA", OnExit::Ignore, move |stop| async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = answer.lock().unwrap().clone();
                match &tls {
                    // Who does not trust us leaves.
                    Some(tls) => match tls.accept(accepted).await {
                        Ok(stream) => serve(stream, answer).await,
                        Err(_) => continue,
                    },
                    None => serve(accepted, answer).await,
                }
            }
        });
        stand_in
    }

    pub(crate) fn tell(&self, keys: &[usize]) {
        let keys: Vec<Value> = keys.iter().map(|key| described(*key)).collect();
        self.say(Some(json!({ "keys": keys }).to_string()));
    }

    /// Has it answer this, or be broken.
    fn say(&self, answer: Option<String>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn config(&self) -> UaaConfig {
        UaaConfig { urls: vec![self.url.clone()], fetch_keys: true, ..config() }
    }

    pub(crate) async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(5)).await);
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Option<String>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("GET /token_keys HTTP/1.1\r\n"), "{request}");
    let (status, body) = match answer {
        Some(body) => ("200 OK", body),
        None => ("503 Service Unavailable", String::new()),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_not_known_is_asked_for_but_not_by_everybody_who_makes_one_up() {
    let stand_in = StandIn::start(None).await;
    let uaa = Uaa::open(&stand_in.config()).unwrap();
    stand_in.tell(&[0]);
    let (old, new) = (signed(0, &claims("old", &[])), signed(1, &claims("new", &[])));
    assert_eq!(name(&uaa, &old).await.unwrap(), "old", "asked for with the first token");
    // The UAA goes on with another key, while the tokens of the last one still count.
    stand_in.tell(&[1, 0]);
    assert_eq!((name(&uaa, &new).await, stand_in.asked()), (None, 1), "it was asked just now");
    tokio::time::pause();
    tokio::time::advance(ASK_AGAIN).await;
    tokio::time::resume();
    assert_eq!((name(&uaa, &new).await.as_deref(), stand_in.asked()), (Some("new"), 2));
    assert_eq!(name(&uaa, &old).await.unwrap(), "old");
    for made_up in 0..20 {
        let header = json!({ "alg": "RS256", "kid": format!("made-up-{made_up}") });
        assert_eq!(name(&uaa, &token_of(header, &claims("eve", &[]), |_| vec![1; 256])).await, None);
    }
    assert_eq!(stand_in.asked(), 2);
    stand_in.stop().await;
}

#[tokio::test]
async fn keys_count_until_the_uaa_tells_others() {
    let stand_in = StandIn::start(None).await;
    let uaa = Uaa::open(&stand_in.config()).unwrap();
    stand_in.tell(&[0]);
    uaa.ask(Duration::ZERO).await;
    let token = signed(0, &claims("ann", &[]));
    let large = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(300 * 1024));
    let twice = json!({ "keys": [described(0), described(0)] }).to_string();
    let symmetric = json!({ "keys": [{ "kty": "MAC", "alg": "HS256", "value": SECRET }] }).to_string();
    for broken in [
        None,
        Some("no json".into()),
        Some(json!({ "keys": [] }).to_string()),
        Some(large),
        Some(twice),
        Some(symmetric),
    ] {
        stand_in.say(broken.clone());
        uaa.ask(Duration::ZERO).await;
        assert_eq!(name(&uaa, &token).await.unwrap(), "ann", "{broken:?}");
    }
    stand_in.tell(&[1]);
    uaa.ask(Duration::ZERO).await;
    assert_eq!(name(&uaa, &token).await, None, "the key was taken back");
    assert_eq!(name(&uaa, &signed(1, &claims("ann", &[]))).await.unwrap(), "ann");
    stand_in.stop().await;
    uaa.ask(Duration::ZERO).await;
    assert_eq!(name(&uaa, &signed(1, &claims("ann", &[]))).await.unwrap(), "ann", "it is not there any more");
}

#[tokio::test]
async fn keys_are_taken_only_from_whom_the_authority_has_signed() {
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder().with_no_client_auth();
    let tls = tls.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let stand_in = StandIn::start(Some(tokio_rustls::TlsAcceptor::from(Arc::new(tls)))).await;
    stand_in.tell(&[0]);
    let folder = tempfile::tempdir().unwrap();
    for (certificate, expected) in [(&own.cert, Some("ann")), (&other.cert, None)] {
        let ca_file = Some(file(folder.path(), "ca.pem", &certificate.pem()));
        let uaa = Uaa::open(&UaaConfig { ca_file, ..stand_in.config() }).unwrap();
        assert_eq!(name(&uaa, &signed(0, &claims("ann", &[]))).await.as_deref(), expected);
    }
    stand_in.stop().await;
}
