use expect_test::{Expect, expect};

use super::*;

#[track_caller]
fn check(text: &str, expect: Expect) {
    let shown = match parse(text) {
        Ok(file) => {
            let mut shown = String::new();
            for process in &file.processes {
                shown += &show(process);
            }
            for ignored in &file.ignored {
                shown += &format!("ignored {ignored}\n");
            }
            shown
        }
        Err(error) => format!("error {error}\n"),
    };
    expect.assert_eq(&shown);
}

fn show(process: &CheckProcess) -> String {
    let mut shown = format!("{} {} group={:?}", process.name, process.pidfile.display(), process.group);
    for (what, program) in [("start", &process.start), ("stop", &process.stop)] {
        if let Some(program) = program {
            shown += &format!(
                "\n  {what} {:?} {:?}:{:?} {:?}",
                program.argv, program.user, program.group, program.timeout
            );
        }
    }
    if process.mode != Mode::Active {
        shown += &format!("\n  {:?}", process.mode);
    }
    if !process.depends.is_empty() {
        shown += &format!("\n  depends {:?}", process.depends);
    }
    for test in &process.tests {
        shown += &format!("\n  {:?} x{} {:?}", test.subject, test.cycles, test.then);
    }
    if let Some(limit) = process.restart_limit {
        shown += &format!("\n  {}/{} {:?}", limit.restarts, limit.cycles, limit.then);
    }
    shown + "\n"
}

#[test]
fn the_common_bpm_file() {
    check(
        r#"
check process nats
  with pidfile /var/vcap/sys/run/bpm/nats/nats.pid
  start program "/var/vcap/jobs/bpm/bin/bpm start nats -p nats"
  stop program "/var/vcap/jobs/bpm/bin/bpm stop nats -p nats"
  group vcap
"#,
        expect![[r#"
            nats /var/vcap/sys/run/bpm/nats/nats.pid group=Some("vcap")
              start ["/var/vcap/jobs/bpm/bin/bpm", "start", "nats", "-p", "nats"] None:None 30s
              stop ["/var/vcap/jobs/bpm/bin/bpm", "stop", "nats", "-p", "nats"] None:None 30s
        "#]],
    );
}

#[test]
fn users_timeouts_dependencies_and_modes() {
    check(
        r#"
CHECK PROCESS db PIDFILE '/run/db.pid' # the pid
  start = "/bin/db 'two words' start" as uid vcap and gid vcap with timeout 60 seconds
  stop program = "/bin/db stop" with timeout 90 seconds as uid "root"
  depends on disk, net
  mode manual
  group 'vcap'
check process web with pidfile /run/web.pid start "/bin/web" depends db group vcap
"#,
        expect![[r#"
            db /run/db.pid group=Some("vcap")
              start ["/bin/db", "two words", "start"] Some("vcap"):Some("vcap") 60s
              stop ["/bin/db", "stop"] Some("root"):None 90s
              Manual
              depends ["disk", "net"]
            web /run/web.pid group=Some("vcap")
              start ["/bin/web"] None:None 30s
              depends ["db"]
        "#]],
    );
}

#[test]
fn tests_and_limits() {
    check(
        r#"
check process a with pidfile /a
  if totalmem > 500 MB for 3 cycles then restart
  if mem is greater than 1GB then alert
  if mem > 90% then alert
  if cpu > 95% for 5 cycles then restart
  if failed host 10.0.0.1 port 80 type tcp protocol http request "/health" with timeout 5 seconds for 4 cycles then restart else if passed then alert
  if failed port 6379 then restart
  if failed unixsocket /run/a.sock then unmonitor
  if 5 restarts within 7 cycles then timeout
  if changed pid then exec "/bin/x y" as uid vcap
  group vcap
"#,
        expect![[r#"
            a /a group=Some("vcap")
              MemoryOver { kib: 512000, of: Tree } x3 Restart
              PortFails("10.0.0.1:80") x4 Restart
              PortFails("127.0.0.1:6379") x1 Restart
              SocketFails("/run/a.sock") x1 Unmonitor
              5/7 Unmonitor
            ignored line 4: if mem
            ignored line 5: if mem
            ignored line 6: if cpu
            ignored line 11: if changed
        "#]],
    );
}

#[test]
fn an_empty_file_is_legal_and_other_checks_are_skipped() {
    check("", expect![""]);
    check("# nothing\n\n", expect![""]);
    check(
        "set daemon 10\ninclude /x/*\ncheck file f path /f\n  if changed checksum then alert\ncheck process p pidfile /p\n  every 2 cycles\n  group vcap\ncheck system here",
        expect![[r#"
            p /p group=Some("vcap")
            ignored line 1: set
            ignored line 2: include
            ignored line 3: check file
            ignored line 6: every
            ignored line 8: check system
        "#]],
    );
}

#[test]
fn mistakes_are_named_with_their_line() {
    check(
        "check process p\n  start \"/x\"",
        expect![[r#"
        error line 2: `p` needs a pidfile; `start` is not supported
    "#]],
    );
    check(
        "check process p matching \"x.*\"",
        expect![[r#"
        error line 1: `p` needs a pidfile; `matching` is not supported
    "#]],
    );
    check(
        "check process p pidfile /p\n\n  start program \"/x",
        expect![[r#"
        error line 3: a quote is not closed
    "#]],
    );
    check(
        "check process p pidfile /p start program \"/x\" timeout soon",
        expect![[r#"
        error line 1: `soon` is not a number
    "#]],
    );
    check(
        "check process p pidfile /p\nif cpu > 5% then panic",
        expect![[r#"
        error line 2: `panic` is not an action
    "#]],
    );
    check(
        "check process p pidfile /p\nif cpu > 5%",
        expect![[r#"
        error line 2: `if` without `then`
    "#]],
    );
}
