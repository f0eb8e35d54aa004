use super::*;
use crate::platform::process::ProcessPlatform;

/// Long enough for a busy machine; every wait ends with its condition.
const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    dir: Arc<tempfile::TempDir>,
    supervisor: Supervisor,
    notices: Arc<Notices>,
    tasks: OwnedTasks,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["control", "run", "monit"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self::living_in(Arc::new(dir))
    }

    fn living_in(dir: Arc<tempfile::TempDir>) -> Self {
        let (tasks, notices) = (OwnedTasks::new(), Arc::new(Notices::default()));
        let timing = Timing {
            cycle: Duration::from_millis(50),
            restart_pause_max: Duration::from_millis(20),
            proved_after: Duration::from_secs(60),
        };
        let surroundings = Surroundings {
            platform: Arc::new(ProcessPlatform),
            notices: notices.clone(),
            timing,
            output: dir.path().join("log"),
            environment: vec![],
            addresses: vec!["10.0.0.9".into()],
            changes: watch::channel(0).0,
            memory: dir.path().join("monit/looked_after.json"),
        };
        let supervisor = Supervisor::new(surroundings, dir.path().join("monit/stopped"), tasks.clone());
        Self { dir, supervisor, notices, tasks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pidfile(&self, name: &str) -> PathBuf {
        self.path(&format!("run/{name}.pid"))
    }

    /// Writes a control file for a service that sleeps. `more` are further statements.
    fn sleeper(&self, name: &str, more: &str) {
        let script = self.path(&format!("{name}.sh"));
        let text = format!(
            "#!/bin/bash\necho {name} >> {order}\nsetsid sleep 1000 </dev/null >/dev/null 2>&1 &\necho $! > {pid}.new && mv {pid}.new {pid}\n",
            order = self.path("order").display(),
            pid = self.pidfile(name).display(),
        );
        self.control(name, &script, &text, more);
    }

    /// Writes a control file for a service whose start program is `script`; in it `PIDFILE` and `RELEASED` are paths.
    fn scripted(&self, name: &str, script: &str, more: &str) {
        let path = self.path(&format!("{name}.sh"));
        let script = script
            .replace("PIDFILE", &self.pidfile(name).display().to_string())
            .replace("RELEASED", &self.path("released").display().to_string());
        let text = format!("#!/bin/bash\necho {name} >> {}\n{script}\n", self.path("order").display());
        self.control(name, &path, &text, more);
    }

    /// Ends the agent's life and begins its next one, with what is on disk.
    async fn next_life(self) -> Self {
        assert!(self.tasks.stop(PATIENCE).await);
        let next = Self::living_in(self.dir.clone());
        next.load();
        next.supervisor.resume();
        next
    }

    /// Returns which services were started, in order.
    fn starts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("order")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn control(&self, name: &str, script: &Path, text: &str, more: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(script, text).unwrap();
        std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let control = format!(
            "check process {name} with pidfile {}\n  start program \"{}\" with timeout 20 seconds\n  group vcap\n{more}\n",
            self.pidfile(name).display(),
            script.display(),
        );
        std::fs::write(self.path(&format!("control/{name}.monitrc")), control).unwrap();
    }

    fn load(&self) {
        self.supervisor.load(&self.path("control")).unwrap();
    }

    fn pid(&self, name: &str) -> i32 {
        std::fs::read_to_string(self.pidfile(name)).unwrap().trim().parse().unwrap()
    }

    fn is_alive(pid: i32) -> bool {
        proc::Stat::of(pid).is_some_and(|stat| !stat.is_zombie())
    }

    fn kill(&self, name: &str) -> i32 {
        let pid = self.pid(name);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        pid
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "never came: {what}; {:?}", self.supervisor.processes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_state(&self, state: JobState) {
        self.until(&format!("{state:?}"), || self.supervisor.job_state() == state).await;
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // First no restarts, then no processes; those live on in the agent's next life.
        self.tasks.stop_token().cancel();
        if Arc::strong_count(&self.dir) > 1 {
            return;
        }
        for entry in std::fs::read_dir(self.path("run")).into_iter().flatten().flatten() {
            let pid =
                std::fs::read_to_string(entry.path()).ok().and_then(|text| text.trim().parse::<i32>().ok());
            if let Some(pid) = pid.filter(|pid| *pid > 1) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
        }
    }
}

#[tokio::test]
async fn without_services_everything_runs() {
    let fixture = Fixture::new();
    fixture.load();
    assert_eq!(fixture.supervisor.job_state(), JobState::Running);
    std::fs::write(fixture.path("monit/stopped"), "").unwrap();
    assert_eq!(fixture.supervisor.job_state(), JobState::Stopped);
}

#[tokio::test]
async fn a_service_is_started_restarted_when_it_dies_and_stopped() {
    let fixture = Fixture::new();
    fixture.sleeper("web", "");
    fixture.load();
    fixture.supervisor.start().unwrap();
    assert_eq!(
        fixture.supervisor.job_state(),
        JobState::Starting,
        "at once, not only when its task has woken up"
    );
    fixture.until_state(JobState::Running).await;

    let first = fixture.kill("web");
    fixture.until("a new process", || fixture.pid("web") != first).await;
    fixture.until_state(JobState::Running).await;
    let notice = fixture.notices.next().await;
    assert_eq!((notice.title.as_str(), notice.severity), ("web (10.0.0.9) - does not exist - restart", 1));

    let second = fixture.pid("web");
    fixture.supervisor.stop(PATIENCE).await.unwrap();
    assert!(!Fixture::is_alive(second));
    assert_eq!(fixture.supervisor.processes()[0]["state"], "unknown");
}

/// Starts a service by a program that still runs, or has become the process, when the pidfile names it, and sees to it
/// that the process is looked after, stays the same, and is collected when it ends.
async fn outlives_its_start(script: &str) {
    let fixture = Fixture::new();
    // The test trips after some cycles in which one and the same process was looked after.
    fixture.scripted("web", script, "if failed unixsocket /nowhere/at/all.sock for 5 cycles then alert");
    fixture.load();
    fixture.supervisor.start().unwrap();
    fixture.until_state(JobState::Running).await;
    let pid = fixture.pid("web");
    let notice = fixture.notices.next().await;
    assert_eq!(notice.title, "web (10.0.0.9) - connection failed - alert", "nothing happened before");
    assert_eq!((fixture.pid("web"), Fixture::is_alive(pid)), (pid, true));

    std::fs::write(fixture.path("released"), "").unwrap();
    let again = fixture.notices.next().await;
    assert_eq!(again.title, notice.title, "the end of its start program is nothing to a service");
    assert_eq!(fixture.starts(), ["web"]);
    fixture.supervisor.stop(PATIENCE).await.unwrap();
    fixture.until("its end", || !Fixture::is_alive(pid)).await;
}

#[tokio::test]
async fn a_start_program_that_becomes_the_process_is_left_running() {
    outlives_its_start("echo $$ > PIDFILE; exec sleep 1000").await;
}

#[tokio::test]
async fn a_start_program_that_outlasts_the_birth_of_its_process_does_not_take_it_along() {
    // Without `setsid` both are of one process group.
    outlives_its_start(
        "sleep 1000 & echo $! > PIDFILE.new && mv PIDFILE.new PIDFILE; until [ -e RELEASED ]; do sleep 0.01; done",
    )
    .await;
}

#[tokio::test]
async fn a_service_that_talks_to_its_start_s_output_fills_no_disk() {
    let fixture = Fixture::new();
    let wrote = fixture.path("wrote");
    let script = "echo $$ > PIDFILE; head -c 2097152 /dev/zero; echo > WROTE; until [ -e RELEASED ]; do sleep 0.01; done; \
                  echo end; exec sleep 1000";
    fixture.scripted("web", &script.replace("WROTE", &wrote.display().to_string()), "");
    fixture.load();
    fixture.supervisor.start().unwrap();
    let output = fixture.path("log/web.log");
    let length = || std::fs::metadata(&output).map_or(0, |metadata| metadata.len());
    fixture.until("emptied", || wrote.exists() && length() < 1 << 20).await;
    std::fs::write(fixture.path("released"), "").unwrap();
    fixture
        .until("the end", || std::fs::read_to_string(&output).is_ok_and(|text| text.ends_with("end\n")))
        .await;
    assert!(length() < 1 << 20);
}

#[tokio::test]
async fn what_is_being_started_is_not_started_again() {
    let fixture = Fixture::new();
    fixture.scripted(
        "web",
        "until [ -e RELEASED ]; do sleep 0.01; done; echo $$ > PIDFILE; exec sleep 1000",
        "",
    );
    fixture.load();
    fixture.supervisor.start().unwrap();
    fixture.until("its begin", || fixture.starts() == ["web"]).await;
    let wish = fixture.supervisor.services()["web"].wish(Wish::Run { after: vec![] });
    wish.wait().await;
    std::fs::write(fixture.path("released"), "").unwrap();
    fixture.until_state(JobState::Running).await;
    assert_eq!(fixture.starts(), ["web"]);
}

#[tokio::test]
async fn a_start_program_that_is_overtaken_is_ended_with_all_it_began() {
    let fixture = Fixture::new();
    let begun = fixture.path("begun");
    fixture.scripted("web", &format!("sleep 1000 & echo $! > {}; wait", begun.display()), "");
    fixture.load();
    fixture.supervisor.start().unwrap();
    let pid = || std::fs::read_to_string(&begun).ok()?.trim().parse::<i32>().ok();
    fixture.until("its begin", || pid().is_some()).await;
    fixture.supervisor.stop(PATIENCE).await.unwrap();
    fixture.until("its end", || !Fixture::is_alive(pid().unwrap())).await;
}

#[tokio::test]
async fn a_start_program_that_hangs_is_ended_before_the_next_one_runs() {
    let fixture = Fixture::new();
    let hung = fixture.path("hung");
    let script = format!(
        "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > PIDFILE.new; \
         [ -e {hung} ] || {{ echo $$ > {hung}; mv PIDFILE.new PIDFILE; exec sleep 1000; }}; mv PIDFILE.new PIDFILE",
        hung = hung.display(),
    );
    fixture.scripted("web", &script, "");
    fixture.load();
    fixture.supervisor.start().unwrap();
    fixture.until_state(JobState::Running).await;
    let program: i32 = std::fs::read_to_string(&hung).unwrap().trim().parse().unwrap();
    let died = fixture.kill("web");
    fixture.until("a new process", || fixture.pid("web") != died).await;
    fixture.until("the end of the first start program", || proc::Stat::of(program).is_none()).await;
}

#[tokio::test]
async fn an_unmonitored_service_stays_dead() {
    let fixture = Fixture::new();
    fixture.sleeper("web", "");
    fixture.load();
    fixture.supervisor.start().unwrap();
    fixture.until_state(JobState::Running).await;
    fixture.supervisor.unmonitor().await.unwrap();
    let pid = fixture.kill("web");
    fixture.until("its end", || !Fixture::is_alive(pid)).await;
    assert_eq!(fixture.pid("web"), pid);
    assert_eq!(fixture.supervisor.job_state(), JobState::Failing);
}

#[tokio::test]
async fn dependencies_start_first_and_stop_last() {
    let fixture = Fixture::new();
    fixture.sleeper("a_web", "depends on z_db");
    fixture.sleeper("z_db", "");
    fixture.load();
    fixture.supervisor.start().unwrap();
    fixture.until_state(JobState::Running).await;
    assert_eq!(fixture.starts(), ["z_db", "a_web"]);
    assert_eq!(fixture.supervisor.stop_order(), [["a_web"], ["z_db"]]);
    fixture.supervisor.stop(PATIENCE).await.unwrap();
    assert!(!Fixture::is_alive(fixture.pid("a_web")) && !Fixture::is_alive(fixture.pid("z_db")));
}

#[tokio::test]
async fn a_service_that_keeps_dying_is_given_up_at_its_limit() {
    let fixture = Fixture::new();
    // The window is long against a start's patience, so that the limit is what ends it.
    fixture.scripted("flaky", "exit 1", "if 2 restarts within 1000 cycles then timeout");
    fixture.load();
    fixture.supervisor.start().unwrap();
    let state = || fixture.supervisor.processes()[0]["state"].clone();
    fixture.until("given up", || state() == "unknown").await;
    assert_eq!(fixture.starts(), ["flaky"; 3], "a start and two restarts");
    assert_eq!(fixture.supervisor.job_state(), JobState::Failing);
}

#[tokio::test]
async fn a_running_process_is_adopted_and_an_unchanged_service_is_left_alone() {
    let fixture = Fixture::new();
    fixture.sleeper("web", "");
    fixture.load();
    fixture.supervisor.start().unwrap();
    fixture.until_state(JobState::Running).await;
    let pid = fixture.pid("web");

    fixture.load();
    fixture.supervisor.start().unwrap();
    assert_eq!(fixture.supervisor.job_state(), JobState::Running, "the same control file disturbs nobody");

    let next = fixture.next_life().await;
    next.until_state(JobState::Running).await;
    assert_eq!(next.pid("web"), pid);
    assert_eq!(next.starts(), ["web"]);
}

#[tokio::test]
async fn what_was_started_by_hand_is_looked_after_in_the_agent_s_next_life() {
    let fixture = Fixture::new();
    fixture.sleeper("web", "mode manual");
    fixture.load();
    fixture.supervisor.resume();
    assert_eq!(fixture.supervisor.processes()[0]["state"], "unknown", "nobody has asked for it yet");
    fixture.supervisor.start().unwrap();
    fixture.until_state(JobState::Running).await;
    let pid = fixture.pid("web");

    let next = fixture.next_life().await;
    next.until_state(JobState::Running).await;
    assert_eq!(next.pid("web"), pid);
}

#[tokio::test]
async fn a_service_that_ends_on_purpose_is_not_started_in_the_agent_s_next_life() {
    let fixture = Fixture::new();
    fixture.sleeper("web", "");
    fixture.load();
    fixture.supervisor.start().unwrap();
    fixture.until_state(JobState::Running).await;
    // As a drain does, in the middle of which the agent is restarted.
    fixture.supervisor.unmonitor().await.unwrap();
    let pid = fixture.kill("web");
    fixture.until("its end", || !Fixture::is_alive(pid)).await;

    let next = fixture.next_life().await;
    assert_eq!(next.supervisor.processes()[0]["state"], "unknown", "a wish to run would show at once");
    next.supervisor.start().unwrap();
    next.until_state(JobState::Running).await;
}

#[tokio::test]
async fn what_was_given_up_stays_given_up_and_what_is_gone_is_forgotten() {
    let fixture = Fixture::new();
    fixture.scripted("web", "exit 1", "if 1 restarts within 1000 cycles then timeout");
    fixture.load();
    fixture.supervisor.start().unwrap();
    let state = |of: &Fixture| of.supervisor.processes()[0]["state"].clone();
    fixture.until("given up", || state(&fixture) == "unknown").await;
    let next = fixture.next_life().await;
    assert_eq!(state(&next), "unknown");

    let memory = || std::fs::read_to_string(next.path("monit/looked_after.json")).unwrap();
    assert_eq!(memory(), r#"{"web":"left_alone"}"#);
    std::fs::remove_file(next.path("control/web.monitrc")).unwrap();
    next.load();
    assert_eq!(memory(), "{}");
}

#[tokio::test]
async fn a_tripped_test_restarts_the_service() {
    let fixture = Fixture::new();
    fixture.sleeper("web", "if failed unixsocket /nowhere/at/all.sock for 2 cycles then restart");
    fixture.load();
    fixture.supervisor.start().unwrap();
    fixture.until("a second start", || fixture.starts().len() >= 2).await;
    let notice = fixture.notices.next().await;
    assert_eq!(notice.title, "web (10.0.0.9) - connection failed - restart");
}

#[tokio::test]
async fn a_service_of_another_group_is_invisible_to_bosh() {
    let fixture = Fixture::new();
    fixture.sleeper("side", "group other");
    fixture.load();
    fixture.supervisor.start().unwrap();
    assert_eq!(fixture.supervisor.count(), 0);
    assert_eq!(fixture.supervisor.job_state(), JobState::Running);
}

#[test]
fn circles_do_not_hang_the_order() {
    let depends = |pairs: &[(&str, &[&str])]| {
        layers(
            pairs
                .iter()
                .map(|(name, on)| ((*name).into(), on.iter().map(|on| (*on).into()).collect()))
                .collect(),
        )
    };
    assert_eq!(depends(&[("a", &["b"]), ("b", &["c"]), ("c", &[])]), [["a"], ["b"], ["c"]]);
    assert_eq!(depends(&[("a", &["b"]), ("b", &["a"])]), [["a", "b"]]);
}
