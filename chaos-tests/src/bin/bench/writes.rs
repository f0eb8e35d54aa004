//! The smallest mutation, from many clients at once; then the same of etcd.

use anyhow::Result;
use chaos_tests::client::Client;

use crate::etcd;
use crate::load::{self, Writer, value};
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

/// Measures puts of a config of 256 bytes, through all three replicas.
pub async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let cluster = fleet().await?;
    for clients in &options.clients {
        let writer = |number| Ok(Ours { client: cluster.client_of(number % 3 + 1)?, number });
        let writers = (0..*clients).map(writer).collect::<Result<Vec<_>>>()?;
        let line = load::run(writers, options.seconds).await?;
        table.line(format!("writes, {clients} clients (TLS, login, audited)"), line);
    }
    cluster.finish().await?;
    etcd::measure(options, table).await
}
