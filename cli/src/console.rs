//! What the operator sees: tables for people, JSON for programs, and questions.
//!
//! Standard output holds the answer and nothing else; everything about the way there goes to standard error when
//! `--json` is given. JSON shapes are stable: a list is an array of objects, one thing is an object; keys are the
//! `key`s of [`Column`]; what is not known is `null`; times are RFC 3339 in UTC.

use std::io::{self, IsTerminal as _, Write};

use comfy_table::{Attribute, Cell as TableCell, Color, ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::StyleArgs;
use crate::error::Error;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables.
    People,
    /// JSON.
    Programs,
}

/// What the other end of the output can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// A file or a pipe: whole lines, no colours, no wrapping.
    Plain,
    /// A terminal.
    Terminal {
        /// Whether words may be coloured.
        colours: bool,
        /// Whether a progress display may be drawn.
        progress: bool,
    },
}

/// Standard output and error, and how to use them.
pub struct Console {
    /// The answer goes here.
    pub out: Box<dyn Write + Send>,
    /// Everything else goes here.
    pub err: Box<dyn Write + Send>,
    /// Tables or JSON.
    pub format: Format,
    /// What `out` can show.
    pub screen: Screen,
    /// Whether to ask before something is destroyed.
    pub confirm: Confirm,
}

/// Whether to ask before something is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Somebody is there to answer.
    Ask,
    /// `--yes`, or nobody is there: a script means what it says.
    GoAhead,
}

impl Console {
    /// Returns the console of this process.
    pub fn of_process(style: StyleArgs) -> Self {
        let screen = if io::stdout().is_terminal() {
            let colours =
                !style.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            Screen::Terminal { colours, progress: !style.no_progress && !style.json }
        } else {
            Screen::Plain
        };
        let somebody = io::stdin().is_terminal() && io::stderr().is_terminal();
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            format: if style.json { Format::Programs } else { Format::People },
            screen,
            confirm: if somebody && !style.yes { Confirm::Ask } else { Confirm::GoAhead },
        }
    }

    /// Prints a list.
    pub fn list(&mut self, listing: &Listing) -> Result<(), Error> {
        let text = match self.format {
            Format::People => listing.to_table(self.screen),
            Format::Programs => pretty(&listing.to_document()),
        };
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Prints one thing.
    pub fn record(&mut self, record: &Record) -> Result<(), Error> {
        let text = match self.format {
            Format::People => record.to_table(self.screen),
            Format::Programs => pretty(&record.to_json()),
        };
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Prints a text for people, or `value` for programs.
    pub fn say(&mut self, text: &str, value: &Value) -> Result<(), Error> {
        match self.format {
            Format::People => writeln!(self.out, "{}", text.trim_end_matches('\n'))?,
            Format::Programs => writeln!(self.out, "{}", pretty(value))?,
        }
        Ok(())
    }

    /// Tells something about the way to the answer.
    pub fn note(&mut self, text: &str) -> Result<(), Error> {
        match self.format {
            Format::People => writeln!(self.out, "{text}")?,
            Format::Programs => writeln!(self.err, "{text}")?,
        }
        Ok(())
    }

    /// Returns where progress goes: beside the answer for people, out of its way for programs.
    pub fn progress_out(&mut self) -> &mut (dyn Write + Send) {
        match self.format {
            Format::People => &mut *self.out,
            Format::Programs => &mut *self.err,
        }
    }

    /// Asks before `deed` is done; fails if the answer is not yes.
    pub fn confirm(&mut self, deed: &str) -> Result<(), Error> {
        if self.confirm == Confirm::GoAhead {
            return Ok(());
        }
        write!(self.err, "{deed}? [yN] ")?;
        self.err.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Error::Usage("stopped: nothing was changed (--yes skips the question)".into())),
        }
    }

    /// Prints an error, with what to do about it.
    pub fn error(&mut self, error: &Error) {
        // Standard error may be gone, too: then there is nobody left to tell.
        let _ = match self.format {
            Format::People => {
                let advice = error.advice().map(|advice| format!("{advice}\n")).unwrap_or_default();
                write!(self.err, "{}\n{advice}", people(error))
            }
            Format::Programs => writeln!(self.err, "{}", error.to_json()),
        };
    }
}

