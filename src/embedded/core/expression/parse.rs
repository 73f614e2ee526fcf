//! A recursive descent parser: `||`, then `&&`, then comparisons, then `+`, then operands.

use super::ast::{Comparison, Literal, Node, ParseError};

/// The maximum nesting, to limit the use of the stack.
pub(super) const MAX_DEPTH: usize = 60;
/// The maximum size of an expression in bytes, as in CEL's own parser.
pub(super) const MAX_LENGTH: usize = 100_000;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Literal(Literal),
    Sign(&'static str),
}

/// The operators and punctuation of the subset, longer ones first.
const SIGNS: [&str; 14] = ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "(", ")", "."];
/// Characters of CEL that are not in the subset.
const UNSUPPORTED: &str = "[]{}?:,*/%";

/// A function that the engine adds to CEL. It is declared like a name where it may be called.
const CHECKSUM: &str = "checksum()";

pub(super) fn parse(text: &str, names: &[&str]) -> Result<Node, ParseError> {
    if text.len() > MAX_LENGTH {
        return Err(ParseError::Unsupported);
    }
    let mut parser = Parser { tokens: tokens(text)?, position: 0, names, depth: 0 };
    let node = parser.or()?;
    if parser.position == parser.tokens.len() { Ok(node) } else { Err(ParseError::Invalid) }
}

fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let tail = if first == '\'' || first == '"' {
            let (text, tail) = quoted(rest, first)?;
            tokens.push(Token::Literal(Literal::String(text)));
            tail
        } else if first.is_ascii_digit() {
            let (number, tail) = number(rest)?;
            tokens.push(Token::Literal(number));
            tail
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, tail) = rest.split_at_checked(end).ok_or(ParseError::Invalid)?;
            if name == "in" || tail.starts_with(['\'', '"']) {
                // The `in` operator, or a string with a prefix.
                return Err(ParseError::Unsupported);
            }
            tokens.push(match name {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                name => Token::Name(name.to_owned()),
            });
            tail
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let error = if UNSUPPORTED.contains(first) { ParseError::Unsupported } else { ParseError::Invalid };
            let sign = sign.ok_or(error)?;
            tokens.push(Token::Sign(sign));
            rest.strip_prefix(sign).unwrap_or_default()
        };
        rest = tail.trim_start();
    }
    Ok(tokens)
}

fn quoted(text: &str, quote: char) -> Result<(String, &str), ParseError> {
    let mut chars = text.chars();
    let (mut found, mut length) = (String::new(), 0);
    length += chars.next().map_or(0, char::len_utf8);
    while let Some(char) = chars.next() {
        length += char.len_utf8();
        if char == quote {
            return Ok((found, text.get(length..).unwrap_or_default()));
        }
        if char != '\\' {
            found.push(char);
            continue;
        }
        let escaped = chars.next().ok_or(ParseError::Invalid)?;
        length += escaped.len_utf8();
        found.push(match escaped {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '\\' | '\'' | '"' | '`' | '?' => escaped,
            'a' | 'b' | 'f' | 'v' | 'x' | 'X' | 'u' | 'U' | '0'..='3' => return Err(ParseError::Unsupported),
            _ => return Err(ParseError::Invalid),
        });
    }
    Err(ParseError::Invalid)
}

fn number(text: &str) -> Result<(Literal, &str), ParseError> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(text.len());
    let (number, tail) = text.split_at_checked(end).ok_or(ParseError::Invalid)?;
    if number.contains(|c: char| c.is_ascii_alphabetic()) {
        // Hexadecimal, unsigned, or with an exponent.
        return Err(ParseError::Unsupported);
    }
    let literal = if number.contains('.') {
        Literal::Double(number.parse().map_err(|_| ParseError::Invalid)?)
    } else {
        Literal::Int(number.parse().map_err(|_| ParseError::Invalid)?)
    };
    Ok((literal, tail))
}

struct Parser<'a> {
    tokens: Vec<Token>,
    position: usize,
    names: &'a [&'a str],
    depth: usize,
}

