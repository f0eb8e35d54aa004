//! The message bus of BOSH's agents: NATS servers as an operator sets them up, one beside each replica.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::cluster::{SETTLE, free_ports};
use crate::processes::Process;
use crate::wait;

/// The servers of a fleet; they end with this value.
#[derive(Debug)]
pub struct Bus {
    folder: PathBuf,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    port: u16,
    /// For the other servers.
    routes: u16,
    /// Where the replica beside it serves blobs.
    blobs: u16,
    process: Option<Process>,
}

impl Bus {
    /// Makes the servers' authority and certificate, and finds ports for them. None runs yet: whom they trust, the fleet
    /// says once it is there.
    pub fn new(folder: PathBuf, size: usize) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        write_certificates(&folder)?;
        let mut servers = Vec::new();
        for _ in 0..size {
            let [port, routes, blobs, _] = free_ports()?;
            servers.push(Server { port, routes, blobs, process: None });
        }
        Ok(Self { folder, servers })
    }

    /// Returns what a replica's configuration says of it, and of where it serves blobs for agents on it.
    pub fn config_text(&self, number: usize) -> String {
        let urls: Vec<String> =
            self.servers.iter().map(|server| format!("nats://127.0.0.1:{}", server.port)).collect();
        let file = |name: &str| self.folder.join(name).display().to_string();
        format!(
            "[nats]\nurls = {urls:?}\nca_file = {:?}\nusers_file = {:?}\nserver_pid_file = {:?}\n\
             [blobs]\nlisten = \"127.0.0.1:{}\"\n",
            file("ca.pem"),
            file(&format!("users-{number}.conf")),
            file(&format!("server-{number}.pid")),
            self.servers[number - 1].blobs,
        )
    }

    /// Starts the server beside a replica, once that has written who may speak and whom to trust.
    pub async fn start(&mut self, number: usize, data: &Path) -> Result<()> {
        let Some(server) = self.servers.get(number - 1) else { return Ok(()) };
        let (authority, users) =
            (data.join("nats/authority.pem"), self.folder.join(format!("users-{number}.conf")));
        wait::until_true("a replica has written what NATS needs", SETTLE, async || {
            Ok(authority.exists() && users.exists())
        })
        .await?;
        let others: Vec<String> = self
            .servers
            .iter()
            .filter(|other| other.port != server.port)
            .map(|other| format!("\"nats-route://127.0.0.1:{}\"", other.routes))
            .collect();
        let (folder, port, routes) = (self.folder.display(), server.port, server.routes);
        let mut text = format!(
            "server_name: nats-{number}\nhost: 127.0.0.1\nport: {port}\npid_file: \"{folder}/server-{number}.pid\"\n\
             include users-{number}.conf\n\
             tls {{ cert_file: \"{folder}/server.pem\", key_file: \"{folder}/server.key\", ca_file: {authority:?}, \
             verify_and_map: true, timeout: 5 }}\n\
             ping_interval: \"5s\"\nping_max: 2\nmax_payload: 1048576\n"
        );
        if !others.is_empty() {
            let others = others.join(", ");
            text +=
                &format!("cluster {{ name: fleet, host: 127.0.0.1, port: {routes}, routes: [{others}] }}\n");
        }
        std::fs::write(self.config(number), text)?;
        self.revive(number)
    }

    /// Has directors and agents trust one more authority of servers, as an operator does before another one signs for them.
    pub fn trust_another(&self) -> Result<()> {
        let (file, key) = (self.folder.join("ca.pem"), KeyPair::generate()?);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let both = std::fs::read_to_string(&file)? + &params.self_signed(&key)?.pem();
        let new = self.folder.join("ca.new");
        std::fs::write(&new, both)?;
        Ok(std::fs::rename(new, file)?)
    }

    /// Kills a server.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.servers[number - 1].process.take().context("this server does not run")?.kill()
    }

    /// Starts a server that was killed, where it was.
    pub fn revive(&mut self, number: usize) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(number))?;
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(self.config(number)).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start nats-server")?;
        self.servers[number - 1].process = Some(Process::new(format!("nats-{number}"), child));
        Ok(())
    }

    fn config(&self, number: usize) -> PathBuf {
        self.folder.join(format!("server-{number}.conf"))
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.join(format!("server-{number}.log"))
    }
}

fn write_certificates(folder: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "default.nats-ca.bosh-internal");
    let key = KeyPair::generate()?;
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "default.nats.bosh-internal");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    std::fs::write(folder.join("server.pem"), params.signed_by(&key, &issuer)?.pem())?;
    std::fs::write(folder.join("server.key"), key.serialize_pem())?;
    Ok(())
}
