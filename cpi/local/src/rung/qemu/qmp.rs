//! QEMU's monitor: a question, its answer, one after the other.
//!
//! Two dozen lines of JSON over a socket; a crate for it would bring every type that QEMU knows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpi_api::CpiErrorKind;
use cpi_host::HostError;
use serde_json::{Value, json};

/// The socket in a VM's folder.
pub(super) const SOCKET: &str = "qmp";
/// How long QEMU may take to answer: it does so at once, unless the machine is badly overloaded.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// A conversation with one QEMU. It has one at a time: whoever holds the VM's lock.
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Qmp {
    /// Begins to talk to the QEMU of the VM whose folder this is.
    pub fn connect(dir: &Path) -> Result<Self, HostError> {
        let path = dir.join(SOCKET);
        let stream = open(dir).map_err(HostError::os("connect to", &path))?;
        let mut qmp = Self { stream: BufReader::new(stream), path };
        qmp.line()?;
        qmp.ask("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Asks something and returns the answer; what QEMU tells meanwhile is passed over.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, HostError> {
        let question = json!({ "execute": command, "arguments": arguments }).to_string();
        let sent = self.stream.get_mut().write_all(format!("{question}\n").as_bytes());
        sent.map_err(HostError::os("write to", &self.path))?;
        loop {
            let mut line = self.line()?;
            if let Some(error) = line.get("error") {
                let message =
                    format!("QEMU refuses `{command}`: {}", error["desc"].as_str().unwrap_or_default());
                return Err(HostError::refused(CpiErrorKind::Other, message));
            }
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    fn line(&mut self) -> Result<Value, HostError> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).map_err(HostError::os("read from", &self.path))? {
            0 => Err(HostError::os("read from", &self.path)(io::Error::from(io::ErrorKind::UnexpectedEof))),
            _ => serde_json::from_str(&line)
                .map_err(|source| HostError::Damaged { path: self.path.clone(), source }),
        }
    }
}

fn open(dir: &Path) -> io::Result<UnixStream> {
    // A socket's path has a hundred characters; ours may be longer, and this is the same one.
    let dir = File::open(dir)?;
    let stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn events_are_passed_over_and_refusals_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let qemu = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut questions = BufReader::new(stream.try_clone().unwrap()).lines();
            let answers = [
                "{\"return\": {}}\n",
                "{\"event\": \"RESUME\"}\n{\"return\": {\"status\": \"running\"}}\n",
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such slot\"}}\n",
            ];
            stream.write_all(b"{\"QMP\": {}}\n").unwrap();
            for answer in answers {
                let question: Value = serde_json::from_str(&questions.next().unwrap().unwrap()).unwrap();
                assert!(question["execute"].is_string());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut qmp = Qmp::connect(dir.path()).unwrap();
        assert_eq!(qmp.ask("query-status", &json!({})).unwrap()["status"], "running");
        let error = qmp.ask("device_add", &json!({})).unwrap_err().to_string();
        assert_eq!(error, "QEMU refuses `device_add`: no such slot");
        qemu.join().unwrap();
        assert!(qmp.ask("query-status", &json!({})).is_err(), "QEMU is gone");
    }
}
