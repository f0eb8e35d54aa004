//! One supervised service: a task that starts its process, notices its death, tests it and starts it again.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use owned_tasks::{OnExit, OwnedTasks};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Surroundings;
use super::monit_file::{CheckProcess, MemoryOf, Program, RestartLimit, Subject, Test, Then};
use super::process::Process;
use crate::children;
use crate::machine::Notice;
use crate::proc;

/// Wishes waiting for a service. More than one is rare; the last one counts.
const WISHES_MAX: usize = 8;

/// How long a dependency may take to come up before its dependants start without it.
const DEPENDENCY_WITHIN: Duration = Duration::from_secs(60);

/// How often the pidfile is looked at while a process starts.
const PIDFILE_EVERY: Duration = Duration::from_millis(50);

/// A start program that failed gets this long for its process to be there nevertheless.
const AFTER_FAILED_START: Duration = Duration::from_secs(1);

/// How long a program that is given up may take to end.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(2);

/// How long a connection test may take.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// Largest kept output of a service's programs; beyond it the file begins anew.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Whether a service is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitored {
    /// It is left alone.
    No,
    /// It is coming up for the first time.
    Starting,
    /// It is looked after.
    Yes,
}

/// Whether a service's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// A service's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it is looked after.
    pub monitored: Monitored,
    /// Whether its process lives.
    pub running: Running,
    /// Its process.
    pub pid: Option<i32>,
}

const IDLE: Status = Status { monitored: Monitored::No, running: Running::No, pid: None };

/// What is wanted of a service.
pub(super) enum Wish {
    /// It should run, once these do.
    Run { after: Vec<watch::Receiver<Status>> },
    /// Its process should be gone.
    Stopped,
    /// It should be left alone.
    Unmonitored,
}

/// Ends when a wish has come true or was overtaken by another.
pub(super) struct Done(mpsc::Receiver<()>);

impl Done {
    pub(super) async fn wait(mut self) {
        // Nothing is ever sent: the end of the sender is the message.
        self.0.recv().await;
    }
}

struct Wished {
    wish: Wish,
    _done: mpsc::Sender<()>,
}

/// A service, from outside. Dropping it ends the task and leaves the process alone.
pub(super) struct Service {
    check: CheckProcess,
    status: Arc<watch::Sender<Status>>,
    wishes: mpsc::Sender<Wished>,
    _forget: tokio_util::sync::DropGuard,
}

impl Service {
    pub(super) fn start(check: CheckProcess, surroundings: Arc<Surroundings>, tasks: &OwnedTasks) -> Self {
        let status = Arc::new(watch::channel(IDLE).0);
        let (wishes, inbox) = mpsc::channel(WISHES_MAX);
        let forget = CancellationToken::new();
        let keeper = Keeper {
            check: check.clone(),
            surroundings,
            status: status.clone(),
            inbox,
            restarts: Vec::new(),
            pauses: 0,
            true_for: Mutex::new(vec![0; check.tests.len()]),
        };
        let forgotten = forget.clone();
        tasks.spawn("supervised service", OnExit::Ignore, |stop| async move {
            tokio::select! {
                () = keeper.keep() => {}
                () = stop.cancelled() => {}
                () = forgotten.cancelled() => {}
            }
        });
        Self { check, status, wishes, _forget: forget.drop_guard() }
    }

    pub(super) fn check(&self) -> &CheckProcess {
        &self.check
    }

