//! The way between agents and a replica, which can be cut without a word: packets are lost, connections stay open.

use std::net::SocketAddr;

use owned_tasks::{OnExit, OwnedTasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to one address; through it until it is cut.
pub struct Wire {
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
}

impl Wire {
    /// Lays a way to `to` that ends with `tasks`.
    pub fn lay(listener: TcpListener, to: SocketAddr, tasks: &OwnedTasks) -> Self {
        let address = listener.local_addr().unwrap();
        let is_cut = watch::channel(false).0;
        let (cut, inner) = (is_cut.subscribe(), tasks.clone());
        tasks.spawn("wire", OnExit::Ignore, move |_| async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let cut = cut.clone();
                inner.spawn("wire's connection", OnExit::Ignore, move |_| connection(near, to, cut));
            }
        });
        Self { address, is_cut }
    }

    /// Loses everything from now on, on old connections and new ones.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }
}

async fn connection(near: TcpStream, to: SocketAddr, cut: watch::Receiver<bool>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(carry(near_read, far_write, cut.clone()), carry(far_read, near_write, cut));
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut bytes = [0; 4096];
    loop {
        let lost = async {
            // An error means that the test is over.
            let _ = cut.wait_for(|is_cut| *is_cut).await;
        };
        let read = tokio::select! {
            biased;
            () = lost => None,
            read = from.read(&mut bytes) => Some(read.unwrap_or_default()),
        };
        let Some(count) = read else {
            // Both halves are kept: nobody hears of an end.
            return std::future::pending().await;
        };
        if count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            // The end of one direction is passed on.
            let _ = to.shutdown().await;
            return;
        }
    }
}
