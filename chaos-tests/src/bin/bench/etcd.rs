//! etcd as the yardstick: three members on the same disk, the same load, over the two messages of its API that we need.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chaos_tests::needs::{self, Need};
use chaos_tests::processes::Process;
use chaos_tests::wait;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::load::{self, Writer, value};
use crate::table::Table;
use crate::{Options, folder};

/// Name and ports of the members.
const MEMBERS: [&str; 3] = ["e1", "e2", "e3"];

/// `etcdserverpb.PutRequest`, as far as we need it.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, of which we read nothing.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

struct Theirs {
    grpc: Grpc<Channel>,
    number: usize,
}

impl Theirs {
    fn new(port: u16, number: usize) -> Result<Self> {
        let channel =
            Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true).connect_lazy();
        Ok(Self { grpc: Grpc::new(channel), number })
    }
}

impl Writer for Theirs {
    async fn write(&mut self, number: u64) -> Result<()> {
        self.grpc.ready().await?;
        // As with us: the name stays, what is written is new each time.
        let (key, value) = (format!("client-{}", self.number), value(self.number, number));
        let request = tonic::Request::new(PutRequest { key: key.into(), value: value.into() });
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        self.grpc.unary(request, path, codec).await?;
        Ok(())
    }
}

/// Measures puts of 256 bytes, through all three members.
pub async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    if !needs::met(&[Need::Etcd]) {
        table.line("etcd", "not measured: etcd-server is not installed");
        return Ok(());
    }
    let folder = folder()?;
    let ports = free_ports()?;
    let _members = start(folder.path(), &ports)?;
    let mut first = Theirs::new(ports[0].0, 0)?;
    wait::until_true("etcd answers", Duration::from_secs(30), async || Ok(first.write(0).await.is_ok()))
        .await?;
    for clients in &options.clients {
        let writers = (0..*clients).map(|n| Theirs::new(ports[n % 3].0, n)).collect::<Result<Vec<_>>>()?;
        let line = load::run(writers, options.seconds).await?;
        table.line(format!("etcd's, {clients} clients (plain text, no login)"), line);
    }
    Ok(())
}

fn start(folder: &Path, ports: &[(u16, u16)]) -> Result<Vec<Process>> {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
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
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        members.push(Process::new(*name, command.spawn().context("start etcd")?));
    }
    Ok(members)
}

/// Returns a port for clients and one for peers, for each member.
fn free_ports() -> Result<Vec<(u16, u16)>> {
    let held =
        (0..2 * MEMBERS.len()).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let ports = held.iter().map(|l| Ok(l.local_addr()?.port())).collect::<Result<Vec<u16>>>()?;
    Ok(ports.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}
