//! The agent's key and certificate: enrolled with the token, the certificate renewed at two thirds of its life.
//!
//! The key stays for the life of the VM: it is by its key that the directors tell this agent from one in a VM that came
//! before it, and a new one whose answer got lost would lock the agent out. Key and certificate live in one file,
//! replaced at once: a crash never leaves a key beside another key's certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::AgentId;
use proto::agent::v1::agent_identity_client::AgentIdentityClient;
use proto::agent::v1::{Certificate, EnrollRequest, RenewRequest};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use crate::layout::Layout;
use crate::storage::Storage;

/// Longest a director may take to issue a certificate.
const ISSUED_WITHIN: Duration = Duration::from_secs(15);

/// Why the agent has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A key or request can't be made.
    #[error("cannot make a certificate request for agent {agent}")]
    Request {
        /// Who asks.
        agent: AgentId,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The identity file can't be read or written.
    #[error("cannot keep the identity of agent {agent}")]
    Keep {
        /// Whose.
        agent: AgentId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A director said no.
    #[error("no director issued a certificate to agent {agent}: {status}")]
    NotIssued {
        /// Who asked.
        agent: AgentId,
        /// The director's word.
        status: Box<tonic::Status>,
    },
}

/// Key and certificate as they are stored. Holds the private key: it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    key_pem: String,
    /// Empty until enrolled: the key is stored first, so that a repeat after a lost answer presents the same one.
    chain_pem: String,
    authorities_pem: String,
    obtained_unix: i64,
    not_after_unix: i64,
}

/// A key with its certificate, for a TLS connection.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) key_pem: String,
    pub(crate) chain_pem: String,
}

/// See the module's header.
pub(crate) struct Identity {
    agent: AgentId,
    storage: Storage,
    stored: Option<Stored>,
    bootstrap_authorities_pem: String,
}

impl Identity {
    /// Reads what an earlier life of the agent stored.
    pub(crate) fn open(
        agent: AgentId,
        storage: Storage,
        bootstrap_authorities_pem: String,
    ) -> Result<Self, IdentityError> {
        let stored = storage
            .read(Layout::identity)
            .map_err(|source| IdentityError::Keep { agent: agent.clone(), source })?;
        Ok(Self { agent, storage, stored, bootstrap_authorities_pem })
    }

    /// Returns the credentials, if there are any that are still good.
    pub(crate) fn credentials(&self) -> Option<Credentials> {
        let stored = self.stored.as_ref()?;
        let good = !stored.chain_pem.is_empty() && now_unix() < stored.not_after_unix;
        good.then(|| Credentials { key_pem: stored.key_pem.clone(), chain_pem: stored.chain_pem.clone() })
    }

    /// Returns every authority that a director's certificate may come from.
    pub(crate) fn authorities_pem(&self) -> &str {
        match &self.stored {
            Some(stored) if !stored.authorities_pem.is_empty() => &stored.authorities_pem,
            _ => &self.bootstrap_authorities_pem,
        }
    }

    /// Returns how long the certificate need not be renewed.
    pub(crate) fn renewal_in(&self) -> Duration {
        let Some(stored) = &self.stored else { return Duration::ZERO };
        let life = (stored.not_after_unix - stored.obtained_unix).max(0);
        let due = stored.obtained_unix + life * 2 / 3;
        Duration::from_secs(u64::try_from(due - now_unix()).unwrap_or(0))
    }

    /// Exchanges the token for a certificate, over a connection that has verified the director.
    pub(crate) async fn enroll(&mut self, channel: Channel, token: &str) -> Result<(), IdentityError> {
        let key = self.key().await?;
        let request = EnrollRequest {
            agent_id: self.agent.to_string(),
            token: token.to_owned(),
            csr_der: self.request_der(&key)?.into(),
        };
        let answer = within(AgentIdentityClient::new(channel).enroll(request)).await;
        self.keep(&key, answer).await
    }

    /// Renews the certificate over a connection made with the present one.
    pub(crate) async fn renew(&mut self, channel: Channel) -> Result<(), IdentityError> {
        let key = self.key().await?;
        let request = RenewRequest { csr_der: self.request_der(&key)?.into() };
        let answer = within(AgentIdentityClient::new(channel).renew(request)).await;
        self.keep(&key, answer).await
    }

    async fn key(&mut self) -> Result<KeyPair, IdentityError> {
        if let Some(stored) = &self.stored
            && let Ok(key) = KeyPair::from_pem(&stored.key_pem)
        {
            return Ok(key);
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|source| self.request_error(source))?;
        let stored = Stored {
            key_pem: key.serialize_pem(),
            chain_pem: String::new(),
            authorities_pem: String::new(),
            obtained_unix: 0,
            not_after_unix: 0,
        };
        self.store(stored).await?;
        Ok(key)
    }

    fn request_der(&self, key: &KeyPair) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("agent:{}", self.agent));
        let request = params.serialize_request(key).map_err(|source| self.request_error(source))?;
        Ok(request.der().to_vec())
    }

    fn request_error(&self, source: rcgen::Error) -> IdentityError {
        IdentityError::Request { agent: self.agent.clone(), source }
    }

    async fn keep(
        &mut self,
        key: &KeyPair,
        answer: Result<Certificate, tonic::Status>,
    ) -> Result<(), IdentityError> {
        let certificate = answer.map_err(|status| IdentityError::NotIssued {
            agent: self.agent.clone(),
            status: Box::new(status),
        })?;
        self.store(Stored {
            key_pem: key.serialize_pem(),
            chain_pem: certificate.chain_pem,
            authorities_pem: certificate.authorities_pem,
            obtained_unix: now_unix(),
            not_after_unix: certificate.not_after_unix,
        })
        .await
    }

    async fn store(&mut self, stored: Stored) -> Result<(), IdentityError> {
        let written = self.storage.write(Layout::identity, &stored).await;
        written.map_err(|source| IdentityError::Keep { agent: self.agent.clone(), source })?;
        self.stored = Some(stored);
        Ok(())
    }
}

async fn within(
    call: impl Future<Output = Result<tonic::Response<Certificate>, tonic::Status>>,
) -> Result<Certificate, tonic::Status> {
    match tokio::time::timeout(ISSUED_WITHIN, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(tonic::Status::deadline_exceeded("no answer came in time")),
    }
}

fn now_unix() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(obtained_unix: i64, not_after_unix: i64) -> Identity {
        let stored = Stored {
            key_pem: "K".into(),
            chain_pem: "C".into(),
            authorities_pem: String::new(),
            obtained_unix,
            not_after_unix,
        };
        Identity {
            agent: "a".into(),
            storage: Storage::Memory,
            stored: Some(stored),
            bootstrap_authorities_pem: "B".into(),
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let now = now_unix();
        let fresh = identity(now, now + 900).renewal_in().as_secs();
        assert!((595..=600).contains(&fresh), "{fresh}");
        assert_eq!(identity(now - 700, now + 200).renewal_in(), Duration::ZERO);
    }

    #[test]
    fn an_expired_certificate_is_no_credential() {
        let now = now_unix();
        assert!(identity(now - 10, now + 10).credentials().is_some());
        assert!(identity(now - 10, now - 1).credentials().is_none());
        assert_eq!(identity(now, now).authorities_pem(), "B");
    }
}
