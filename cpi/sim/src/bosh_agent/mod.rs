//! BOSH's own agent in a simulated VM: for VMs whose settings name a bus. The machine is the same as our agent's; what is said
//! on the bus, when it is said, and how blobs travel, is as with BOSH's.

mod actions;
mod blobstore;
mod disk;
mod outbox;

use std::sync::Arc;
use std::time::Duration;

use agent_stand_in::StandIn;
use anyhow::{Context as _, Result};
use async_nats::ConnectOptions;
use dagent::Behaviour;
use model::AgentId;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;

use self::actions::Deeds;
use self::blobstore::Blobstore;
pub(crate) use self::disk::Disk;
use self::outbox::Outbox;
use crate::machine::{SimMachine, Surroundings};

/// How long a server may take to be found by an agent that has just booted.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// What a VM's `env.bosh` tells BOSH's agent.
#[derive(Clone, Deserialize)]
pub(crate) struct Settings {
    mbus: Mbus,
    #[serde(default)]
    blobstores: Vec<Blobstore>,
}

#[derive(Clone, Deserialize)]
struct Mbus {
    urls: Vec<String>,
    cert: Certificate,
}

#[derive(Clone, Deserialize)]
struct Certificate {
    ca: String,
    certificate: String,
    private_key: String,
}

impl Settings {
    /// Reads them out of a VM's env; none there for our own agent.
    pub fn in_env(env: &Value) -> Option<Self> {
        Self::deserialize(&env["bosh"]).ok()
    }
}

/// Lives until it is dropped, from one restart to the next. What its VM does goes on meanwhile.
pub(crate) async fn live(
    agent: AgentId,
    made_with: Settings,
    disk: Disk,
    behaviour: Behaviour,
    around: Surroundings,
) -> Result<()> {
    let outbox = Arc::new(Outbox::default());
    let machine = Arc::new(SimMachine::new(agent.clone(), behaviour, outbox.clone(), around));
    loop {
        let settings = disk.settings(&made_with);
        let blobstore = settings.blobstores.into_iter().next().unwrap_or_default();
        let deeds = Deeds { machine: machine.clone(), outbox: outbox.clone(), blobstore, disk: disk.clone() };
        let client = ConnectOptions::new()
            .require_tls(true)
            .tls_client_config(tls(&settings.mbus.cert)?)
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| RECONNECT_PAUSE)
            .connect(&settings.mbus.urls)
            .await
            .context("the bus")?;
        let agent = StandIn::listen(client, agent.clone(), &deeds).await?;
        tokio::select! {
            () = agent.serve() => return Ok(()),
            () = disk.restarted() => {}
        }
    }
}

fn tls(certificate: &Certificate) -> Result<ClientConfig> {
    let own = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certificate.private_key.as_bytes())?;
    Ok(ClientConfig::builder()
        .with_root_certificates(roots(&certificate.ca)?)
        .with_client_auth_cert(own, key)?)
}

/// Returns the authorities in a text.
fn roots(pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(authority.context("an authority")?)?;
    }
    Ok(roots)
}
