//! The part of monit's control language that releases use.
//!
//! Statements outside that part are skipped and named in [`MonitFile::ignored`]; what is written wrongly is an error
//! with its line. Not here: what the statements do.

use std::path::PathBuf;
use std::time::Duration;

mod tokens;

use tokens::{Token, Tokens};

/// Monit's default for start and stop programs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(30);

/// What a control file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MonitFile {
    /// The processes to supervise.
    pub processes: Vec<CheckProcess>,
    /// What was skipped, for a warning: `line 7: check file`.
    pub ignored: Vec<String>,
}

/// One `check process`.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckProcess {
    /// The service's name.
    pub name: String,
    /// Where the process writes its id.
    pub pidfile: PathBuf,
    /// Starts it.
    pub start: Option<Program>,
    /// Stops it.
    pub stop: Option<Program>,
    /// Its group; BOSH sees `vcap` only.
    pub group: Option<String>,
    /// Services that must run first.
    pub depends: Vec<String>,
    /// Whether it is started and restarted without being asked.
    pub mode: Mode,
    /// What else to look at, every cycle.
    pub tests: Vec<Test>,
    /// When to stop restarting it.
    pub restart_limit: Option<RestartLimit>,
}

/// Whether a service is started without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Started and restarted.
    #[default]
    Active,
    /// Watched only.
    Passive,
    /// Nothing unless asked.
    Manual,
}

/// A program that starts or stops a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The command and its arguments; no shell.
    pub argv: Vec<String>,
    /// The user to run it as.
    pub user: Option<String>,
    /// The group to run it as.
    pub group: Option<String>,
    /// How long it may take to have its effect.
    pub timeout: Duration,
}

/// A test that is made every cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// What is measured.
    pub subject: Subject,
    /// How many cycles in a row it must be so.
    pub cycles: u32,
    /// What to do then.
    pub then: Then,
}

/// What a test measures.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// The process (and, for `totalmem`, its children) uses more than this.
    MemoryOver {
        /// The bound.
        kib: u64,
        /// Whose memory.
        of: MemoryOf,
    },
    /// Nobody accepts connections at this `host:port`.
    PortFails(String),
    /// Nobody accepts connections at this socket.
    SocketFails(PathBuf),
}

/// Whose memory a test adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOf {
    /// The process alone.
    Process,
    /// The process and all it started.
    Tree,
}

/// What to do when a test is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Tell.
    Alert,
    /// Stop and start.
    Restart,
    /// Start.
    Start,
    /// Stop and leave it.
    Stop,
    /// Leave it alone from now on.
    Unmonitor,
    /// Something that we do not do (`exec`): tell.
    Other,
}

/// `if N restarts within M cycles then …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimit {
    /// So many restarts …
    pub restarts: u32,
    /// … within so many cycles …
    pub cycles: u32,
    /// … and then this.
    pub then: Then,
}

/// Why a control file can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    line: usize,
    problem: String,
}

/// Reads a control file.
pub fn parse(text: &str) -> Result<MonitFile, ParseError> {
    let mut parser = Parser { tokens: Tokens::of(text)?, file: MonitFile::default() };
    parser.file()?;
    Ok(parser.file)
}

struct Parser {
    tokens: Tokens,
    file: MonitFile,
}

/// Words that begin a statement of a service: an unknown statement is skipped up to the next of these.
const STATEMENTS: &[&str] = &[
    "check", "start", "stop", "restart", "group", "depends", "mode", "if", "set", "include", "every",
    "onreboot",
];

impl Parser {
    fn file(&mut self) -> Result<(), ParseError> {
        while let Some(token) = self.tokens.next() {
            if token.is("check") {
                self.check(&token)?;
            } else {
                self.skip(&token);
            }
        }
        Ok(())
    }

    fn check(&mut self, check: &Token) -> Result<(), ParseError> {
        let kind = self.tokens.expect("what to check")?;
        if !kind.is("process") {
            self.file.ignored.push(format!("line {}: check {}", check.line, kind.text));
            while self.tokens.peek().is_some_and(|next| !next.is("check")) {
                self.tokens.next();
            }
            return Ok(());
        }
        let name = self.tokens.expect("a name")?.text;
        let pidfile = match self.tokens.next() {
            Some(word) if word.is("pidfile") => PathBuf::from(self.tokens.expect("a path")?.text),
            Some(word) => {
                return Err(word.error(format!("`{name}` needs a pidfile; `{}` is not supported", word.text)));
            }
            None => return Err(check.error(format!("`{name}` needs a pidfile"))),
        };
        let mut process = CheckProcess {
            name,
            pidfile,
            start: None,
            stop: None,
            group: None,
            depends: vec![],
            mode: Mode::Active,
            tests: vec![],
            restart_limit: None,
        };
        while let Some(token) = self.tokens.next_if(|next| !next.is("check")) {
            self.statement(&mut process, &token)?;
        }
        self.file.processes.push(process);
        Ok(())
    }