    pub(super) fn status(&self) -> Status {
        *self.status.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn wish(&self, wish: Wish) -> Done {
        if let Wish::Run { .. } = wish {
            // Now, not when the task gets to it: whoever looks next must not see an idle service and call it failing.
            self.status.send_if_modified(|status| {
                let idle = status.monitored == Monitored::No;
                status.monitored = if idle { Monitored::Starting } else { status.monitored };
                idle
            });
        }
        let (sender, done) = mpsc::channel(1);
        if self.wishes.try_send(Wished { wish, _done: sender }).is_err() {
            warn!(service = self.check.name, "a service does not listen: too much is wanted of it at once");
        }
        Done(done)
    }
}

/// The task's side.
struct Keeper {
    check: CheckProcess,
    surroundings: Arc<Surroundings>,
    status: Arc<watch::Sender<Status>>,
    inbox: mpsc::Receiver<Wished>,
    /// When the process was lately started again.
    restarts: Vec<Instant>,
    /// How often in a row it died before it had proved itself.
    pauses: u32,
    /// For how many cycles each test has been true.
    true_for: Mutex<Vec<u32>>,
}

/// Why the keeper stopped looking after a process.
enum Left {
    Wished(Wished),
    Died,
    DidNotStart,
    Tripped(Then),
    /// Nobody can wish anything any more.
    Forgotten,
}

impl Keeper {
    async fn keep(mut self) {
        let mut next = self.inbox.recv().await;
        while let Some(Wished { wish, _done }) = next {
            next = match wish {
                Wish::Unmonitored => {
                    self.set(Monitored::No, None);
                    drop(_done);
                    self.inbox.recv().await
                }
                Wish::Stopped => {
                    let overtaken = self.stop().await;
                    drop(_done);
                    match overtaken {
                        Some(wished) => Some(wished),
                        None => self.inbox.recv().await,
                    }
                }
                Wish::Run { after } => {
                    drop(_done);
                    self.run(after).await
                }
            };
        }
    }

    /// Keeps the process running until something else is wished.
    async fn run(&mut self, after: Vec<watch::Receiver<Status>>) -> Option<Wished> {
        let mut monitored = Monitored::Starting;
        self.pauses = 0;
        if Process::behind(&self.check.pidfile).is_none() {
            self.set(monitored, None);
            tokio::select! {
                () = all_running(after) => {}
                wished = self.inbox.recv() => return wished,
            }
        }
        loop {
            let left = match Process::behind(&self.check.pidfile) {
                Some(process) => {
                    self.set(Monitored::Yes, Some(process.pid()));
                    monitored = Monitored::Yes;
                    self.look_after(&process).await
                }
                None => match self.bring_up(monitored).await {
                    Ok(()) => continue,
                    Err(left) => {
                        monitored = Monitored::Yes;
                        left
                    }
                },
            };
            match left {
                Left::Wished(wished) => return Some(wished),
                Left::Forgotten => return None,
                Left::DidNotStart => self.set(monitored, None),
                Left::Died => {
                    self.set(monitored, None);
                    self.tell("does not exist", 1, "restart");
                }
                Left::Tripped(then) => {
                    if let Some(wished) = self.answer(then).await {
                        return wished;
                    }
                }
            }
            if let Some(limit) = self.limit_reached() {
                self.tell("timeout", 2, "unmonitor");
                warn!(
                    service = self.check.name,
                    restarts = limit.restarts,
                    "a service keeps dying and is given up"
                );
                self.set(Monitored::No, None);
                return self.inbox.recv().await;
            }
        }
    }

    /// Watches a live process.
    async fn look_after(&mut self, process: &Process) -> Left {
        let mut cycle = tokio::time::interval(self.surroundings.timing.cycle);
        cycle.tick().await;
        loop {
            tokio::select! {
                () = process.died() => {
                    info!(service = self.check.name, pid = process.pid(), "a supervised process has died");
                    if process.age_seconds() >= self.surroundings.timing.proved_after.as_secs_f64() {
                        self.pauses = 0;
                    }
                    return Left::Died;
                }
                wished = self.inbox.recv() => return wished.map_or(Left::Forgotten, Left::Wished),
                _ = cycle.tick() => if let Some(then) = self.test(process.pid()).await {
                    return Left::Tripped(then);
                }
            }
        }
    }

