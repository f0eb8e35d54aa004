//! Values of all kinds, looked at as those who get them would.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::digest::{SHA256, digest};
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{RsaPrivateKey, RsaPublicKey};
use scheduler::Renewal;
use sha_crypt::{Sha512Params, sha512_crypt_b64};
use x509_parser::pem::Pem;
use x509_parser::prelude::{GeneralName, X509Certificate};

use super::*;

fn definition(kind: &str, options: Value) -> VariableDefinition {
    let (name, mode) = ("/d/p/x".into(), "no-overwrite".to_owned());
    VariableDefinition { name, kind: kind.into(), options, mode, renewal: Renewal::Now }
}

fn made(kind: &str, options: Value) -> Value {
    make(&definition(kind, options), None).unwrap()
}

#[track_caller]
fn check_refused(kind: &str, options: Value, why: &str) {
    let definition = definition(kind, options);
    let error = make(&definition, None).unwrap_err();
    assert_eq!((error.code, error.message.contains(why)), (540005, true), "{}", error.message);
    assert_eq!(stand_in(&definition).unwrap_err(), error, "a dry run says the same");
}

/// Returns the keys of a mapping.
fn parts(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_dry_run_shows_the_shapes_of_what_would_be_made() {
    for kind in ["user", "rsa", "ssh", "certificate"] {
        let definition = definition(kind, json!({}));
        let shown: BTreeSet<String> =
            parts(&stand_in(&definition).unwrap()).into_iter().map(str::to_owned).collect();
        let made: BTreeSet<String> =
            parts(&make(&definition, None).unwrap()).into_iter().map(str::to_owned).collect();
        assert_eq!(shown, made, "{kind}");
    }
    assert!(stand_in(&definition("password", json!({}))).unwrap().is_string());
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    check_refused("password", json!({"lenght": 8}), "option 'lenght' is not known");
    check_refused("password", json!({"length": 0}), "option 'length' must be a number from 4 to 4096");
    let nothing = json!({"exclude_lower": true, "exclude_upper": true, "exclude_number": true});
    check_refused("password", nothing, "leaves no character");
    check_refused(
        "rsa",
        json!({"key_length": 65_536}),
        "option 'key_length' must be one of 2048, 3072, 4096",
    );
    check_refused("rsa", json!({"key_length": "2048"}), "must be one of");
    check_refused("ssh", json!({"ssh_comment": "a\nssh-rsa b"}), "must be one line");
    check_refused("certificate", json!({"extended_key_usage": ["root_auth"]}), "unknown usage 'root_auth'");
    check_refused("certificate", json!({"key_usage": "everything"}), "unknown usage 'everything'");
    check_refused("certificate", json!({"is_ca": "yes"}), "option 'is_ca' must be true or false");
    check_refused("certificate", json!({"duration": 0}), "from 1 to 36500");
    check_refused("certificate", json!({"ca": "/ca", "self_sign": true}), "only one can sign");
    check_refused("certificate", json!({"alternative_names": [1]}), "must be a list of texts");
    check_refused("potato", json!({}), "type 'potato', which this director can't generate");
}

#[test]
fn passwords_have_the_characters_that_are_asked_for() {
    let password = |options: Value| made("password", options).as_str().unwrap().to_owned();
    let usual = password(json!({}));
    assert_eq!(usual.len(), 30);
    assert!(usual.bytes().all(|b| b.is_ascii_alphanumeric()), "{usual}");
    assert_ne!(usual, password(json!({})));
    let long = password(json!({"length": 500}));
    let has = |kind: fn(&u8) -> bool| long.bytes().any(|b| kind(&b));
    assert!(has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit), "{long}");
    let digits = password(json!({"length": 200, "exclude_lower": true, "exclude_upper": true}));
    assert!(digits.bytes().all(|b| b.is_ascii_digit()), "{digits}");
    let special = password(json!({"length": 500, "include_special": true}));
    assert!(special.bytes().any(|b| b.is_ascii_punctuation()), "{special}");
}