    fn statement(&mut self, process: &mut CheckProcess, token: &Token) -> Result<(), ParseError> {
        match token.keyword().as_str() {
            "start" => process.start = Some(self.program()?),
            "stop" => process.stop = Some(self.program()?),
            "group" => process.group = Some(self.tokens.expect("a group")?.text),
            "depends" => loop {
                process.depends.push(self.tokens.expect("a service")?.text);
                if self.tokens.next_if(|next| next.is(",")).is_none() {
                    break;
                }
            },
            "mode" => {
                let mode = self.tokens.expect("a mode")?;
                process.mode = match mode.keyword().as_str() {
                    "active" => Mode::Active,
                    "passive" => Mode::Passive,
                    "manual" => Mode::Manual,
                    _ => return Err(mode.error(format!("`{}` is not a mode", mode.text))),
                };
            }
            "if" => self.condition(process, token)?,
            _ => self.skip(token),
        }
        Ok(())
    }

    /// Skips an unknown statement.
    fn skip(&mut self, token: &Token) {
        self.file.ignored.push(format!("line {}: {}", token.line, token.text));
        while self.tokens.next_if(|next| !STATEMENTS.contains(&next.keyword().as_str())).is_some() {}
    }

    fn program(&mut self) -> Result<Program, ParseError> {
        self.tokens.next_if(|next| next.is("program"));
        self.tokens.next_if(|next| next.is("="));
        let command = self.tokens.expect("a command")?;
        let argv = tokens::split_command(&command.text);
        if argv.is_empty() {
            return Err(command.error("the command is empty".into()));
        }
        let mut program = Program { argv, user: None, group: None, timeout: PROGRAM_TIMEOUT };
        loop {
            if self.tokens.next_if(|next| next.is("uid")).is_some() {
                program.user = Some(self.tokens.expect("a user")?.text);
            } else if self.tokens.next_if(|next| next.is("gid")).is_some() {
                program.group = Some(self.tokens.expect("a group")?.text);
            } else if self.tokens.next_if(|next| next.is("timeout")).is_some() {
                program.timeout = Duration::from_secs(self.number()?);
                self.tokens.next_if(|next| next.is("second") || next.is("seconds"));
            } else {
                return Ok(program);
            }
        }
    }

    fn number(&mut self) -> Result<u64, ParseError> {
        let token = self.tokens.expect("a number")?;
        token.text.parse().map_err(|_| token.error(format!("`{}` is not a number", token.text)))
    }

    fn condition(&mut self, process: &mut CheckProcess, start: &Token) -> Result<(), ParseError> {
        let mut words = Vec::new();
        loop {
            match self.tokens.next() {
                Some(token) if token.is("then") => break,
                Some(token) => words.push(token),
                None => return Err(start.error("`if` without `then`".into())),
            }
        }
        let then = self.action()?;
        self.otherwise()?;
        match condition::read(&words, then) {
            Some(condition::Condition::Test(test)) => process.tests.push(test),
            Some(condition::Condition::Restarts(limit)) => process.restart_limit = Some(limit),
            None => {
                let what = words.first().map_or("", |word| word.text.as_str());
                self.file.ignored.push(format!("line {}: if {what}", start.line));
            }
        }
        Ok(())
    }

    fn action(&mut self) -> Result<Then, ParseError> {
        let action = self.tokens.expect("an action")?;
        Ok(match action.keyword().as_str() {
            "alert" => Then::Alert,
            "restart" => Then::Restart,
            "start" => Then::Start,
            "stop" => Then::Stop,
            // Monit's own old name for giving up on a service that does not stay up.
            "unmonitor" | "timeout" => Then::Unmonitor,
            "exec" => {
                self.tokens.expect("a command")?;
                while self.tokens.next_if(|next| next.is("uid") || next.is("gid")).is_some() {
                    self.tokens.expect("a name")?;
                }
                Then::Other
            }
            _ => return Err(action.error(format!("`{}` is not an action", action.text))),
        })
    }

    /// Skips `else [if passed …] then action`: recovering is noticed anyway.
    fn otherwise(&mut self) -> Result<(), ParseError> {
        if self.tokens.next_if(|next| next.is("else")).is_none() {
            return Ok(());
        }
        if self.tokens.peek().is_some_and(|next| next.is("if")) {
            while self.tokens.next().is_some_and(|next| !next.is("then")) {}
        }
        self.action().map(drop)
    }
}

mod condition;
#[cfg(test)]
mod tests;