fn people(error: &Error) -> String {
    let text = crate::error::chain(error);
    match error {
        Error::Refused { code: Some((code, name)), .. } => format!("Error: {text} ({name}, {code})"),
        Error::Detached { .. } => format!("\nStopped watching: {text}."),
        _ => format!("Error: {text}"),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

/// A column: its heading for people and its key for programs.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading; empty for what only programs get.
    pub heading: &'static str,
    /// Key.
    pub key: &'static str,
}

/// Makes a column.
pub const fn column(heading: &'static str, key: &'static str) -> Column {
    Column { heading, key }
}

/// A value in a list.
#[derive(Clone, Debug)]
pub enum Cell {
    /// Not known, or not there.
    None,
    /// Text; an empty one is not there.
    Text(String),
    /// A state in BOSH's words, coloured by what it means.
    State(String),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Several texts, one a line.
    Lines(Vec<String>),
    /// A time, milliseconds since 1970; 0 is not there.
    Time(i64),
    /// People see a text, programs a value.
    Both(String, Value),
}

impl Cell {
    /// Returns a number that is not there when it is 0.
    pub fn nonzero(number: u64) -> Self {
        if number == 0 { Self::None } else { Self::Number(number) }
    }

    fn text(&self) -> String {
        match self {
            Self::None => "-".into(),
            Self::Text(text) | Self::State(text) if text.is_empty() => "-".into(),
            Self::Text(text) | Self::State(text) | Self::Both(text, _) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Flag(true) => "yes".into(),
            Self::Flag(false) => "no".into(),
            Self::Lines(lines) if lines.is_empty() => "-".into(),
            Self::Lines(lines) => lines.join("\n"),
            Self::Time(ms) => rfc3339(*ms).unwrap_or_else(|| "-".into()),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Text(text) | Self::State(text) if text.is_empty() => Value::Null,
            Self::Text(text) | Self::State(text) => json!(text),
            Self::Number(number) => json!(number),
            Self::Flag(flag) => json!(flag),
            Self::Lines(lines) => json!(lines),
            Self::Time(ms) => json!(rfc3339(*ms)),
            Self::Both(_, value) => value.clone(),
        }
    }

    fn render(&self, screen: Screen) -> TableCell {
        let cell = TableCell::new(self.text());
        match (self, screen) {
            (Self::State(state), Screen::Terminal { colours: true, .. }) => match state_colour(state) {
                Some(colour) => cell.fg(colour),
                None => cell,
            },
            _ => cell,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

fn state_colour(state: &str) -> Option<Color> {
    match state {
        "running" | "done" | "alive" | "leader" | "healthy" => Some(Color::Green),
        "failing" | "error" | "dead" | "unreachable" | "unresponsive agent" | "no vm" | "failed"
        | "unhealthy" | "meltdown" => Some(Color::Red),
        "processing" | "starting" | "suspect" | "cancelling" | "candidate" | "queued" => Some(Color::Yellow),
        _ => None,
    }
}

/// Returns a time as RFC 3339 in UTC; none for 0.
pub fn rfc3339(unix_ms: i64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok()?;
    let whole = at.replace_nanosecond(0).ok()?;
    (unix_ms != 0).then(|| whole.format(&Rfc3339).ok())?
}

/// A list of things of one kind.
pub struct Listing {
    noun: &'static str,
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
    revision: Option<u64>,
}

impl Listing {
    /// Makes an empty list; `noun` is the plural that is counted below the table.
    pub fn new(noun: &'static str, columns: &'static [Column]) -> Self {
        Self { noun, columns, rows: Vec::new(), revision: None }
    }

    /// Adds a row: one cell a column.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        assert_eq!(N, self.columns.len(), "a row of `{}` has a cell for every column", self.noun);
        self.rows.push(cells.into());
    }

    /// Makes a list of what `cells` makes of each item.
    pub fn of<T, const N: usize>(
        noun: &'static str,
        columns: &'static [Column],
        items: impl IntoIterator<Item = T>,
        cells: impl Fn(T) -> [Cell; N],
    ) -> Self {
        let mut listing = Self::new(noun, columns);
        items.into_iter().for_each(|item| listing.row(cells(item)));
        listing
    }

    /// Says up to which revision of the state the list tells: `dctl watch --after` goes on from there.
    pub fn as_of(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Returns the list for programs: its rows, and the revision if it has one.
    pub fn to_document(&self) -> Value {
        json!({ "revision": self.revision, "rows": self.to_json() })
    }

    /// Returns the rows for programs: an array of objects.
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<Cell>| -> Map<String, Value> {
            self.columns.iter().zip(row).map(|(column, cell)| (column.key.into(), cell.json())).collect()
        };
        self.rows.iter().map(object).map(Value::Object).collect()
    }

    /// Returns the list for people.
    pub fn to_table(&self, screen: Screen) -> String {
        let shown: Vec<usize> =
            (0..self.columns.len()).filter(|&at| !self.columns[at].heading.is_empty()).collect();
        let mut table = bare_table(screen);
        table.set_header(shown.iter().map(|&at| heading(self.columns[at].heading, screen)));
        for row in &self.rows {
            table.add_row(shown.iter().map(|&at| row[at].render(screen)));
        }
        let noun = if self.rows.len() == 1 { singular(self.noun) } else { self.noun.to_owned() };
        format!("{}\n\n{} {noun}", trimmed(&table), self.rows.len())
    }
}

/// One thing: a name and a value a line.
pub struct Record(Vec<(Column, Cell)>);

impl Record {
    /// Makes a record of these fields.
    pub fn new(fields: impl IntoIterator<Item = (Column, Cell)>) -> Self {
        Self(fields.into_iter().collect())
    }

    /// Returns it for programs: an object.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(column, cell)| (column.key.into(), cell.json())).collect())
    }

    /// Returns it for people.
    pub fn to_table(&self, screen: Screen) -> String {
        let mut table = bare_table(screen);
        for (column, cell) in self.0.iter().filter(|(column, _)| !column.heading.is_empty()) {
            table.add_row([heading(column.heading, screen), cell.render(screen)]);
        }
        trimmed(&table)
    }
}

fn bare_table(screen: Screen) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match screen {
        Screen::Plain => table.set_content_arrangement(ContentArrangement::Disabled).force_no_tty(),
        Screen::Terminal { colours, .. } => {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            if colours { table.enforce_styling() } else { table.force_no_tty() }
        }
    };
    table
}

fn heading(text: &str, screen: Screen) -> TableCell {
    let cell = TableCell::new(text);
    match screen {
        Screen::Terminal { colours: true, .. } => cell.add_attribute(Attribute::Bold),
        _ => cell,
    }
}

/// Returns the table without the blanks that pad the last column.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn singular(noun: &str) -> String {
    match noun {
        "releases" => "release".into(),
        _ => match noun.strip_suffix("ies") {
            Some(stem) => format!("{stem}y"),
            None => noun.trim_end_matches('s').to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