    /// Starts the process after a pause that grows with every early death.
    async fn bring_up(&mut self, monitored: Monitored) -> Result<(), Left> {
        let pause = match self.pauses {
            0 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 1).min(6)).min(self.surroundings.timing.restart_pause_max),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            wished = self.inbox.recv() => return Err(wished.map_or(Left::Forgotten, Left::Wished)),
        }
        self.set(monitored, None);
        self.pauses += 1;
        if monitored == Monitored::Yes {
            self.restarts.push(Instant::now());
        }
        let Some(program) = self.check.start.clone() else {
            // Nothing can start it but its job: wait for the pidfile to name somebody.
            tokio::select! {
                () = tokio::time::sleep(self.surroundings.timing.cycle) => return Err(Left::DidNotStart),
                wished = self.inbox.recv() => return Err(wished.map_or(Left::Forgotten, Left::Wished)),
            }
        };
        let starting = start_process(&self.check, &program, &self.surroundings);
        tokio::select! {
            up = starting => match up {
                Ok(()) => Ok(()),
                Err(reason) => {
                    warn!(service = self.check.name, reason, "a service did not start");
                    self.set(Monitored::Yes, None);
                    self.tell("execution failed", 1, "start");
                    Err(Left::DidNotStart)
                }
            },
            wished = self.inbox.recv() => Err(wished.map_or(Left::Forgotten, Left::Wished)),
        }
    }

    /// Does what a tripped test demands. `Some`: the keeper leaves `run` with this.
    async fn answer(&mut self, then: Then) -> Option<Option<Wished>> {
        match then {
            Then::Alert | Then::Other | Then::Start => None,
            Then::Restart => self.stop().await.map(Some),
            Then::Stop => {
                if let Some(wished) = self.stop().await {
                    return Some(Some(wished));
                }
                Some(self.inbox.recv().await)
            }
            Then::Unmonitor => {
                self.set(Monitored::No, None);
                Some(self.inbox.recv().await)
            }
        }
    }

    /// Stops the process and waits until it is gone. Returns a wish that came first.
    async fn stop(&mut self) -> Option<Wished> {
        let Some(process) = Process::behind(&self.check.pidfile) else {
            self.set(Monitored::No, None);
            return None;
        };
        info!(service = self.check.name, pid = process.pid(), "a service is being stopped");
        let stopping = stop_process(&self.check, &process, &self.surroundings);
        tokio::select! {
            () = stopping => {
                self.set(Monitored::No, None);
                None
            }
            wished = self.inbox.recv() => wished,
        }
    }

    fn limit_reached(&mut self) -> Option<RestartLimit> {
        let limit =
            self.check.restart_limit.filter(|limit| matches!(limit.then, Then::Unmonitor | Then::Stop))?;
        let window = self.surroundings.timing.cycle * limit.cycles;
        self.restarts.retain(|at| at.elapsed() < window);
        (self.restarts.len() >= limit.restarts as usize).then_some(limit)
    }

    /// Makes this cycle's tests. Returns what the first tripped one demands.
    async fn test(&self, pid: i32) -> Option<Then> {
        for (number, test) in self.check.tests.iter().enumerate() {
            let is_true = is_true(test, pid).await;
            let tripped = {
                let mut true_for = self.true_for.lock().unwrap_or_else(PoisonError::into_inner);
                true_for[number] = if is_true { true_for[number] + 1 } else { 0 };
                let tripped = true_for[number] >= test.cycles;
                if tripped {
                    true_for[number] = 0;
                }
                tripped
            };
            if tripped {
                let (event, severity) = match test.subject {
                    Subject::MemoryOver { .. } => ("resource limit matched", 3),
                    Subject::PortFails(_) | Subject::SocketFails(_) => ("connection failed", 1),
                };
                self.tell(event, severity, word(test.then));
                if !matches!(test.then, Then::Alert | Then::Other) {
                    return Some(test.then);
                }
            }
        }
        None
    }

    fn set(&self, monitored: Monitored, pid: Option<i32>) {
        let running = if pid.is_some() { Running::Yes } else { Running::No };
        let status = Status { monitored, running, pid };
        let changed = self.status.send_if_modified(|old| std::mem::replace(old, status) != status);
        if changed {
            self.surroundings.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn tell(&self, event: &str, severity: u32, action: &str) {
        let addresses = self.surroundings.addresses.join(", ");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.surroundings.notices.add(Notice {
            id: uuid::Uuid::new_v4().to_string(),
            severity,
            title: format!("{} ({addresses}) - {event} - {action}", self.check.name),
            summary: format!("{event}: {action}"),
            created_at_unix: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        });
    }
}

fn word(then: Then) -> &'static str {
    match then {
        Then::Alert | Then::Other => "alert",
        Then::Restart => "restart",
        Then::Start => "start",
        Then::Stop => "stop",
        Then::Unmonitor => "unmonitor",
    }
}

/// Waits for dependencies, a bounded while: a dependant that fails without them is restarted anyway.
async fn all_running(after: Vec<watch::Receiver<Status>>) {
    let all = async {
        for mut dependency in after {
            // A dependency that is forgotten need not be waited for.
            let _ = dependency.wait_for(|status| status.running == Running::Yes).await;
        }
    };
    // Over time or not: start.
    let _ = tokio::time::timeout(DEPENDENCY_WITHIN, all).await;
}

