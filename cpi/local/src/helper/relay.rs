//! Carries connections between a VM's network and the host's loopback: agents to directors, published ports to jobs.
//!
//! Inside, each director answers at the very address it is known by: an address that a VM could not reach becomes one
//! of its own loopback's, with us behind it. So nothing that a director tells its agents has to be rewritten.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cpi_host::records;
use cpi_host::{Chain, HostError};

use super::LaunchSpec;
use crate::netlink::Netlink;
use crate::netns::within;
use crate::network::director_address;
use crate::record::Publish;

/// How often the list of directors is looked at.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Connections through one port at once: an agent needs one or two, people on published ports some more.
const CONNECTIONS_MAX: usize = 256;
/// Stack of a thread that copies bytes.
const STACK_BYTES: usize = 128 * 1024;
/// How long the far side may take to accept.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The relay of one VM.
pub(super) struct Relay {
    /// The VM's network.
    inside: Arc<File>,
    endpoints: PathBuf,
    publish: Vec<Publish>,
    address: Option<IpAddr>,
    listening: BTreeSet<SocketAddr>,
    first: Vec<TcpListener>,
}

impl Relay {
    /// Begins to listen inside. Called by a thread in the VM's network.
    pub fn prepare(spec: &LaunchSpec) -> Result<Self, HostError> {
        let network = "/proc/thread-self/ns/net";
        let inside = File::open(network).map_err(HostError::os("open", network))?;
        let Some(spec) = &spec.inside else { unreachable!("a shepherd's VM has an inside") };
        let mut relay = Self {
            inside: Arc::new(inside),
            endpoints: spec.endpoints.clone(),
            publish: spec.publish.clone(),
            address: spec.address,
            listening: BTreeSet::new(),
            first: Vec::new(),
        };
        let up = Netlink::open().and_then(|netlink| netlink.link_up("lo"));
        up.map_err(HostError::os("switch on the loopback of", network))?;
        relay.first = relay.listen_to_new();
        Ok(relay)
    }

    /// Starts to carry. Called in the host's network.
    pub fn start(mut self) -> Result<(), HostError> {
        for listener in std::mem::take(&mut self.first) {
            carry_out(listener);
        }
        for port in &self.publish {
            let Some(address) = self.address else { continue };
            publish(port.host_port, &self.inside, SocketAddr::from((address, port.port)));
        }
        let follow = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || self.follow());
        follow.map(drop).map_err(HostError::os("start a thread for", "the relay"))
    }

    fn follow(mut self) {
        loop {
            thread::sleep(FOLLOW_EVERY);
            let inside = self.inside.clone();
            match within(&inside, || Ok(self.listen_to_new())) {
                Ok(listeners) => listeners.into_iter().for_each(carry_out),
                Err(error) => eprintln!("local-vm: the relay can't enter the VM's network: {error}"),
            }
        }
    }

    /// Begins to listen at directors' addresses that are new. In the VM's network.
    fn listen_to_new(&mut self) -> Vec<TcpListener> {
        let endpoints: Vec<String> = records::read(&self.endpoints).ok().flatten().unwrap_or_default();
        let wanted = endpoints.iter().filter_map(|endpoint| director_address(endpoint));
        let new: Vec<SocketAddr> = wanted.filter(|address| !self.listening.contains(address)).collect();
        new.into_iter()
            .filter_map(|address| match listen(address) {
                Ok(listener) => {
                    self.listening.insert(address);
                    Some(listener)
                }
                Err(error) => {
                    eprintln!("local-vm: no way to the director at {address}: {}", Chain(&error));
                    None
                }
            })
            .collect()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        Netlink::open()?.address("lo", address.ip(), 32)?;
    }
    TcpListener::bind(address)
}

/// Offers a job's port at the host's loopback; `inside` is a network from which the job can be reached.
pub(super) fn publish(host_port: u16, inside: &Arc<File>, job: SocketAddr) {
    // The VM is as good without it: a taken port must not keep it from starting.
    match TcpListener::bind((Ipv4Addr::LOCALHOST, host_port)) {
        Ok(listener) => carry_in(listener, inside.clone(), job),
        Err(error) => eprintln!("local-vm: port {host_port} is not published: {error}"),
    }
}

/// Carries what comes to a director's address in the VM to the same address on the host.
fn carry_out(listener: TcpListener) {
    let Ok(address) = listener.local_addr() else { return };
    carry(listener, move || TcpStream::connect_timeout(&address, CONNECT_TIMEOUT));
}

/// Carries what comes to a published port to a job.
fn carry_in(listener: TcpListener, inside: Arc<File>, job: SocketAddr) {
    carry(listener, move || within(&inside, || TcpStream::connect_timeout(&job, CONNECT_TIMEOUT)));
}

fn carry(listener: TcpListener, connect: impl Fn() -> io::Result<TcpStream> + Send + Sync + 'static) {
    // A far side that refuses is a connection that closes: callers retry.
    serve(listener, move |near| drop(connect().and_then(|far| join(&near, &far))));
}

/// Does something with each connection that comes, in a thread of its own.
pub(super) fn serve(listener: TcpListener, deed: impl Fn(TcpStream) + Send + Sync + 'static) {
    let (open, deed) = (Arc::new(AtomicUsize::new(0)), Arc::new(deed));
    let accept = move || {
        for near in listener.incoming() {
            let Ok(near) = near else {
                // Out of descriptors, most likely: the next try must not spin.
                thread::sleep(FOLLOW_EVERY);
                continue;
            };
            if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
                continue;
            }
            let (open, deed) = (open.clone(), deed.clone());
            open.fetch_add(1, Ordering::Relaxed);
            let place = Place(open);
            spawn(move || {
                let _place = place;
                deed(near);
            });
        }
    };
    spawn(accept);
}

/// One of the connections at once; given back when dropped, also by a thread that never started.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().stack_size(STACK_BYTES).spawn(work) {
        eprintln!("local-vm: the relay can't start a thread: {error}");
    }
}

/// Copies both ways until both are done.
pub(super) fn join(near: &TcpStream, far: &TcpStream) -> io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    thread::scope(|scope| {
        let back = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || copy(far, near))?;
        copy(near, far);
        let _ = back.join();
        Ok(())
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let ended = io::copy(&mut from, &mut to);
    // The end of one direction is passed on; a failure ends both.
    let how = if ended.is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _ = to.shutdown(how);
}
