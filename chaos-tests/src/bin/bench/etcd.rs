//! etcd as the yardstick: three members on the same disk, the same load, over the few messages of its API that we need.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chaos_tests::processes::Process;
use chaos_tests::wait;
use http::uri::PathAndQuery;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_prost::ProstCodec;

use crate::folder;
use crate::load::{self, Load, Writer, value};

/// Names of the members.
const MEMBERS: [&str; 3] = ["e1", "e2", "e3"];

/// How etcd is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dress {
    /// As its quick start does: nobody is asked who they are.
    Plain,
    /// As ours always is: TLS between all, and clients that log in.
    Full,
}

/// `etcdserverpb.PutRequest`, as far as we need it.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A user and a password, or a user and a role: `AuthUserAddRequest`, `AuthUserGrantRoleRequest`, `AuthenticateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    other: String,
}

/// `etcdserverpb.AuthenticateResponse`, as far as we need it.
#[derive(Clone, PartialEq, prost::Message)]
struct Token {
    #[prost(string, tag = "2")]
    token: String,
}

/// Any answer of which we read nothing.
#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

/// A cluster of three.
pub struct Etcd {
    ports: Vec<(u16, u16)>,
    authority_pem: Option<String>,
    token: Option<MetadataValue<Ascii>>,
    _members: Vec<Process>,
    _folder: TempDir,
}

/// A client of one member.
struct Theirs {
    grpc: Grpc<Channel>,
    token: Option<MetadataValue<Ascii>>,
    number: usize,
}

impl Theirs {
    async fn call<Q, A>(&mut self, method: &'static str, message: Q) -> Result<A>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.grpc.ready().await?;
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        let path = PathAndQuery::from_static(method);
        Ok(self.grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
    }
}

impl Writer for Theirs {
    async fn write(&mut self, number: u64) -> Result<()> {
        // As with us: the name stays, what is written is new each time.
        let (key, value) = (format!("client-{}", self.number), value(self.number, number));
        let put = PutRequest { key: key.into(), value: value.into() };
        self.call::<_, Nothing>("/etcdserverpb.KV/Put", put).await.map(drop)
    }
}

impl Etcd {
    /// Starts a cluster that answers.
    pub async fn start(dress: Dress) -> Result<Self> {
        let (folder, ports) = (folder()?, free_ports()?);
        let authority_pem = match dress {
            Dress::Plain => None,
            Dress::Full => Some(write_certificates(folder.path())?),
        };
        let members = start_members(folder.path(), &ports, dress)?;
        let mut etcd = Self { ports, authority_pem, token: None, _members: members, _folder: folder };
        let mut first = etcd.client(0)?;
        let answers = async || Ok(first.write(0).await.is_ok());
        wait::until_true("etcd answers", Duration::from_secs(30), answers).await?;
        if dress == Dress::Full {
            etcd.token = Some(log_in(&mut etcd.client(0)?).await?);
        }
        Ok(etcd)
    }

    /// Lets so many clients write.
    pub async fn load(&self, clients: usize, seconds: u64) -> Result<Load> {
        let writers = (0..clients).map(|number| self.client(number)).collect::<Result<Vec<_>>>()?;
        load::run(writers, seconds).await
    }

    fn client(&self, number: usize) -> Result<Theirs> {
        let (port, _) = self.ports[number % self.ports.len()];
        let endpoint = match &self.authority_pem {
            None => Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?,
            Some(pem) => Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?
                .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))?,
        };
        let grpc = Grpc::new(endpoint.tcp_nodelay(true).connect_lazy());
        Ok(Theirs { grpc, token: self.token.clone(), number })
    }
}

/// Makes the user `root`, has everybody log in from now on, and does.
async fn log_in(client: &mut Theirs) -> Result<MetadataValue<Ascii>> {
    let pair = |name: &str, other: &str| Pair { name: name.into(), other: other.into() };
    let (root, password) = ("root", "a password");
    let _: Nothing = client.call("/etcdserverpb.Auth/UserAdd", pair(root, password)).await?;
    let _: Nothing = client.call("/etcdserverpb.Auth/RoleAdd", pair(root, "")).await?;
    let _: Nothing = client.call("/etcdserverpb.Auth/UserGrantRole", pair(root, root)).await?;
    let _: Nothing = client.call("/etcdserverpb.Auth/AuthEnable", Nothing {}).await?;
    let token: Token = client.call("/etcdserverpb.Auth/Authenticate", pair(root, password)).await?;
    token.token.parse().context("etcd's token fits into a header")
}

fn start_members(folder: &Path, ports: &[(u16, u16)], dress: Dress) -> Result<Vec<Process>> {
    let scheme = if dress == Dress::Full { "https" } else { "http" };
    let url = |port: u16| format!("{scheme}://127.0.0.1:{port}");
    let peers: Vec<String> =
        MEMBERS.iter().zip(ports).map(|(name, (_, peer))| format!("{name}={}", url(*peer))).collect();
    let mut members = Vec::new();
    for (name, (client, peer)) in MEMBERS.iter().zip(ports) {
        let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
        let mut command = Command::new("etcd");
        command.args(["--name", name, "--data-dir"]).arg(folder.join(name));
        command.args(["--listen-client-urls", &url(*client), "--advertise-client-urls", &url(*client)]);
        command.args(["--listen-peer-urls", &url(*peer), "--initial-advertise-peer-urls", &url(*peer)]);
        command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"]);
        if dress == Dress::Full {
            let files = Files::of(folder);
            command.arg("--cert-file").arg(&files.certificate).arg("--key-file").arg(&files.key);
            command.arg("--peer-cert-file").arg(&files.certificate).arg("--peer-key-file").arg(&files.key);
            command.arg("--peer-client-cert-auth").arg("--peer-trusted-ca-file").arg(&files.authority);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        members.push(Process::new(*name, command.spawn().context("start etcd")?));
    }
    Ok(members)
}

/// Where etcd finds its certificates.
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        let [authority, certificate, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
        Self { authority, certificate, key }
    }
}

/// Writes a certificate that all members share; returns the authority's.
fn write_certificates(folder: &Path) -> Result<String> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &Issuer::new(authority, authority_key))?;
    let files = Files::of(folder);
    std::fs::write(files.authority, &authority_pem)?;
    std::fs::write(files.certificate, certificate.pem())?;
    std::fs::write(files.key, key.serialize_pem())?;
    Ok(authority_pem)
}

/// Returns a port for clients and one for peers, for each member.
fn free_ports() -> Result<Vec<(u16, u16)>> {
    let held =
        (0..2 * MEMBERS.len()).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let ports = held.iter().map(|l| Ok(l.local_addr()?.port())).collect::<Result<Vec<u16>>>()?;
    Ok(ports.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}
