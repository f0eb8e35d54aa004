//! Words of a control file: noise words and comments gone, quotes taken off.

use super::ParseError;

/// Words that may stand anywhere and mean nothing.
const NOISE: &[&str] =
    &["is", "as", "are", "on", "only", "with", "within", "and", "has", "using", "use", "the", "of"];

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
    quoted: bool,
}

impl Token {
    /// Returns whether this is a keyword, in any case; a quoted word never is.
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Returns the word as a keyword to match on; empty for a quoted one.
    pub(super) fn keyword(&self) -> String {
        if self.quoted { String::new() } else { self.text.to_ascii_lowercase() }
    }

    pub(super) fn error(&self, problem: String) -> ParseError {
        ParseError { line: self.line, problem }
    }
}

/// The words of a file, one after the other.
pub(super) struct Tokens {
    rest: std::iter::Peekable<std::vec::IntoIter<Token>>,
    last_line: usize,
}

impl Tokens {
    pub(super) fn of(text: &str) -> Result<Self, ParseError> {
        let (mut tokens, mut line) = (Vec::new(), 1);
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            let (start, mut word) = (line, String::new());
            match char {
                '\n' => line += 1,
                c if c.is_whitespace() || c == ';' => {}
                '#' => while chars.next_if(|c| *c != '\n').is_some() {},
                '"' | '\'' => {
                    loop {
                        match chars.next() {
                            Some(c) if c == char => break,
                            Some(c) => {
                                line += usize::from(c == '\n');
                                word.push(c);
                            }
                            None => {
                                return Err(ParseError {
                                    line: start,
                                    problem: "a quote is not closed".into(),
                                });
                            }
                        }
                    }
                    tokens.push(Token { text: word, line: start, quoted: true });
                }
                c if is_operator(c) => {
                    word.push(c);
                    while let Some(more) = chars.next_if(|c| "<>=!".contains(*c) && char != ',') {
                        word.push(more);
                    }
                    tokens.push(Token { text: word, line: start, quoted: false });
                }
                c => {
                    word.push(c);
                    while let Some(more) =
                        chars.next_if(|c| !c.is_whitespace() && !is_operator(*c) && *c != ';')
                    {
                        word.push(more);
                    }
                    if !NOISE.contains(&word.to_ascii_lowercase().as_str()) {
                        tokens.push(Token { text: word, line: start, quoted: false });
                    }
                }
            }
        }
        Ok(Self { rest: tokens.into_iter().peekable(), last_line: line })
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        self.rest.next()
    }

    pub(super) fn next_if(&mut self, want: impl FnOnce(&Token) -> bool) -> Option<Token> {
        self.rest.next_if(want)
    }

    pub(super) fn peek(&mut self) -> Option<&Token> {
        self.rest.peek()
    }

    pub(super) fn expect(&mut self, what: &str) -> Result<Token, ParseError> {
        let line = self.last_line;
        self.next().ok_or_else(|| ParseError { line, problem: format!("expected {what}, found the end") })
    }
}

fn is_operator(char: char) -> bool {
    "<>=!,".contains(char)
}

/// Splits a command into words as monit does: at blanks, except within quotes.
pub(super) fn split_command(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for char in command.chars() {
        match (quote, char) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
