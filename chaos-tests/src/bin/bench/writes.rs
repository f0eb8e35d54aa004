//! The smallest mutation, from many clients at once, beside the same of etcd: each number of clients with one after
//! the other, so that all meet the machine in the same mood.

use anyhow::Result;
use chaos_tests::client::Client;
use chaos_tests::cluster::Cluster;
use chaos_tests::needs::{self, Need};

use crate::etcd::{Dress, Etcd};
use crate::load::{self, Load, Writer, value};
use crate::table::Table;
use crate::{Options, fleet};

struct Ours {
    client: Client,
    number: usize,
}

impl Writer for Ours {
    async fn write(&mut self, number: u64) -> Result<()> {
        let name = format!("client-{}", self.number);
        self.client.put_config(&name, &value(self.number, number)).await.map(drop)
    }
}

/// Measures puts of 256 bytes through all three members of each.
pub async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let cluster = fleet().await?;
    let mut others = Vec::new();
    if needs::met(&[Need::Etcd]) {
        others.push(("etcd, plain text, no login", Etcd::start(Dress::Plain).await?));
        others.push(("etcd, TLS and login as ours", Etcd::start(Dress::Full).await?));
    } else {
        table.line("etcd", "not measured: etcd-server is not installed");
    }
    for clients in &options.clients {
        let ours = ours(&cluster, *clients, options.seconds).await?;
        table.line(format!("writes, {clients} clients (TLS, login, audited)"), ours.to_string());
        for (name, etcd) in &others {
            let theirs = etcd.load(*clients, options.seconds).await?;
            let ratio = ours.rate / theirs.rate;
            table.line(format!("  {name}"), format!("{theirs}   ours is {ratio:.2} of it"));
        }
    }
    cluster.finish().await
}

async fn ours(cluster: &Cluster, clients: usize, seconds: u64) -> Result<Load> {
    let writer = |number| Ok(Ours { client: cluster.client_of(number % 3 + 1)?, number });
    let writers = (0..clients).map(writer).collect::<Result<Vec<_>>>()?;
    load::run(writers, seconds).await
}
