//! Where a task's output goes: raw bytes, plain lines, or lines above a progress display.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::transcript::{Piece, Transcript};
use crate::console::Screen;

/// Redraws a second of the progress display.
const TICK: Duration = Duration::from_millis(120);

/// Takes a task's output, in order and once.
pub trait Sink {
    /// Takes the next bytes; they may end anywhere.
    fn bytes(&mut self, data: &[u8]) -> io::Result<()>;
    /// Takes a remark that is not part of the output.
    fn notice(&mut self, text: &str) -> io::Result<()>;
}

/// Copies bytes.
pub struct Raw<'a>(&'a mut dyn Write);

impl<'a> Raw<'a> {
    /// Copies to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self(out)
    }
}

impl Sink for Raw<'_> {
    fn bytes(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.write_all(data)?;
        self.0.flush()
    }

    /// A log is a log: remarks have no place in it.
    fn notice(&mut self, _text: &str) -> io::Result<()> {
        Ok(())
    }
}

/// Renders an event log.
pub struct Lines<'a> {
    transcript: Transcript,
    /// The beginning of a line whose end has not come yet. Bytes, because a break may split a character.
    unfinished: Vec<u8>,
    surface: Surface<'a>,
}

/// What lines are written on.
enum Surface<'a> {
    /// Open lines are written at once and ended by the next one.
    Plain { out: &'a mut dyn Write, open: bool },
    /// The open line is part of the progress display until it is ended.
    Progress { out: &'a mut dyn Write, open: Option<String>, bar: ProgressBar },
}

impl<'a> Lines<'a> {
    /// Renders task `id` on `out`.
    pub fn new(id: u64, out: &'a mut dyn Write, screen: Screen) -> Self {
        let surface = match screen {
            Screen::Terminal { progress: true, .. } => {
                let bar = ProgressBar::new_spinner();
                let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                bar.set_style(style);
                bar.set_message(format!("Task {id}"));
                bar.enable_steady_tick(TICK);
                Surface::Progress { out, open: None, bar }
            }
            _ => Surface::Plain { out, open: false },
        };
        Self { transcript: Transcript::new(id), unfinished: Vec::new(), surface }
    }

    /// Ends the open line, and the progress display.
    pub fn finish(mut self) -> io::Result<()> {
        // The last line of a log that was cut off: better half of it than nothing.
        if !self.unfinished.is_empty() {
            let rest = std::mem::take(&mut self.unfinished);
            self.line(&rest)?;
        }
        self.surface.close()
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        for piece in self.transcript.line(&String::from_utf8_lossy(line)) {
            self.surface.put(piece)?;
        }
        Ok(())
    }
}

impl Sink for Lines<'_> {
    fn bytes(&mut self, data: &[u8]) -> io::Result<()> {
        self.unfinished.extend_from_slice(data);
        while let Some(end) = self.unfinished.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            self.line(&line[..end])?;
        }
        Ok(())
    }

    fn notice(&mut self, text: &str) -> io::Result<()> {
        self.surface.put(Piece::Line(text.to_owned()))
    }
}

impl Surface<'_> {
    fn put(&mut self, piece: Piece) -> io::Result<()> {
        match self {
            Self::Plain { out, open } => {
                match piece {
                    Piece::Line(text) if *open => write!(out, "\n{text}")?,
                    Piece::Line(text) => write!(out, "{text}")?,
                    Piece::Behind(text) => write!(out, "{text}")?,
                }
                *open = true;
                out.flush()
            }
            Self::Progress { out, open, bar } => {
                match piece {
                    Piece::Line(text) => {
                        if let Some(ended) = open.replace(text) {
                            bar.suspend(|| writeln!(out, "{ended}"))?;
                        }
                    }
                    Piece::Behind(text) => open.get_or_insert_default().push_str(&text),
                }
                bar.set_message(open.clone().unwrap_or_default());
                Ok(())
            }
        }
    }

    fn close(self) -> io::Result<()> {
        match self {
            Self::Plain { out, open } => {
                if open {
                    writeln!(out)?;
                }
                out.flush()
            }
            Self::Progress { out, open, bar } => {
                bar.finish_and_clear();
                match open {
                    Some(text) => writeln!(out, "{text}"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = concat!(
        r#"{"time":60,"stage":"Füllen","tags":[],"total":1,"task":"a","index":1,"state":"started","progress":0}"#,
        "\n",
        r#"{"time":65,"stage":"Füllen","tags":[],"total":1,"task":"a","index":1,"state":"finished","progress":100}"#,
        "\n",
    );

    #[test]
    fn a_log_may_be_cut_anywhere() {
        for cut in 0..=LOG.len() {
            let mut out = Vec::new();
            let mut lines = Lines::new(1, &mut out, Screen::Plain);
            lines.bytes(&LOG.as_bytes()[..cut]).unwrap();
            lines.bytes(&LOG.as_bytes()[cut..]).unwrap();
            lines.finish().unwrap();
            assert_eq!(
                String::from_utf8(out).unwrap(),
                "Task 1 | 00:01:00 | Füllen: a (00:00:05)\n",
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn an_open_line_is_ended_before_a_remark() {
        let mut out = Vec::new();
        let mut lines = Lines::new(1, &mut out, Screen::Plain);
        lines.notice("Task 1 | Waiting for task 7").unwrap();
        lines.bytes(LOG.as_bytes()).unwrap();
        lines.finish().unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Task 1 | Waiting for task 7\nTask 1 | 00:01:00 | Füllen: a (00:00:05)\n"
        );
    }

    #[test]
    fn the_progress_display_prints_the_same_lines() {
        let mut out = Vec::new();
        let mut lines = Lines {
            transcript: Transcript::new(1),
            unfinished: Vec::new(),
            surface: Surface::Progress { out: &mut out, open: None, bar: ProgressBar::hidden() },
        };
        lines.bytes(LOG.as_bytes()).unwrap();
        lines.notice("and more").unwrap();
        lines.finish().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "Task 1 | 00:01:00 | Füllen: a (00:00:05)\nand more\n");
    }
}
