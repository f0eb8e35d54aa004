//! One worker process: started locked in, spoken to in frames, killed with all its children when it is dropped.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::oneshot;

use super::RenderOptions;
use super::jail::{Isolation, Jail};

/// The worker's program: what it may take for granted, Ruby 3.4's looks, BOSH's binding, the protocol.
const PROGRAM: &str = concat!(
    include_str!("prelude.rb"),
    include_str!("ruby34.rb"),
    include_str!("binding.rb"),
    include_str!("worker.rb"),
);

/// Orders that may wait for the launcher: it works through them in milliseconds.
const ORDERS_MAX: usize = 32;

/// Base64 and JSON around what templates render.
const ANSWER_OVERHEAD: usize = 2;

/// The thread that starts workers and buries them.
///
/// It exists because of the parent-death signal: the kernel sends it when the *thread* that started a process ends, and
/// the runtime's threads come and go. This one lives exactly as long as the renderer.
pub(super) struct Launcher {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Start { command: Box<Command>, started: oneshot::Sender<io::Result<Child>> },
    Bury(Child),
}

impl Launcher {
    pub(super) fn new() -> io::Result<Self> {
        let (orders, inbox) = sync_channel(ORDERS_MAX);
        let thread =
            std::thread::Builder::new().name("template-workers".into()).spawn(move || launch(&inbox))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Starts a worker and waits until it is warm.
    pub(super) async fn start(&self, options: &RenderOptions, isolation: Isolation) -> io::Result<Process> {
        let ended = || io::Error::other("the launcher of template workers has ended");
        let orders = self.orders.as_ref().ok_or_else(ended)?;
        let (started, child) = oneshot::channel();
        let command = Box::new(command(options, isolation)?);
        orders.try_send(Order::Start { command, started }).map_err(|_| ended())?;
        let mut child = child.await.map_err(|_| ended())??;
        let stdin = child.stdin.take().expect("it was started with a pipe");
        let stdout = child.stdout.take().expect("it was started with a pipe");
        let answer_bytes_max = options.output_bytes_max * ANSWER_OVERHEAD;
        let mut process = Process {
            child: Some(child),
            orders: orders.clone(),
            stdin: ChildStdin::from_std(stdin)?,
            stdout: ChildStdout::from_std(stdout)?,
            answer_bytes_max,
            served: 0,
            is_worn: false,
        };
        process.read_frame().await?; // Says that it is ready.
        Ok(process)
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It only panics if it was killed; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn launch(inbox: &Receiver<Order>) {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Bury(child) => bury(child),
            Order::Start { mut command, started } => {
                // Nobody waits any more: whoever asked was cancelled.
                if let Err(Ok(child)) = started.send(command.spawn()) {
                    bury(child);
                }
            }
        }
    }
}

fn bury(mut child: Child) {
    // Its group holds the worker and what templates have forked; their namespace, if any, dies with the worker.
    let group = Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"));
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
}

fn command(options: &RenderOptions, isolation: Isolation) -> io::Result<Command> {
    let limits = serde_json::json!({
        "output_bytes": options.output_bytes_max,
        "answer_bytes": options.output_bytes_max * ANSWER_OVERHEAD,
        "cpu_seconds": options.cpu_seconds_max,
    });
    let mut command = Command::new(&options.ruby);
    command
        // Both would add hints to the messages of errors. RUBYOPT is not read because the environment is empty.
        .args(["--disable=did_you_mean", "--disable=error_highlight", "-e", PROGRAM])
        .arg(limits.to_string())
        .env_clear()
        .env("LANG", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/tmp")
        .current_dir(PathBuf::from("/"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Jail::prepare(isolation, options.memory_bytes_max, &options.ruby)?.lock_in(&mut command);
    Ok(command)
}

/// A worker that waits for requests.
pub(super) struct Process {
    child: Option<Child>,
    orders: SyncSender<Order>,
    stdin: ChildStdin,
    stdout: ChildStdout,
    answer_bytes_max: usize,
    /// Requests that it has answered.
    pub(super) served: u32,
    /// Whether a template has left something behind for the next one.
    pub(super) is_worn: bool,
}

impl Process {
    /// Returns whether it still runs; one that was killed while idle is not given work.
    pub(super) fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a request and waits for its answer. After an error or a cancelled call the process must be dropped.
    pub(super) async fn call(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        let length =
            u32::try_from(request.len()).map_err(|_| io::Error::other("the request is too large"))?;
        self.stdin.write_all(&length.to_be_bytes()).await?;
        self.stdin.write_all(request).await?;
        self.stdin.flush().await?;
        let answer = self.read_frame().await?;
        self.served += 1;
        Ok(answer)
    }

    async fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        let length = self.stdout.read_u32().await? as usize;
        if length > self.answer_bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the answer is too large"));
        }
        let mut body = vec![0; length];
        self.stdout.read_exact(&mut body).await?;
        self.is_worn = self.stdout.read_u8().await? != 0;
        Ok(body)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        match self.orders.try_send(Order::Bury(child)) {
            Ok(()) => {}
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                if let Order::Bury(child) = order {
                    bury(child);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"job":"j","release":{"name":"r","version":"1"},"dns":{"azs":{},"networks":{},"groups":[]},
        "monit":"","templates":[{"source":"t","text":"PCU9IFByb2Nlc3MudWlkICU+"}],"contexts":["{}"]}"#;

    /// Starts a worker on one rung and returns the uid that its template sees.
    async fn uid_on(isolation: Isolation) -> io::Result<String> {
        use base64::Engine as _;
        let launcher = Launcher::new().unwrap();
        let mut process = launcher.start(&RenderOptions::default(), isolation).await?;
        assert!(process.is_alive());
        let answer: serde_json::Value =
            serde_json::from_slice(&process.call(REQUEST.as_bytes()).await?).unwrap();
        let file = answer["results"][0]["files"][0].as_str().unwrap();
        let uid = base64::engine::general_purpose::STANDARD.decode(file).unwrap();
        Ok(String::from_utf8(uid).unwrap())
    }

    #[tokio::test]
    async fn every_rung_that_the_machine_offers_renders() {
        let own = nix::unistd::Uid::effective();
        assert_eq!(uid_on(Isolation::Limits).await.unwrap(), own.to_string());
        for isolation in [Isolation::OtherUser, Isolation::Contained] {
            match uid_on(isolation).await {
                Ok(uid) => assert_eq!(uid, "65534", "{isolation}"),
                Err(error) => println!("skipped: `{isolation}` is not to be had here: {error}"),
            }
        }
        if own.is_root() {
            assert!(uid_on(Isolation::OtherUser).await.is_ok(), "root may always become nobody");
        }
    }

    #[tokio::test]
    async fn a_dropped_worker_is_dead_when_the_launcher_is_gone() {
        let launcher = Launcher::new().unwrap();
        let process = launcher.start(&RenderOptions::default(), Isolation::Limits).await.unwrap();
        let pid = Pid::from_raw(process.child.as_ref().unwrap().id() as i32);
        drop(process);
        drop(launcher);
        assert_eq!(nix::sys::signal::kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }
}
