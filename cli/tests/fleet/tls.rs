//! The fleet's own authority, and the login that travels under it.

use dctl::call;
use dctl::client::{Fleet, Login, Patience, Trust};
use dctl::error::Error;
use futures::FutureExt as _;
use proto::v1::locks_client::LocksClient;
use proto::v1::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::time::Duration;
use tonic::transport::{Identity, ServerTlsConfig};

use crate::director::{AMPLE, Director, Script};

/// A new authority, and a director's identity signed by it.
fn authority() -> (String, Identity) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (issuer.pem(), Identity::from_pem(certificate.pem(), key.serialize_pem()))
}

/// A director whose lock is named after the login that it was shown.
async fn director(identity: Identity) -> Director {
    let script = Script {
        locks: Box::new(|request| {
            let login =
                request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
            let lock = Lock { name: login.unwrap_or_default(), ..Lock::default() };
            async { Ok(ListLocksResponse { locks: vec![lock], ..ListLocksResponse::default() }) }.boxed()
        }),
        ..Script::default()
    };
    Director::start_with(script, Some(ServerTlsConfig::new().identity(identity))).await
}

async fn lock_seen(
    director: &Director,
    trust: Trust,
    login: Login,
    total: Duration,
) -> Result<String, Error> {
    let address = format!("127.0.0.1:{}", director.port());
    let fleet = Fleet::new(&[address], &trust, &login, Patience::within(total))?;
    let answer = call!(fleet, LocksClient.list(ListLocksRequest::default())).await?;
    Ok(answer.locks[0].name.clone())
}

#[tokio::test]
async fn the_login_reaches_a_director_of_our_authority() {
    let (pem, identity) = authority();
    let director = director(identity).await;
    let basic = Login::basic("admin", "geheim").unwrap();
    let seen = lock_seen(&director, Trust::Authority(pem.clone()), basic, AMPLE).await.unwrap();
    assert_eq!(seen, "Basic YWRtaW46Z2VoZWlt");
    let token = Login::token("abc").unwrap();
    assert_eq!(lock_seen(&director, Trust::Authority(pem), token, AMPLE).await.unwrap(), "Bearer abc");
}

#[tokio::test]
async fn a_director_of_another_authority_gets_nothing() {
    let (_, identity) = authority();
    let (other_pem, _) = authority();
    let director = director(identity).await;
    let login = Login::basic("admin", "geheim").unwrap();
    let total = Duration::from_millis(200);
    let error = lock_seen(&director, Trust::Authority(other_pem), login, total).await.unwrap_err();
    assert_eq!(error.exit() as u8, 3);
    let advice = error.advice().unwrap();
    assert!(advice.contains("certificate"), "{advice}");
}
