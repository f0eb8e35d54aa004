//! One supervised service: a task that starts its process, notices its death, tests it and starts it again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use owned_tasks::{OnExit, OwnedTasks};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Surroundings;
use super::condition::is_true;
use super::memory::{Care, Memory};
use super::monit_file::{CheckProcess, RestartLimit, Subject, Then};
use super::process::Process;
use super::program::{StartProgram, bound_output, start_process, stop_process};
use crate::machine::Notice;

/// Wishes waiting for a service. More than one is rare; the last one counts.
const WISHES_MAX: usize = 8;

/// How long a dependency may take to come up before its dependants start without it.
const DEPENDENCY_WITHIN: Duration = Duration::from_secs(60);

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
    pub(super) fn start(
        check: CheckProcess,
        surroundings: Arc<Surroundings>,
        memory: Arc<Memory>,
        tasks: &OwnedTasks,
    ) -> Self {
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
            start_program: None,
            memory,
            tasks: tasks.clone(),
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
    /// Cancelled, it ends the last start program, should that still run.
    start_program: Option<CancellationToken>,
    memory: Arc<Memory>,
    tasks: OwnedTasks,
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
                return self.give_up().await;
            }
        }
    }

    /// Leaves the service alone, also after a restart of the agent, until something is wished.
    async fn give_up(&mut self) -> Option<Wished> {
        if let Err(error) = self.memory.note([self.check.name.as_str()], Care::LeftAlone) {
            warn!(service = self.check.name, error = %error, "that a service was given up can't be stored");
        }
        self.set(Monitored::No, None);
        self.inbox.recv().await
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
                _ = cycle.tick() => {
                    bound_output(&self.check, &self.surroundings);
                    if let Some(then) = self.test(process.pid()).await {
                        return Left::Tripped(then);
                    }
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
        if let Some(earlier) = self.start_program.take() {
            earlier.cancel();
        }
        let started = {
            let starting = start_process(&self.check, &program, &self.surroundings);
            tokio::pin!(starting);
            loop {
                tokio::select! {
                    started = &mut starting => break started,
                    wished = self.inbox.recv() => match wished {
                        // That is what is being done.
                        Some(Wished { wish: Wish::Run { .. }, .. }) => {}
                        Some(wished) => return Err(Left::Wished(wished)),
                        None => return Err(Left::Forgotten),
                    },
                }
            }
        };
        match started {
            Ok(program) => {
                self.start_program = program.map(|program| self.await_end(program));
                Ok(())
            }
            Err(reason) => {
                warn!(service = self.check.name, reason, "a service did not start");
                self.set(Monitored::Yes, None);
                self.tell("execution failed", 1, "start");
                Err(Left::DidNotStart)
            }
        }
    }

    /// Waits for the end of a start program whose process lives: it may be that process. Returns what ends it early.
    fn await_end(&self, mut program: StartProgram) -> CancellationToken {
        let unwanted = CancellationToken::new();
        let ended_early = unwanted.clone();
        self.tasks.spawn("start program", OnExit::Ignore, |stop| async move {
            tokio::select! {
                // How it ends does not matter: the pidfile's process is what is supervised.
                _ = program.wait() => {}
                () = unwanted.cancelled() => program.end().await,
                () = stop.cancelled() => {}
            }
        });
        ended_early
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
                Some(self.give_up().await)
            }
            Then::Unmonitor => Some(self.give_up().await),
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