#[test]
fn a_user_has_a_password_and_its_hash() {
    let user = made("user", json!({"username": "ann", "length": 12}));
    let (password, hash) = (user["password"].as_str().unwrap(), user["password_hash"].as_str().unwrap());
    assert_eq!((user["username"].as_str(), password.len()), (Some("ann"), 12));
    let fields: Vec<&str> = hash.split('$').collect();
    let ["", "6", salt, digest] = fields[..] else { panic!("{hash}") };
    let params = Sha512Params::new(5000).unwrap();
    assert_eq!(sha512_crypt_b64(password.as_bytes(), salt.as_bytes(), &params).unwrap(), digest);
    assert_eq!(made("user", json!({}))["username"].as_str().unwrap().len(), 20);
}

#[test]
fn rsa_keys_go_together() {
    let value = made("rsa", json!({"key_length": 3072}));
    let private = RsaPrivateKey::from_pkcs1_pem(value["private_key"].as_str().unwrap()).unwrap();
    let public = RsaPublicKey::from_public_key_pem(value["public_key"].as_str().unwrap()).unwrap();
    assert_eq!((private.to_public_key(), public.size() * 8), (public, 3072));
}

#[test]
fn an_ssh_key_is_one_that_openssh_reads() {
    let value = made("ssh", json!({"ssh_comment": "ann@home"}));
    let private = RsaPrivateKey::from_pkcs1_pem(value["private_key"].as_str().unwrap()).unwrap();
    let public = value["public_key"].as_str().unwrap();
    let fields: Vec<&str> = public.split(' ').collect();
    let ["ssh-rsa", encoded, "ann@home"] = fields[..] else { panic!("{public}") };
    let blob = STANDARD.decode(encoded).unwrap();
    let mut rest = &blob[..];
    let mut field = || {
        let (length, tail) = rest.split_at(4);
        let (field, tail) = tail.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
        rest = tail;
        field
    };
    let (kind, exponent, modulus) = (field(), field(), field());
    assert_eq!((kind, exponent, modulus[0]), (&b"ssh-rsa"[..], &[1, 0, 1][..], 0), "2048 bits need a zero");
    assert_eq!(modulus[1..], private.n().to_bytes_be());
    assert!(rest.is_empty());
    assert_eq!(value["public_key_fingerprint"], STANDARD_NO_PAD.encode(digest(&SHA256, &blob)));
    assert_eq!(made("ssh", json!({}))["public_key"].as_str().unwrap().split(' ').count(), 2);
}

/// Has `ssh-keygen` read the key, where there is one.
#[test]
fn ssh_keygen_finds_the_same_fingerprint() {
    let value = made("ssh", json!({}));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pub");
    std::fs::write(&path, format!("{}\n", value["public_key"].as_str().unwrap())).unwrap();
    let Ok(shown) = std::process::Command::new("ssh-keygen").arg("-lf").arg(&path).output() else {
        println!("skipped: there is no ssh-keygen here");
        return;
    };
    let shown = String::from_utf8(shown.stdout).unwrap();
    let fingerprint = value["public_key_fingerprint"].as_str().unwrap();
    assert!(shown.starts_with(&format!("2048 SHA256:{fingerprint} ")), "{shown}");
}

fn pem(value: &Value, part: &str) -> Pem {
    Pem::iter_from_buffer(value[part].as_str().unwrap().as_bytes()).next().unwrap().unwrap()
}

fn subject_of(certificate: &X509Certificate<'_>) -> String {
    certificate.subject().to_string()
}