/// Runs the start program and waits for the pidfile to name a live process.
async fn start_process(check: &CheckProcess, program: &Program, around: &Surroundings) -> Result<(), String> {
    let mut child = spawn(check, program, around)?;
    let mut deadline = Instant::now() + program.timeout;
    let mut ended = None;
    loop {
        if Process::behind(&check.pidfile).is_some() {
            return Ok(());
        }
        tokio::select! {
            status = child.wait(), if ended.is_none() => {
                let status = status.map_err(|error| error.to_string())?;
                if !status.success() {
                    deadline = deadline.min(Instant::now() + AFTER_FAILED_START);
                }
                ended = Some(status);
            }
            () = tokio::time::sleep(PIDFILE_EVERY) => {}
            () = tokio::time::sleep_until(deadline) => return Err(match ended {
                Some(status) if !status.success() => format!("its start program ended with {status}"),
                Some(_) => format!("its start program left no process in {:?}", program.timeout),
                None => format!("its start program did not end in {:?}", program.timeout),
            }),
        }
    }
}

/// Runs the stop program, or asks the process itself, and waits until the process is gone.
async fn stop_process(check: &CheckProcess, process: &Process, around: &Surroundings) {
    match &check.stop {
        None => {
            process.terminate();
            let gone = tokio::time::timeout(Duration::from_secs(30), process.died()).await;
            if gone.is_err() {
                process.kill();
            }
        }
        Some(program) => match spawn(check, program, around) {
            Ok(mut child) => {
                if tokio::time::timeout(program.timeout, child.wait()).await.is_err() {
                    warn!(service = check.name, "a stop program takes too long and is ended");
                    child.end(PROGRAM_PATIENCE).await;
                }
            }
            Err(reason) => {
                warn!(
                    service = check.name,
                    reason, "a stop program can't be run; the process itself is asked"
                );
                process.terminate();
            }
        },
    }
    process.died().await;
}

fn spawn(
    check: &CheckProcess,
    program: &Program,
    around: &Surroundings,
) -> Result<children::OurChild, String> {
    // A full disk must not keep a service from being stopped: without a file its output is lost.
    let output = output_file(check, around).and_then(|file| Ok((file.try_clone()?, file)));
    let (stdout, stderr) = match output {
        Ok((stdout, stderr)) => (Stdio::from(stdout), Stdio::from(stderr)),
        Err(_) => (Stdio::null(), Stdio::null()),
    };
    let mut command = Command::new(&program.argv[0]);
    command
        .args(&program.argv[1..])
        .current_dir("/")
        .env_clear()
        .env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin")
        .env("MONIT_SERVICE", &check.name)
        .envs(around.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    let credentials = around.platform.credentials(program.user.as_deref(), program.group.as_deref());
    if let Some(credentials) = credentials.map_err(|error| error.chain())? {
        command.uid(credentials.uid).gid(credentials.gid);
    }
    children::spawn(&mut command).map_err(|error| format!("cannot run `{}`: {error}", program.argv[0]))
}

/// Opens where a service's programs write, which nobody rotates: beyond its bound it begins anew.
fn output_file(check: &CheckProcess, around: &Surroundings) -> std::io::Result<std::fs::File> {
    let path = around.output.join(format!("{}.log", check.name.replace('/', "_")));
    std::fs::create_dir_all(&around.output)?;
    let big = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > OUTPUT_BYTES_MAX);
    if big {
        std::fs::remove_file(&path)?;
    }
    std::fs::OpenOptions::new().append(true).create(true).open(&path)
}

async fn is_true(test: &Test, pid: i32) -> bool {
    match &test.subject {
        Subject::MemoryOver { kib, of: MemoryOf::Process } => proc::memory_kib(pid) > *kib,
        Subject::MemoryOver { kib, of: MemoryOf::Tree } => {
            proc::tree(pid).into_iter().map(proc::memory_kib).sum::<u64>() > *kib
        }
        Subject::PortFails(address) => {
            let connect = tokio::net::TcpStream::connect(address);
            !matches!(tokio::time::timeout(CONNECTED_WITHIN, connect).await, Ok(Ok(_)))
        }
        Subject::SocketFails(path) => {
            let connect = tokio::net::UnixStream::connect(path);
            !matches!(tokio::time::timeout(CONNECTED_WITHIN, connect).await, Ok(Ok(_)))
        }
    }
}
