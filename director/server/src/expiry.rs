//! When certificates end that are values of variables.

use executor::ports::Vault;
use model::Timestamp;
use state::records::Variable;

use crate::fleet::log::now;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Returns when a certificate ends; none if the value is no certificate. Nothing else of the value leaves here.
pub fn of(vault: &dyn Vault, variable: &Variable) -> Option<Timestamp> {
    let value = vault.open(variable.name.as_str(), &variable.sealed).ok()?;
    of_pem(value["certificate"].as_str()?).next()
}

/// Returns when each of the certificates in a text ends, as far as they are some.
pub fn of_pem(text: &str) -> impl Iterator<Item = Timestamp> {
    let ends_at = |pem: x509_parser::pem::Pem| {
        let ends_at = pem.parse_x509().ok()?.validity().not_after.timestamp();
        Some(Timestamp(ends_at.checked_mul(1000)?))
    };
    x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()).map_while(Result::ok).filter_map(ends_at)
}

/// Returns how many whole days are left; less than none of what has ended.
pub fn days_left(ends_at: Timestamp) -> i64 {
    (ends_at.0 - now().0).div_euclid(DAY_MS)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use serde_json::{Value, json};

    use super::*;
    use crate::secrets::{Kek, KekVault};

    fn variable(vault: &KekVault, value: &Value) -> Variable {
        let name = "/directorate/web/tls";
        Variable {
            name: name.into(),
            version: 3,
            kind: "certificate".into(),
            options_digest: String::new(),
            sealed: vault.seal(name, value),
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn a_certificate_says_when_it_ends_and_other_values_do_not() {
        let vault = KekVault::new(Kek::generate());
        let mut params = CertificateParams::new(vec!["web".to_owned()]).unwrap();
        params.not_after = date_time_ymd(2031, 5, 6);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let ends_at = of(&vault, &variable(&vault, &json!({ "certificate": pem })));
        assert_eq!(ends_at, Some(Timestamp(1_935_792_000_000)));
        for value in [json!({ "certificate": "no PEM" }), json!({}), json!("text")] {
            assert_eq!(of(&vault, &variable(&vault, &value)), None, "{value}");
        }
        let other = KekVault::new(Kek::generate());
        let foreign = variable(&other, &json!({ "certificate": pem }));
        assert_eq!(of(&vault, &foreign), None, "another key's");
    }

    #[test]
    fn what_has_ended_has_fewer_than_no_days_left() {
        assert_eq!(days_left(Timestamp(now().0 + 3 * DAY_MS / 2)), 1);
        assert_eq!(days_left(Timestamp(now().0 - DAY_MS / 2)), -1);
    }
}
