//! The tokens of an expression.

use super::ast::Literal;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    /// A name in backticks, which can only be a field.
    QuotedName(String),
    Literal(Literal),
    Sign(&'static str),
}

/// Why a string is not an expression, and where: the number of the character, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) position: usize,
    pub(crate) expected: &'static str,
    /// What is there instead.
    pub(crate) got: String,
}

/// Operators and punctuation, longer ones first.
const SIGNS: [&str; 23] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ".", ",",
    "?",
];
const COLON: &str = ":";

/// The maximum length of an excerpt in an error, in characters.
const MAX_EXCERPT: usize = 20;

/// Each token, with the byte at which it begins.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        match lexer.token()? {
            Some(token) => tokens.push((start, token)),
            None => return Ok(tokens),
        }
    }
}

/// The error at a byte of the string.
pub(super) fn error(text: &str, at: usize, expected: &'static str) -> SyntaxError {
    let before = text.get(..at).unwrap_or(text);
    let rest = text.get(at..).unwrap_or_default();
    let mut excerpt: String = rest.chars().take(MAX_EXCERPT).collect();
    if excerpt.len() < rest.len() {
        excerpt.push('…');
    }
    let got = if excerpt.is_empty() { "the end".to_owned() } else { format!("{excerpt:?}") };
    SyntaxError { position: before.chars().count() + 1, expected, got }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn fail<T>(&self, at: usize, expected: &'static str) -> Result<T, SyntaxError> {
        Err(error(self.text, at, expected))
    }

    /// Takes a string if it is next.
    fn takes(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    /// Takes the characters of a kind.
    fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = rest.find(|c| !is(c)).and_then(|end| rest.get(..end)).unwrap_or(rest);
        self.at += taken.len();
        taken
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Option<Token>, SyntaxError> {
        let (start, rest) = (self.at, self.rest());
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let second = rest.chars().nth(1);
        if first.is_ascii_digit() || (first == '.' && second.is_some_and(|c| c.is_ascii_digit())) {
            return self.number().map(|number| Some(Token::Literal(number)));
        }
        if first == '"' || first == '\'' {
            let text = self.string(false, false)?;
            return Ok(Some(Token::Literal(Literal::String(String::from_utf8_lossy(&text).into_owned()))));
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let word = self.take_while(is_word);
            let is_quoted = self.rest().starts_with(['"', '\'']);
            if is_quoted && ["r", "b", "br", "rb"].iter().any(|prefix| word.eq_ignore_ascii_case(prefix)) {
                let is_bytes = word.contains(['b', 'B']);
                let found = self.string(word.contains(['r', 'R']), is_bytes)?;
                return Ok(Some(Token::Literal(if is_bytes {
                    Literal::Bytes(found)
                } else {
                    Literal::String(String::from_utf8_lossy(&found).into_owned())
                })));
            }
            return Ok(Some(match word {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                word => Token::Name(word.to_owned()),
            }));
        }
        if self.takes("`") {
            let name = self.take_while(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c));
            let is_closed = !name.is_empty() && self.takes("`");
            return if is_closed {
                Ok(Some(Token::QuotedName(name.to_owned())))
            } else {
                self.fail(start, "a name in backticks")
            };
        }
        match SIGNS.into_iter().chain([COLON]).find(|sign| rest.starts_with(sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Some(Token::Sign(sign)))
            }
            None => self.fail(start, "a valid character"),
        }
    }

    fn number(&mut self) -> Result<Literal, SyntaxError> {
        let start = self.at;
        let digits = |lexer: &mut Self| lexer.take_while(|c| c.is_ascii_digit()).len();
        let hexadecimal = self.rest().get(2..3).is_some_and(|digit| digit.chars().all(|c| c.is_ascii_hexdigit()));
        let number = if hexadecimal && (self.takes("0x") || self.takes("0X")) {
            u64::from_str_radix(self.take_while(|c| c.is_ascii_hexdigit()), 16).ok().map(Literal::Int)
        } else {
            digits(self);
            let whole = self.at;
            // A dot without digits accesses a field.
            if self.rest().starts_with('.') && self.rest().chars().nth(1).is_some_and(|c| c.is_ascii_digit()) {
                self.at += 1;
                digits(self);
            }
            let before_exponent = self.at;
            if self.takes("e") || self.takes("E") {
                let _ = self.takes("+") || self.takes("-");
                if digits(self) == 0 {
                    self.at = before_exponent;
                }
            }
            let text = self.text.get(start..self.at).unwrap_or_default();
            if self.at == whole { text.parse().ok().map(Literal::Int) } else { text.parse().ok().map(Literal::Double) }
        };
        let is_unsigned = matches!(number, Some(Literal::Int(_)) | None) && (self.takes("u") || self.takes("U"));
        match number {
            Some(Literal::Int(number)) if is_unsigned => Ok(Literal::Unsigned(number)),
            Some(Literal::Int(number)) if number > i64::MIN.unsigned_abs() => self.fail(start, "a 64-bit integer"),
            Some(number) => Ok(number),
            None => self.fail(start, "a 64-bit number"),
        }
    }

    /// The bytes of a string or of a sequence of bytes, whose quote is next. Those of a string are UTF-8.
    fn string(&mut self, is_raw: bool, is_bytes: bool) -> Result<Vec<u8>, SyntaxError> {
        let start = self.at;
        let quote = self.rest().get(..1).unwrap_or_default();
        let triple = quote.repeat(3);
        let is_long = self.rest().starts_with(&triple);
        let end = if is_long { triple.as_str() } else { quote };
        self.at += end.len();
        let mut found = Vec::new();
        let utf8 = |char: char| char.encode_utf8(&mut [0; 4]).as_bytes().to_vec();
        loop {
            if self.takes(end) {
                return Ok(found);
            }
            let at = self.at;
            match self.rest().chars().next() {
                None => return self.fail(start, "a closing quote"),
                Some('\n' | '\r') if !is_long => return self.fail(start, "a closing quote on the same line"),
                Some('\\') if !is_raw => {
                    self.at += 1;
                    match self.escaped() {
                        // A numeric sequence is a byte, and not a character.
                        Some((char, false)) if is_bytes => found.push(u8::try_from(char).unwrap_or_default()),
                        Some((char, is_unicode)) if !(is_bytes && is_unicode) => found.extend(utf8(char)),
                        _ => return self.fail(at, "a valid escape sequence"),
                    }
                }
                // Line breaks are normalized, in raw strings, too.
                Some('\r') => {
                    self.at += if self.rest().starts_with("\r\n") { 2 } else { 1 };
                    found.push(b'\n');
                }
                Some(char) => {
                    self.at += char.len_utf8();
                    found.extend(utf8(char));
                }
            }
        }
    }

    /// The character of an escape sequence, after its backslash, and whether only a string can contain that sequence.
    fn escaped(&mut self) -> Option<(char, bool)> {
        let first = self.rest().chars().next()?;
        self.at += first.len_utf8();
        let mut code = |digits: usize, radix: u32, first: &str| {
            let rest = self.rest().get(..digits)?;
            self.at += digits;
            let text = format!("{first}{rest}");
            let is_number = text.chars().all(|c| c.is_digit(radix));
            is_number.then(|| u32::from_str_radix(&text, radix).ok().and_then(char::from_u32)).flatten()
        };
        let is_unicode = matches!(first, 'u' | 'U');
        let char = match first {
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            '\\' | '\'' | '"' | '`' | '?' => Some(first),
            'x' | 'X' => code(2, 16, ""),
            'u' => code(4, 16, ""),
            'U' => code(8, 16, ""),
            '0'..='3' => code(2, 8, first.encode_utf8(&mut [0; 4])),
            _ => None,
        };
        char.map(|char| (char, is_unicode))
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
