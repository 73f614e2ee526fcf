//! From a text to an expression, by descent: `||`, then `&&`, then comparisons, then `+`, then what stands by itself.

use super::{Comparison, Literal, Node, Problem};

/// Deeper than this nobody writes, and the stack is not without end.
pub(super) const DEEPEST: usize = 60;
/// The maximum size of an expression in bytes, as in CEL's own parser.
pub(super) const MAX_LENGTH: usize = 100_000;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Literal(Literal),
    Sign(&'static str),
}

/// Signs of CEL, the longer ones first; those that the subset has, and the others.
const SIGNS: [&str; 14] = ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "(", ")", "."];
const MISSING: &str = "[]{}?:,*/%";

/// A function of the engine's own, which is among the names of those that may call it.
const CHECKSUM: &str = "checksum()";

pub(super) fn parse(text: &str, names: &[&str]) -> Result<Node, Problem> {
    if text.len() > MAX_LENGTH {
        return Err(Problem::Missing);
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, names, depth: 0 };
    let node = parser.either()?;
    if parser.at == parser.tokens.len() { Ok(node) } else { Err(Problem::Broken) }
}

fn tokens(text: &str) -> Result<Vec<Token>, Problem> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let tail = if first == '\'' || first == '"' {
            let (text, tail) = quoted(rest, first)?;
            tokens.push(Token::Literal(Literal::Text(text)));
            tail
        } else if first.is_ascii_digit() {
            let (number, tail) = number(rest)?;
            tokens.push(Token::Literal(number));
            tail
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, tail) = rest.split_at_checked(end).ok_or(Problem::Broken)?;
            if name == "in" || tail.starts_with(['\'', '"']) {
                // A list's member, or a prefixed text.
                return Err(Problem::Missing);
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
            let missing = if MISSING.contains(first) { Problem::Missing } else { Problem::Broken };
            let sign = sign.ok_or(missing)?;
            tokens.push(Token::Sign(sign));
            rest.strip_prefix(sign).unwrap_or_default()
        };
        rest = tail.trim_start();
    }
    Ok(tokens)
}

fn quoted(text: &str, quote: char) -> Result<(String, &str), Problem> {
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
        let escaped = chars.next().ok_or(Problem::Broken)?;
        length += escaped.len_utf8();
        found.push(match escaped {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '\\' | '\'' | '"' | '`' | '?' => escaped,
            'a' | 'b' | 'f' | 'v' | 'x' | 'X' | 'u' | 'U' | '0'..='3' => return Err(Problem::Missing),
            _ => return Err(Problem::Broken),
        });
    }
    Err(Problem::Broken)
}

fn number(text: &str) -> Result<(Literal, &str), Problem> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(text.len());
    let (number, tail) = text.split_at_checked(end).ok_or(Problem::Broken)?;
    if number.contains(|c: char| c.is_ascii_alphabetic()) {
        // Hexadecimal, unsigned, or with an exponent.
        return Err(Problem::Missing);
    }
    let literal = if number.contains('.') {
        Literal::Double(number.parse().map_err(|_| Problem::Broken)?)
    } else {
        Literal::Whole(number.parse().map_err(|_| Problem::Broken)?)
    };
    Ok((literal, tail))
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    names: &'a [&'a str],
    depth: usize,
}

impl Parser<'_> {
    fn takes(&mut self, sign: &str) -> bool {
        let is = matches!(self.tokens.get(self.at), Some(Token::Sign(other)) if *other == sign);
        self.at += usize::from(is);
        is
    }

    /// Parses the operands of a chain of one operator into one node.
    fn chain(
        &mut self,
        sign: &str,
        operand: fn(&mut Self) -> Result<Node, Problem>,
        node: fn(Vec<Node>) -> Node,
    ) -> Result<Node, Problem> {
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

    fn either(&mut self) -> Result<Node, Problem> {
        self.chain("||", Self::both, Node::Either)
    }

    fn both(&mut self) -> Result<Node, Problem> {
        self.chain("&&", Self::comparison, Node::Both)
    }

    fn comparison(&mut self) -> Result<Node, Problem> {
        use Comparison::{Different, Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
        let first = self.sum()?;
        let all = [
            ("==", Equal),
            ("!=", Different),
            ("<=", LessOrEqual),
            (">=", GreaterOrEqual),
            ("<", Less),
            (">", Greater),
        ];
        let mut others = Vec::new();
        while let Some((_, comparison)) = all.into_iter().find(|(sign, _)| self.takes(sign)) {
            others.push((comparison, self.sum()?));
        }
        Ok(if others.is_empty() { first } else { Node::Compare(Box::new(first), others) })
    }

    fn sum(&mut self) -> Result<Node, Problem> {
        let node = self.chain("+", Self::single, Node::Sum)?;
        if self.takes("-") { Err(Problem::Missing) } else { Ok(node) }
    }

    fn single(&mut self) -> Result<Node, Problem> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Problem::Missing);
        }
        let node = self.single_below();
        self.depth -= 1;
        node
    }

    fn single_below(&mut self) -> Result<Node, Problem> {
        if self.takes("!") {
            return Ok(Node::Not(Box::new(self.single()?)));
        }
        if self.takes("-") {
            return match self.single()? {
                Node::Literal(Literal::Whole(number)) => Ok(Node::Literal(Literal::Whole(-number))),
                Node::Literal(Literal::Double(number)) => Ok(Node::Literal(Literal::Double(-number))),
                _ => Err(Problem::Missing),
            };
        }
        if self.takes("(") {
            let node = self.either()?;
            return if !self.takes(")") {
                Err(Problem::Broken)
            } else if self.takes(".") {
                Err(Problem::Missing)
            } else {
                Ok(node)
            };
        }
        let token = self.tokens.get(self.at).cloned().ok_or(Problem::Broken)?;
        self.at += 1;
        match token {
            // A method of it.
            Token::Literal(_) if self.takes(".") => Err(Problem::Missing),
            Token::Literal(literal) => Ok(Node::Literal(literal)),
            Token::Sign(_) => Err(Problem::Broken),
            Token::Name(name) => self.path(name),
        }
    }

    fn path(&mut self, first: String) -> Result<Node, Problem> {
        let mut path = vec![first];
        while self.takes(".") {
            let Some(Token::Name(name)) = self.tokens.get(self.at).cloned() else { return Err(Problem::Broken) };
            self.at += 1;
            path.push(name);
        }
        if self.takes("(") {
            return match path.as_slice() {
                [name] if name == "has" => self.has(),
                // The engine's own function is not for all expressions.
                [name] if CHECKSUM.strip_suffix("()") == Some(name) && !self.names.contains(&CHECKSUM) => {
                    Err(Problem::Broken)
                }
                _ => Err(Problem::Missing),
            };
        }
        let is_known = path.first().is_some_and(|name| self.names.contains(&name.as_str()));
        if is_known { Ok(Node::Path(path)) } else { Err(Problem::Broken) }
    }

    /// After the parenthesis of `has(`: a field of something.
    fn has(&mut self) -> Result<Node, Problem> {
        let Node::Path(mut path) = self.either()? else { return Err(Problem::Broken) };
        let field = path.pop().filter(|_| !path.is_empty()).ok_or(Problem::Broken)?;
        if self.takes(")") { Ok(Node::Has(Box::new(Node::Path(path)), field)) } else { Err(Problem::Broken) }
    }
}
