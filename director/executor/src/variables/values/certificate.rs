//! Certificates, signed by an authority or by themselves.

use model::task::TaskError;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256,
};
use rsa::RsaPrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::EncodePrivateKey as _;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

use super::keys::{Rsa, private_pem};
use super::options::Options;

/// How long a certificate is valid, where nothing is said.
const DAYS: u64 = 365;

/// A clock that is behind by less than this takes a new certificate as valid.
const CLOCK_SKEW: time::Duration = time::Duration::minutes(5);

/// A certificate to make.
pub(super) struct Certificate {
    key: Rsa,
    params: CertificateParams,
    days: i64,
    /// The name of the authority that is to sign it.
    ca: Option<String>,
}

impl Certificate {
    pub(super) fn read(options: &Options<'_>) -> Result<Self, TaskError> {
        let names = options.texts("alternative_names")?.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names)
            .map_err(|_| options.refuse("alternative_names", "must be DNS names or addresses"))?;
        params.distinguished_name.remove(DnType::CommonName);
        let parts = [
            (DnType::CommonName, "common_name"),
            (DnType::OrganizationName, "organization"),
            (DnType::OrganizationalUnitName, "organization_unit"),
            (DnType::LocalityName, "locality"),
            (DnType::StateOrProvinceName, "state"),
            (DnType::CountryName, "country"),
        ];
        for (part, key) in parts {
            if let Some(text) = options.text(key)? {
                params.distinguished_name.push(part, text);
            }
        }
        if options.flag("is_ca")? {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }
        for usage in options.texts("key_usage")? {
            let usage = key_usage(usage)
                .ok_or_else(|| options.refuse("key_usage", &format!("has unknown usage '{usage}'")))?;
            if !params.key_usages.contains(&usage) {
                params.key_usages.push(usage);
            }
        }
        for usage in options.texts("extended_key_usage")? {
            let usage = extended_key_usage(usage).ok_or_else(|| {
                options.refuse("extended_key_usage", &format!("has unknown usage '{usage}'"))
            })?;
            params.insert_extended_key_usage(usage);
        }
        let ca = options.text("ca")?.map(str::to_owned);
        if options.flag("self_sign")? && ca.is_some() {
            return Err(options.refuse("self_sign", "goes against 'ca': only one can sign"));
        }
        params.use_authority_key_identifier_extension = ca.is_some();
        let days = options.number("duration", DAYS, 1..=36_500)? as i64;
        Ok(Self { key: Rsa::read(options)?, params, days, ca })
    }

    /// Returns `{ca, certificate, private_key}`.
    pub(super) fn make(mut self, authority: Option<&Value>) -> Result<Value, TaskError> {
        let key = self.key.key()?;
        let (private_key, key) = (private_pem(&key)?, signing_key(&key)?);
        let now = time::OffsetDateTime::now_utc();
        self.params.not_before = now - CLOCK_SKEW;
        self.params.not_after = now + time::Duration::days(self.days);
        let failed = |e: rcgen::Error| TaskError::plain(format!("the certificate can't be signed: {e}"));
        let Some(ca) = &self.ca else {
            let certificate = self.params.self_signed(&key).map_err(failed)?.pem();
            return Ok(json!({ "ca": certificate, "certificate": certificate, "private_key": private_key }));
        };
        let part = |part: &str| {
            let text = authority.and_then(|value| value.get(part)).and_then(Value::as_str);
            text.ok_or_else(|| TaskError::plain(format!("its authority '{ca}' has no {part}")))
        };
        let (ca_pem, ca_key) = (part("certificate")?, read_key(part("private_key")?)?);
        let issuer = Issuer::from_ca_cert_pem(ca_pem, ca_key)
            .map_err(|e| TaskError::plain(format!("its authority '{ca}' can't sign: {e}")))?;
        let certificate = self.params.signed_by(&key, &issuer).map_err(failed)?.pem();
        Ok(json!({ "ca": ca_pem, "certificate": certificate, "private_key": private_key }))
    }
}

fn signing_key(key: &RsaPrivateKey) -> Result<KeyPair, TaskError> {
    let unusable = |why: &dyn std::fmt::Display| TaskError::plain(format!("the key can't sign: {why}"));
    let der = key.to_pkcs8_der().map_err(|e| unusable(&e))?;
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der.as_bytes()), &PKCS_RSA_SHA256)
        .map_err(|e| unusable(&e))
}

/// Reads an authority's key: RSA as we make it, or any kind in PKCS #8.
fn read_key(pem: &str) -> Result<KeyPair, TaskError> {
    if let Ok(key) = RsaPrivateKey::from_pkcs1_pem(pem) {
        return signing_key(&key);
    }
    // What the library says may quote the key.
    KeyPair::from_pem(pem).map_err(|_| TaskError::plain("the authority's key can't be read"))
}

fn key_usage(name: &str) -> Option<KeyUsagePurpose> {
    Some(match name {
        "digital_signature" => KeyUsagePurpose::DigitalSignature,
        "non_repudiation" => KeyUsagePurpose::ContentCommitment,
        "key_encipherment" => KeyUsagePurpose::KeyEncipherment,
        "data_encipherment" => KeyUsagePurpose::DataEncipherment,
        "key_agreement" => KeyUsagePurpose::KeyAgreement,
        "key_cert_sign" => KeyUsagePurpose::KeyCertSign,
        "crl_sign" => KeyUsagePurpose::CrlSign,
        "encipher_only" => KeyUsagePurpose::EncipherOnly,
        "decipher_only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

fn extended_key_usage(name: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match name {
        "client_auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "server_auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "code_signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email_protection" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        _ => return None,
    })
}