#[test]
fn certificates_chain_up_to_their_root() {
    let root = made("certificate", json!({"common_name": "root", "is_ca": true, "duration": 3650}));
    let middle_options = json!({"common_name": "middle", "is_ca": true, "ca": "/root"});
    let middle = make(&definition("certificate", middle_options), Some(&root)).unwrap();
    let leaf_options = json!({"common_name": "leaf", "ca": "/middle", "key_length": 3072});
    let leaf = make(&definition("certificate", leaf_options), Some(&middle)).unwrap();
    assert_eq!((&leaf["ca"], &middle["ca"]), (&middle["certificate"], &root["certificate"]));
    assert_eq!(root["ca"], root["certificate"]);

    let pems = [&root, &middle, &leaf].map(|value| pem(value, "certificate"));
    let [root_x, middle_x, leaf_x] = pems.each_ref().map(|pem| pem.parse_x509().unwrap());
    assert_eq!(subject_of(&leaf_x), "CN=leaf");
    root_x.verify_signature(None).unwrap();
    middle_x.verify_signature(Some(root_x.public_key())).unwrap();
    leaf_x.verify_signature(Some(middle_x.public_key())).unwrap();
    leaf_x.verify_signature(Some(root_x.public_key())).unwrap_err();
    assert_eq!((leaf_x.issuer(), middle_x.issuer()), (middle_x.subject(), root_x.subject()));
    let is_ca = |certificate: &X509Certificate<'_>| {
        certificate.basic_constraints().unwrap().is_some_and(|constraints| constraints.value.ca)
    };
    assert_eq!([&root_x, &middle_x, &leaf_x].map(is_ca), [true, true, false]);
    let days = |certificate: &X509Certificate<'_>| {
        let validity = certificate.validity();
        (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400
    };
    assert_eq!([&root_x, &middle_x, &leaf_x].map(days), [3650, 365, 365]);
    assert!(leaf_x.validity().is_valid());
    let key = RsaPrivateKey::from_pkcs1_pem(leaf["private_key"].as_str().unwrap()).unwrap();
    assert_eq!(key.size() * 8, 3072);
    let spki = RsaPublicKey::from_public_key_der(leaf_x.public_key().raw).unwrap();
    assert_eq!(spki, key.to_public_key());
}

#[test]
fn a_certificate_says_what_was_asked_for() {
    let value = made(
        "certificate",
        json!({
            "common_name": "c", "organization": "o", "organization_unit": "u", "country": "DE", "state": "s",
            "locality": "l", "alternative_names": ["a.internal", "*.b.internal", "10.0.0.7", "fd00::7"],
            "extended_key_usage": ["client_auth", "server_auth"],
            "key_usage": ["digital_signature", "key_encipherment"],
        }),
    );
    let pem = pem(&value, "certificate");
    let certificate = pem.parse_x509().unwrap();
    let subject = subject_of(&certificate);
    for part in ["CN=c", "O=o", "OU=u", "C=DE", "ST=s", "L=l"] {
        assert!(subject.split(", ").any(|found| found == part), "{part} in {subject}");
    }
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    let shown: Vec<String> = names
        .iter()
        .map(|name| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress([a, b, c, d]) => IpAddr::from([*a, *b, *c, *d]).to_string(),
            GeneralName::IPAddress(bytes) => IpAddr::from(<[u8; 16]>::try_from(*bytes).unwrap()).to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, ["a.internal", "*.b.internal", "10.0.0.7", "fd00::7"]);
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && extended.server_auth && !extended.code_signing);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
}

#[test]
fn an_authority_may_have_a_key_of_another_kind() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca =
        json!({"certificate": params.self_signed(&key).unwrap().pem(), "private_key": key.serialize_pem()});
    let asked = definition("certificate", json!({"common_name": "leaf", "ca": "/ca"}));
    let leaf = make(&asked, Some(&ca)).unwrap();
    let (ca_pem, leaf_pem) = (pem(&ca, "certificate"), pem(&leaf, "certificate"));
    let (ca, leaf) = (ca_pem.parse_x509().unwrap(), leaf_pem.parse_x509().unwrap());
    leaf.verify_signature(Some(ca.public_key())).unwrap();
    let secretive = json!({"certificate": "x", "private_key": "secret"});
    let error = make(&asked, Some(&secretive)).unwrap_err();
    assert!(!error.message.contains("secret"), "{}", error.message);
    assert!(make(&asked, Some(&json!("text"))).unwrap_err().message.contains("has no certificate"));
}
