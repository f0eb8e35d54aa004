//! How a fleet gets its replicas: a folder with a configuration, a token, a place among the members.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Output;

use anyhow::{Result, ensure};

use super::Cluster;
use super::replica::{Replica, free_ports};
use crate::lab::Lab;
use crate::machine::SmallDisk;

impl Cluster {
    pub(super) async fn start_bus(&mut self, number: usize) -> Result<()> {
        let data = self.folder_of(number).join("data");
        match &mut self.bus {
            Some(bus) => bus.start(number, &data).await,
            None => Ok(()),
        }
    }

    /// Lays out one more replica's folder: a configuration, nothing else. Returns its number; the first one's is 1.
    pub fn prepare(&mut self) -> Result<usize> {
        self.lay_out(free_ports()?)
    }

    /// As [`Cluster::prepare`], with the agents' port of a replica that is gone: agents know no other.
    pub fn prepare_in_place_of(&mut self, gone: usize) -> Result<usize> {
        let [api, peer, _, probes] = free_ports()?;
        self.lay_out([api, peer, self.replica(gone).ports[2], probes])
    }

    fn lay_out(&mut self, ports: [u16; 4]) -> Result<usize> {
        let number = self.replicas.len() + 1;
        let folder = self.folder.path().join(format!("director-{number}"));
        fs::create_dir_all(&folder)?;
        let small = self.small_disk.filter(|(whose, _)| *whose == number);
        let disk = match small {
            Some((_, mebibytes)) => SmallDisk::mount(&folder.join("data"), mebibytes)?,
            None => None,
        };
        let port = self.lab.as_ref().map(|lab| lab.plug(number)).transpose()?;
        let host = if port.is_some() { Lab::address(number) } else { Ipv4Addr::LOCALHOST };
        let replica = Replica { process: None, port, disk, folder, host, ports };
        let bus = self.bus.as_ref().map(|bus| bus.config_text(number)).unwrap_or_default();
        let extra = format!("{}{bus}", self.extra);
        fs::write(replica.config(), replica.config_text(number, self.timing, &self.cloud, &extra))?;
        self.replicas.push(replica);
        Ok(number)
    }

    /// Adds a replica: token, join, run. It may not vote yet.
    pub async fn add(&mut self) -> Result<usize> {
        let number = self.prepare()?;
        let token = self.client()?.join_token(60).await?;
        let join = self.join(number, &token)?;
        ensure!(join.status.success(), "join failed: {}", String::from_utf8_lossy(&join.stderr));
        self.run(number)?;
        Ok(number)
    }

    /// Runs `directord join` to its end.
    pub fn join(&self, number: usize, token: &str) -> Result<Output> {
        self.join_with(number, token, &[])
    }

    /// Runs `directord join` to its end in some environment.
    pub fn join_with(&self, number: usize, token: &str, environment: &[(&str, &str)]) -> Result<Output> {
        let endpoints = self.running().map(Replica::api).collect::<Vec<_>>().join(",");
        // In the environment: a command line can be read by everybody.
        let environment = [&[("DIRECTORD_JOIN_TOKEN", token)], environment].concat();
        self.directord(number, &["join", "--endpoint", &endpoints], &environment)
    }
}
