//! Sessions on machines: a shell, commands, copies of files, logs as they grow.
//!
//! Each command has a user made for itself, and removed when it ends ([`door`]); `ssh` and `scp` of this machine do the rest,
//! told in [`line`] whom to trust.

mod door;
mod line;

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::door::{Door, open};
use self::line::{Host, Lines, Place, Recursive, Terminal, follow_logs};
use super::Context;
use crate::args::{FetchLogs, InstanceSlug, Scp, Ssh, Way};
use crate::error::Error;

/// Sessions side by side: each is a process here, and a connection.
const SESSIONS_MAX: usize = 100;

/// Lines on their way to the screen; whoever prints faster waits.
const LINES_MAX: usize = 64;

/// What `ssh` ends with when it did not get there.
const NO_SESSION: i32 = 255;

pub(super) async fn ssh(context: &mut Context<'_>, args: Ssh) -> Result<(), Error> {
    let Ssh { instances, command, way } = args;
    match command {
        Some(command) => run_on_all(context, instances, &way, command).await,
        None => shell(context, instances, &way).await,
    }
}

pub(super) async fn follow(context: &mut Context<'_>, args: FetchLogs) -> Result<(), Error> {
    let folder = if args.agent { "/var/vcap/bosh/log" } else { "/var/vcap/sys/log" };
    if args.system || args.all_logs {
        return Err(Error::Usage("only logs of jobs, or of the agent, can be followed".into()));
    }
    let command = follow_logs(folder, &args.only, args.num)?;
    run_on_all(context, args.instances, &args.way, command).await
}

async fn shell(context: &mut Context<'_>, instances: Option<InstanceSlug>, way: &Way) -> Result<(), Error> {
    open(context, instances, async |_, door| {
        let [host] = door.hosts.as_slice() else {
            let names: Vec<&str> = door.hosts.iter().map(|host| host.name.as_str()).collect();
            return Err(Error::Usage(format!("a shell is on one instance; which? {}", names.join(", "))));
        };
        let line = door.lines(way).ssh(host, None, Terminal::Here)?;
        let status = program("ssh", &line).status().await.map_err(Error::file("run", "ssh"))?;
        match status.code() {
            // How the last command of the shell went is nobody's business here.
            Some(code) if code != NO_SESSION => Ok(()),
            _ => Err(failed(host, status)),
        }
    })
    .await
}

async fn run_on_all(
    context: &mut Context<'_>,
    instances: Option<InstanceSlug>,
    way: &Way,
    command: String,
) -> Result<(), Error> {
    open(context, instances, async |context, door| {
        if door.hosts.len() > SESSIONS_MAX {
            return Err(Error::Usage(format!(
                "{} instances are meant, {SESSIONS_MAX} can be",
                door.hosts.len()
            )));
        }
        let (say, mut said) = mpsc::channel(LINES_MAX);
        // Dropping it ends them all.
        let mut sessions = JoinSet::new();
        for host in &door.hosts {
            let line = door.lines(way).ssh(host, Some(&command), Terminal::None)?;
            let prefix = if door.hosts.len() > 1 { format!("{}: ", host.name) } else { String::new() };
            sessions.spawn(session(host.clone(), line, prefix, say.clone()));
        }
        drop(say);
        while let Some(line) = said.recv().await {
            match line {
                Said::Out(line) => context.console.out.write_all(&line)?,
                Said::Err(line) => context.console.err.write_all(&line)?,
            }
            context.console.out.flush()?;
        }
        let mut worst = Ok(());
        while let Some(ended) = sessions.join_next().await {
            let ended = ended.map_err(|error| Error::Output(std::io::Error::other(error)))?;
            worst = worst.and(ended);
        }
        worst
    })
    .await
}

pub(super) async fn scp(context: &mut Context<'_>, args: Scp) -> Result<(), Error> {
    let Scp { paths, recursive, way } = args;
    let places: Vec<Place> = paths.iter().map(|path| Place::of(path)).collect::<Result<_, _>>()?;
    let there = |place: &Place| match place {
        Place::There { of, .. } => Some(of.clone()),
        Place::Here(_) => None,
    };
    let mut all: Vec<InstanceSlug> = places.iter().filter_map(there).collect();
    all.dedup();
    let [of] = all.as_slice() else {
        return Err(Error::Usage(
            "one of the paths must be GROUP[/ID]:PATH, and all such of the same".into(),
        ));
    };
    let comes_here = places.last().is_some_and(|place| there(place).is_none());
    let recursive = if recursive { Recursive::Yes } else { Recursive::No };
    open(context, Some(of.clone()), async |_, door| {
        if comes_here && door.hosts.len() > 1 {
            return Err(Error::Usage(
                "files of several instances would have the same name: give GROUP/ID".into(),
            ));
        }
        for host in &door.hosts {
            let line = door.lines(&way).scp(host, &places, recursive)?;
            let status = program("scp", &line).status().await.map_err(Error::file("run", "scp"))?;
            if !status.success() {
                return Err(failed(host, status));
            }
        }
        Ok(())
    })
    .await
}

impl Door {
    fn lines<'a>(&'a self, way: &'a Way) -> Lines<'a> {
        Lines { folder: self.folder.path(), user: &self.user, way }
    }
}

fn program(name: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).kill_on_drop(true);
    command
}

fn failed(host: &Host, status: ExitStatus) -> Error {
    Error::SessionFailed { instance: host.name.clone(), status: status.to_string() }
}

/// A line of somebody, with its end.
enum Said {
    Out(Vec<u8>),
    Err(Vec<u8>),
}

async fn session(
    host: Host,
    line: Vec<String>,
    prefix: String,
    say: mpsc::Sender<Said>,
) -> Result<(), Error> {
    let mut command = program("ssh", &line);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::file("run", "ssh"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ((), (), status) = tokio::join!(
        pass_on(out, &prefix, &say, Said::Out),
        pass_on(err, &prefix, &say, Said::Err),
        child.wait(),
    );
    let status = status.map_err(Error::file("wait for", "ssh"))?;
    if status.success() { Ok(()) } else { Err(failed(&host, status)) }
}

/// The longest line that is kept together.
const LINE_BYTES_MAX: u64 = 64 << 10;

async fn pass_on(
    from: Option<impl AsyncRead + Unpin>,
    prefix: &str,
    say: &mpsc::Sender<Said>,
    kind: fn(Vec<u8>) -> Said,
) {
    use tokio::io::AsyncReadExt as _;
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from);
    loop {
        let mut line = prefix.as_bytes().to_vec();
        match (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        if !line.ends_with(b"\n") && !prefix.is_empty() {
            line.push(b'\n');
        }
        if say.send(kind(line)).await.is_err() {
            return;
        }
    }
}