impl Parser<'_> {
    fn takes(&mut self, sign: &str) -> bool {
        let is = matches!(self.tokens.get(self.position), Some(Token::Sign(other)) if *other == sign);
        self.position += usize::from(is);
        is
    }

    /// Parses the operands of a chain of one operator into one node.
    fn chain(
        &mut self,
        sign: &str,
        operand: fn(&mut Self) -> Result<Node, ParseError>,
        node: fn(Vec<Node>) -> Node,
    ) -> Result<Node, ParseError> {
        let first = operand(self)?;
        if !self.takes(sign) {
            return Ok(first);
        }
        let mut operands = vec![first, operand(self)?];
        while self.takes(sign) {
            operands.push(operand(self)?);
        }
        Ok(node(operands))
    }

    fn or(&mut self) -> Result<Node, ParseError> {
        self.chain("||", Self::and, Node::Or)
    }

    fn and(&mut self) -> Result<Node, ParseError> {
        self.chain("&&", Self::comparison, Node::And)
    }

    fn comparison(&mut self) -> Result<Node, ParseError> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let first = self.add()?;
        let all =
            [("==", Equal), ("!=", NotEqual), ("<=", LessOrEqual), (">=", GreaterOrEqual), ("<", Less), (">", Greater)];
        let mut others = Vec::new();
        while let Some((_, comparison)) = all.into_iter().find(|(sign, _)| self.takes(sign)) {
            others.push((comparison, self.add()?));
        }
        Ok(if others.is_empty() { first } else { Node::Compare(Box::new(first), others) })
    }

    fn add(&mut self) -> Result<Node, ParseError> {
        let node = self.chain("+", Self::operand, Node::Add)?;
        if self.takes("-") { Err(ParseError::Unsupported) } else { Ok(node) }
    }

    fn operand(&mut self) -> Result<Node, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ParseError::Unsupported);
        }
        let node = self.operand_below();
        self.depth -= 1;
        node
    }

    fn operand_below(&mut self) -> Result<Node, ParseError> {
        if self.takes("!") {
            return Ok(Node::Not(Box::new(self.operand()?)));
        }
        if self.takes("-") {
            return match self.operand()? {
                Node::Literal(Literal::Int(number)) => Ok(Node::Literal(Literal::Int(-number))),
                Node::Literal(Literal::Double(number)) => Ok(Node::Literal(Literal::Double(-number))),
                _ => Err(ParseError::Unsupported),
            };
        }
        if self.takes("(") {
            let node = self.or()?;
            return if !self.takes(")") {
                Err(ParseError::Invalid)
            } else if self.takes(".") {
                Err(ParseError::Unsupported)
            } else {
                Ok(node)
            };
        }
        let token = self.tokens.get(self.position).cloned().ok_or(ParseError::Invalid)?;
        self.position += 1;
        match token {
            // A method call on a literal.
            Token::Literal(_) if self.takes(".") => Err(ParseError::Unsupported),
            Token::Literal(literal) => Ok(Node::Literal(literal)),
            Token::Sign(_) => Err(ParseError::Invalid),
            Token::Name(name) => self.path(name),
        }
    }

    fn path(&mut self, first: String) -> Result<Node, ParseError> {
        let mut path = vec![first];
        while self.takes(".") {
            let Some(Token::Name(name)) = self.tokens.get(self.position).cloned() else {
                return Err(ParseError::Invalid);
            };
            self.position += 1;
            path.push(name);
        }
        if self.takes("(") {
            return match path.as_slice() {
                [name] if name == "has" => self.has(),
                // The engine's own function, where it is not declared.
                [name] if CHECKSUM.strip_suffix("()") == Some(name) && !self.names.contains(&CHECKSUM) => {
                    Err(ParseError::Invalid)
                }
                _ => Err(ParseError::Unsupported),
            };
        }
        let is_known = path.first().is_some_and(|name| self.names.contains(&name.as_str()));
        if is_known { Ok(Node::Path(path)) } else { Err(ParseError::Invalid) }
    }

    /// After the parenthesis of `has(`: a field of something.
    fn has(&mut self) -> Result<Node, ParseError> {
        let Node::Path(mut path) = self.or()? else { return Err(ParseError::Invalid) };
        let field = path.pop().filter(|_| !path.is_empty()).ok_or(ParseError::Invalid)?;
        if self.takes(")") { Ok(Node::Has(Box::new(Node::Path(path)), field)) } else { Err(ParseError::Invalid) }
    }
}
