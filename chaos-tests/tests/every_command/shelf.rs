//! A web server with archives on it, for uploads by URL.

use anyhow::Result;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Serves one archive until it is dropped, to whoever asks and as often as it is asked: a task whose leader died asks again.
pub struct Shelf {
    /// Where the archive is.
    pub url: String,
    tasks: OwnedTasks,
}

impl Shelf {
    pub async fn with(archive: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/archive.tgz", listener.local_addr()?);
        let tasks = OwnedTasks::new();
        tasks.spawn("archives on the web", OnExit::Ignore, move |stop| async move {
            let serve = async {
                while let Ok((caller, _)) = listener.accept().await {
                    // A director that is killed hangs up; that is what this is about.
                    let _ = answer(caller, &archive).await;
                }
            };
            tokio::select! { () = stop.cancelled() => {}, () = serve => {} }
        });
        Ok(Self { url, tasks })
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.tasks.stop_token().cancel();
    }
}

async fn answer(caller: TcpStream, archive: &[u8]) -> std::io::Result<()> {
    let mut caller = BufReader::new(caller);
    let mut line = String::new();
    // The head ends with an empty line.
    while caller.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", archive.len());
    caller.write_all(head.as_bytes()).await?;
    caller.write_all(archive).await?;
    caller.shutdown().await
}
