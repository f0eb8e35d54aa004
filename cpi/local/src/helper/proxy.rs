//! Opens connections to directors for the agent of a machine, which has no way of its own to them: `CONNECT` of HTTP.
//!
//! Nowhere else does it lead: whoever asks for another place is refused.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpi_host::records;

use super::relay::{CONNECT_TIMEOUT, join, serve};

/// Longest question, up to the empty line.
const QUESTION_BYTES_MAX: usize = 2 << 10;
/// How long a question may take.
const ASKED_WITHIN: Duration = Duration::from_secs(5);

/// Begins to answer at `listener`. `endpoints` is the file with the directors' addresses.
pub(super) fn start(listener: TcpListener, endpoints: PathBuf) {
    serve(listener, move |near| {
        // What goes wrong closes the connection: callers retry.
        let _ = answer(&near, &endpoints);
    });
}

fn answer(near: &TcpStream, endpoints: &Path) -> io::Result<()> {
    near.set_read_timeout(Some(ASKED_WITHIN))?;
    let question = head(near)?;
    let known: Vec<String> = records::read(endpoints).ok().flatten().unwrap_or_default();
    let Some(director) = wanted(&question).filter(|wanted| known.iter().any(|known| known == wanted)) else {
        return say(near, "403 Not a director");
    };
    match connect(director) {
        Ok(far) => {
            say(near, "200 Connected")?;
            near.set_read_timeout(None)?;
            join(near, &far)
        }
        Err(error) => say(near, &format!("502 {}", error.kind())),
    }
}

/// Returns the `host:port` that a question asks for.
fn wanted(question: &str) -> Option<&str> {
    question.strip_prefix("CONNECT ")?.split(' ').next()
}

fn connect(director: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in director.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(far) => return Ok(far),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads up to the empty line and not a byte beyond.
fn head(mut near: &TcpStream) -> io::Result<String> {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"\r\n\r\n") {
        if read.len() >= QUESTION_BYTES_MAX {
            return Err(io::Error::other("the question has no end"));
        }
        near.read_exact(&mut byte)?;
        read.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

fn say(mut near: &TcpStream, status: &str) -> io::Result<()> {
    near.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directors_are_reached_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (director, stranger) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let name = format!("localhost:{}", director.local_addr().unwrap().port());
        let endpoints = dir.path().join("endpoints.json");
        std::fs::write(&endpoints, format!("[\"{name}\"]")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap();
        start(listener, endpoints);
        let ask = |place: &str| {
            let mut stream = TcpStream::connect(proxy).unwrap();
            write!(stream, "CONNECT {place} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            (head(&stream).unwrap(), stream)
        };
        let (answer, mut stream) = ask(&name);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let mut far = director.accept().unwrap().0;
        stream.write_all(b"ping").unwrap();
        let mut heard = [0; 4];
        far.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ping");
        let (answer, _stream) = ask(&stranger.local_addr().unwrap().to_string());
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
}
