//! A recursive descent parser: a conditional, then the operators by their rank, then values.

use super::ast::{Access, BinaryOperator, Literal, Node, UnaryOperator};
use super::lexer::{SyntaxError, Token, error, tokens};

/// The maximum nesting, to limit the use of the stack. The engine's own maximum is higher.
pub(crate) const MAX_DEPTH: usize = 60;
/// The maximum size of an expression in bytes. The engine's own maximum is as many characters.
pub(crate) const MAX_LENGTH: usize = 100_000;

/// Names that cannot be those of variables or functions.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "var",
    "void",
    "while",
];

const OPERAND: &str = "an operand";
const FIELD: &str = "a field name";

/// The operators by rank: those of the first rank bind least.
const OPERATORS: [&[(&str, BinaryOperator)]; 5] = [
    &[("||", BinaryOperator::Or)],
    &[("&&", BinaryOperator::And)],
    &[
        ("==", BinaryOperator::Equal),
        ("!=", BinaryOperator::NotEqual),
        ("<=", BinaryOperator::LessOrEqual),
        (">=", BinaryOperator::GreaterOrEqual),
        ("<", BinaryOperator::Less),
        (">", BinaryOperator::Greater),
        ("in", BinaryOperator::In),
    ],
    &[("+", BinaryOperator::Plus), ("-", BinaryOperator::Minus)],
    &[("*", BinaryOperator::Times), ("/", BinaryOperator::Divide), ("%", BinaryOperator::Modulo)],
];

/// Why an expression cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    Syntax(SyntaxError),
    /// The expression is too long or nested too deeply for this parser. It may be valid.
    TooLarge,
}

/// Parses an expression.
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    if text.len() > MAX_LENGTH {
        return Err(Problem::TooLarge);
    }
    let tokens = tokens(text).map_err(Problem::Syntax)?;
    let mut parser = Parser { text, tokens, position: 0, depth: 0 };
    let node = parser.expression()?;
    if parser.position < parser.tokens.len() { parser.fail("an operator or the end") } else { Ok(node) }
}

struct Parser<'a> {
    text: &'a str,
    /// Each with the byte at which it begins.
    tokens: Vec<(usize, Token)>,
    position: usize,
    depth: usize,
}

impl Parser<'_> {
    /// The error at the next token.
    fn fail<T>(&self, expected: &'static str) -> Result<T, Problem> {
        self.fail_at(self.position, expected)
    }

    fn fail_at<T>(&self, position: usize, expected: &'static str) -> Result<T, Problem> {
        let at = self.tokens.get(position).map_or(self.text.len(), |(at, _)| *at);
        Err(Problem::Syntax(error(self.text, at, expected)))
    }

    fn is_next(&self, sign: &str) -> bool {
        matches!(self.tokens.get(self.position), Some((_, Token::Sign(next))) if *next == sign)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_next = self.is_next(sign);
        self.position += usize::from(is_next);
        is_next
    }

    fn take(&mut self, sign: &str, expected: &'static str) -> Result<(), Problem> {
        if self.takes(sign) { Ok(()) } else { self.fail(expected) }
    }

    fn expression(&mut self) -> Result<Node, Problem> {
        self.deepen(1)?;
        let mut node = self.binary()?;
        if self.takes("?") {
            node = self.conditional(node)?;
        }
        self.depth -= 1;
        Ok(node)
    }

    // A function of its own, like others here, so that the one that calls it uses less stack when it recurses.
    fn conditional(&mut self, condition: Node) -> Result<Node, Problem> {
        let then = self.binary()?;
        self.take(":", "\":\" of a conditional")?;
        Ok(Node::Conditional(Box::new([condition, then, self.expression()?])))
    }

    fn deepen(&mut self, levels: usize) -> Result<(), Problem> {
        self.depth += levels;
        if self.depth > MAX_DEPTH { Err(Problem::TooLarge) } else { Ok(()) }
    }

    /// Operands and operators of any rank. They are read first and grouped afterwards, because a function for each rank would use more stack.
    fn binary(&mut self) -> Result<Node, Problem> {
        let mut operands = vec![self.unary()?];
        let mut operators = Vec::new();
        while let Some((_, operator)) = OPERATORS.iter().copied().flatten().find(|(sign, _)| self.takes(sign)) {
            operators.push(*operator);
            operands.push(self.unary()?);
        }
        joined(operands, operators).map_or_else(|| self.fail(OPERAND), Ok)
    }

    fn unary(&mut self) -> Result<Node, Problem> {
        let mut operators = Vec::new();
        loop {
            operators.push(if self.takes("!") {
                UnaryOperator::Not
            } else if self.takes("-") {
                UnaryOperator::Minus
            } else {
                break;
            });
            self.deepen(1)?;
        }
        let node = self.member()?;
        self.depth -= operators.len();
        Ok(if operators.is_empty() { node } else { Node::Unary(operators, Box::new(node)) })
    }

    fn member(&mut self) -> Result<Node, Problem> {
        let of = self.primary()?;
        self.accessed(of)
    }

    fn accessed(&mut self, mut of: Node) -> Result<Node, Problem> {
        let mut accesses = Vec::new();
        loop {
            if self.takes(".") {
                accesses.push(self.named_access()?);
            } else if self.takes("[") {
                accesses.push(Access::Index(self.maybe_optional()?));
                self.take("]", "\"]\"")?;
            } else if let Some(name) = self.is_next("{").then(|| type_name(&of, &accesses)).flatten() {
                // A message of a type, whose name was taken for a value with fields.
                self.position += 1;
                of = Node::Message(name, self.entries(Self::field_of_message)?);
                accesses.clear();
            } else {
                return Ok(if accesses.is_empty() { of } else { Node::Member(Box::new(of), accesses) });
            }
        }
    }

    /// A field or a method, after its dot.
    fn named_access(&mut self) -> Result<Access, Problem> {
        let is_optional = self.takes("?");
        // A quoted name is never that of a method: a parenthesis after it is an error.
        let is_quoted = matches!(self.tokens.get(self.position), Some((_, Token::QuotedName(_))));
        let name = self.field()?;
        Ok(if is_optional {
            Access::OptionalField(name)
        } else if !is_quoted && self.takes("(") {
            Access::Method(name, self.arguments()?)
        } else {
            Access::Field(name)
        })
    }

    fn field(&mut self) -> Result<String, Problem> {
        match self.tokens.get(self.position) {
            Some((_, Token::Name(name) | Token::QuotedName(name))) => {
                let name = name.clone();
                self.position += 1;
                Ok(name)
            }
            _ => self.fail(FIELD),
        }
    }

    fn primary(&mut self) -> Result<Node, Problem> {
        if self.takes("(") {
            return self.parenthesized();
        }
        if self.takes("[") {
            return Ok(Node::List(self.list("]", "\",\" or \"]\"")?));
        }
        if self.takes("{") {
            return Ok(Node::Map(self.entries(Self::entry_of_map)?));
        }
        self.word()
    }

    /// An expression in parentheses, after the first of them.
    fn parenthesized(&mut self) -> Result<Node, Problem> {
        let first = self.position;
        let node = self.expression()?;
        self.take(")", "\")\"")?;
        // The integer that is valid only with a sign needs it directly before it.
        if matches!(node, Node::Literal(Literal::Int(number)) if i64::try_from(number).is_err()) {
            return self.fail_at(first, "a 64-bit integer");
        }
        Ok(node)
    }

    /// A literal, a name, or a call of a function.
    fn word(&mut self) -> Result<Node, Problem> {
        let is_absolute = self.takes(".");
        let start = self.position;
        match self.tokens.get(start).map(|(_, token)| token.clone()) {
            Some(Token::Literal(literal)) if !is_absolute => {
                self.position += 1;
                Ok(Node::Literal(literal))
            }
            Some(Token::Name(name)) => {
                if RESERVED.contains(&name.as_str()) {
                    return self.fail("a name that is not reserved");
                }
                self.position += 1;
                if !self.takes("(") {
                    return Ok(Node::Name(if is_absolute { format!(".{name}") } else { name }));
                }
                let first = self.position;
                let arguments = self.arguments()?;
                if name != "has" {
                    return Ok(Node::Call(name, arguments));
                }
                // With a dot, it is not the macro, but a function of that name.
                if is_absolute {
                    return Ok(Node::Call(format!(".{name}"), arguments));
                }
                match arguments.as_slice() {
                    [argument] if !is_field(argument) => {
                        self.fail_at(first, "a field selection as the argument of has()")
                    }
                    _ => Ok(Node::Call(name, arguments)),
                }
            }
            _ => self.fail(if is_absolute { "a name" } else { OPERAND }),
        }
    }

    /// The arguments of a call, after its parenthesis.
    fn arguments(&mut self) -> Result<Vec<Node>, Problem> {
        let mut nodes = Vec::new();
        if self.takes(")") {
            return Ok(nodes);
        }
        loop {
            nodes.push(self.expression()?);
            if self.takes(")") {
                return Ok(nodes);
            }
            self.take(",", "\",\" or \")\"")?;
        }
    }

    /// The elements of a list. A comma may follow the last one, or be all there is.
    fn list(&mut self, end: &str, expected: &'static str) -> Result<Vec<Node>, Problem> {
        let mut nodes = Vec::new();
        if self.takes(",") {
            return self.take(end, expected).map(|()| nodes);
        }
        while !self.takes(end) {
            nodes.push(self.maybe_optional()?);
            if !self.is_next(end) {
                self.take(",", expected)?;
            }
        }
        Ok(nodes)
    }

    /// The entries of a map or the fields of a message, after its brace. A comma may follow the last one, or be all there is.
    fn entries<T>(&mut self, entry: impl Fn(&mut Self) -> Result<T, Problem>) -> Result<Vec<T>, Problem> {
        let mut entries = Vec::new();
        if self.takes(",") {
            return self.take("}", "\"}\"").map(|()| entries);
        }
        while !self.takes("}") {
            entries.push(entry(self)?);
            if !self.is_next("}") {
                self.take(",", "\",\" or \"}\"")?;
            }
        }
        Ok(entries)
    }

    fn entry_of_map(&mut self) -> Result<(Node, Node), Problem> {
        let key = self.maybe_optional()?;
        self.take(":", "\":\"")?;
        Ok((key, self.expression()?))
    }

    fn field_of_message(&mut self) -> Result<Node, Problem> {
        let is_optional = self.takes("?");
        self.field()?;
        self.take(":", "\":\"")?;
        let value = self.expression()?;
        Ok(if is_optional { Node::Optional(Box::new(value)) } else { value })
    }

    /// An element, a key or an index.
    fn maybe_optional(&mut self) -> Result<Node, Problem> {
        let is_optional = self.takes("?");
        let node = self.expression()?;
        Ok(if is_optional { Node::Optional(Box::new(node)) } else { node })
    }
}

/// Makes one operand of all.
fn joined(mut operands: Vec<Node>, mut operators: Vec<BinaryOperator>) -> Option<Node> {
    for rank in OPERATORS.iter().rev() {
        (operands, operators) = grouped(operands, operators, rank);
    }
    operands.pop()
}

/// Makes one operand of those that are joined by operators of a rank.
fn grouped(
    operands: Vec<Node>,
    operators: Vec<BinaryOperator>,
    rank: &[(&str, BinaryOperator)],
) -> (Vec<Node>, Vec<BinaryOperator>) {
    let is_in_rank = |operator: &BinaryOperator| rank.iter().any(|(_, other)| other == operator);
    if !operators.iter().any(is_in_rank) {
        return (operands, operators);
    }
    let mut operands = operands.into_iter();
    let (mut grouped, mut left) = (Vec::new(), Vec::new());
    let (mut first, mut others) = (operands.next(), Vec::new());
    let join = |first: Option<Node>, others: Vec<_>| {
        first.map(|first| if others.is_empty() { first } else { Node::Binary(Box::new(first), others) })
    };
    for (operator, operand) in operators.into_iter().zip(operands) {
        if is_in_rank(&operator) {
            others.push((operator, operand));
        } else {
            grouped.extend(join(first.replace(operand), std::mem::take(&mut others)));
            left.push(operator);
        }
    }
    grouped.extend(join(first, others));
    (grouped, left)
}

/// The name of a type, if this can be one.
fn type_name(of: &Node, accesses: &[Access]) -> Option<String> {
    let Node::Name(first) = of else { return None };
    accesses.iter().try_fold(first.clone(), |name, access| match access {
        Access::Field(field) => Some(format!("{name}.{field}")),
        _ => None,
    })
}

fn is_field(node: &Node) -> bool {
    match node {
        Node::Member(_, accesses) => matches!(accesses.last(), Some(Access::Field(_) | Access::OptionalField(_))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Expressions that are valid CEL, whether the embedded engine can evaluate them or not.
    const VALID: &[&str] = &[
        "input.tenant",
        "'constant'",
        "input['a)'] + \"(\" + additional_metadata.x",
        r"'it\'s' + 'b'",
        r"r'\' + 'x'",
        "b'a' == br\"\\\"",
        "B'\\xff\\377'",
        "'''it's\nlong''' + \"\"\"\"a\"\"\"",
        r#"R"""\"""  == '\u00e4\U0001F600\x41\101\a\b\f\v\`\?'"#,
        "size(input.list.filter(x, x > 1u)) > 0x1F ? 'a' : 'b' // a ( comment",
        "// a comment\n1 == 1",
        "input.parents + input . parents",
        "{'a': [1, 2]}.a[0] == 1",
        "{} == {'a': 1, }",
        "[1, 2, ] + [] + [ , ]",
        "{,} == Type{,}",
        "input.items.all(i, i.price * 2 - 1 >= 0.5e3 / 2e-1 && i.n % 2 == 0)",
        "input.items.exists_one(i, i in ['a', 'b']) || !('x' in input.tags)",
        "input.items.map(i, has(i.name), i.name)",
        "has(input.a.b) && has((input).c) && .has(input)",
        "input.?a.?b.orValue('x') == input[?'a'] ? [?x] : {?'k': optional.none()}",
        "a ? b : c ? d : e",
        "a ? (b ? c : d) : e",
        "-1 == - -1 && !!true && -x < .5 && 1.5 > -9223372036854775808",
        "-9223372036854775808 < 18446744073709551615u",
        "timestamp('2024-01-01T00:00:00Z') + duration('1h') > now",
        "string(1) + 'a'.startsWith('b') + \"\".size()",
        ".input.x == .size(input)",
        "google.protobuf.Duration{seconds: 1, package: 2,}",
        "google.protobuf.Duration{seconds: 1}.seconds > 0",
        "Type{}",
        "input.package.if.`quoted-name` + input.`id`.size()",
        "input.has == 1 && checksum(input.id) == null",
        "dyn(1) == type(x)",
        "\t1\r\n\u{c}==\n1 ",
        "input.a.matches(r'^\\d+$')",
        "5.size() == 1.e",
    ];

    /// Strings that are not CEL, with what is reported.
    const INVALID: &[(&str, usize, &str, &str)] = &[
        ("", 1, OPERAND, "the end"),
        ("input.tenant ==", 16, OPERAND, "the end"),
        ("input.", 7, FIELD, "the end"),
        ("input..x", 7, FIELD, "\".x\""),
        ("input.in", 7, FIELD, "\"in\""),
        ("input.1", 6, "an operator or the end", "\".1\""),
        ("a b", 3, "an operator or the end", "\"b\""),
        ("a = b", 3, "a valid character", "\"= b\""),
        ("a & b", 3, "a valid character", "\"& b\""),
        ("a | b", 3, "a valid character", "\"| b\""),
        ("a and b", 3, "an operator or the end", "\"and b\""),
        ("&& true", 1, OPERAND, "\"&& true\""),
        ("1 +* 2", 4, OPERAND, "\"* 2\""),
        ("size(input.a", 13, "\",\" or \")\"", "the end"),
        ("size(a,)", 8, OPERAND, "\")\""),
        ("(input.a]", 9, "\")\"", "\"]\""),
        ("input.a)", 8, "an operator or the end", "\")\""),
        ("input[1", 8, "\"]\"", "the end"),
        ("[1 2]", 4, "\",\" or \"]\"", "\"2]\""),
        ("[,,]", 3, "\",\" or \"]\"", "\",]\""),
        ("{,,}", 3, "\"}\"", "\",}\""),
        ("{'a'}", 5, "\":\"", "\"}\""),
        ("{'a': 1 'b': 2}", 9, "\",\" or \"}\"", "\"'b': 2}\""),
        ("a ? b", 6, "\":\" of a conditional", "the end"),
        ("a ? b ? c : d : e", 7, "\":\" of a conditional", "\"? c : d : e\""),
        ("'open", 1, "a closing quote", "\"'open\""),
        ("x == 'a\n'", 6, "a closing quote on the same line", "\"'a\\n'\""),
        (r"'a\'", 1, "a closing quote", r#""'a\\'""#),
        (r"'\q'", 2, "a valid escape sequence", r#""\\q'""#),
        (r"'\u12'", 2, "a valid escape sequence", r#""\\u12'""#),
        (r"'\ud800'", 2, "a valid escape sequence", r#""\\ud800'""#),
        ("ä == 'x'", 1, "a valid character", "\"ä == 'x'\""),
        ("'ä' == #", 8, "a valid character", "\"#\""),
        ("1 == 9223372036854775809", 6, "a 64-bit integer", "\"9223372036854775809\""),
        ("-(9223372036854775808)", 3, "a 64-bit integer", "\"9223372036854775808)\""),
        ("99999999999999999999", 1, "a 64-bit number", "\"99999999999999999999\""),
        ("1abc", 2, "an operator or the end", "\"abc\""),
        ("has(input)", 5, "a field selection as the argument of has()", "\"input)\""),
        ("has(input['a'])", 5, "a field selection as the argument of has()", "\"input['a'])\""),
        ("if == 1", 1, "a name that is not reserved", "\"if == 1\""),
        ("input.a.`b`(1)", 12, "an operator or the end", "\"(1)\""),
        ("input.`a", 7, "a name in backticks", "\"`a\""),
        ("`a` == 1", 1, OPERAND, "\"`a` == 1\""),
        ("# a long comment in another language", 1, "a valid character", "\"# a long comment in …\""),
    ];

    #[test]
    fn all_of_cel_is_accepted() {
        for text in VALID {
            let parsed = parse(text);
            assert!(parsed.is_ok(), "{text}: {parsed:?}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_position() {
        for (text, position, expected, got) in INVALID {
            let error = SyntaxError { position: *position, expected, got: (*got).to_owned() };
            assert_eq!(parse(text), Err(Problem::Syntax(error)), "{text}");
        }
    }

    #[test]
    fn operators_bind_by_their_rank() {
        let parsed = parse("a || b && c + 1 * -2 == d.e[0].f(1)").unwrap();
        let Node::Binary(first, others) = &parsed else { panic!("{parsed:?}") };
        assert_eq!((&**first, others.len(), others[0].0), (&Node::Name("a".into()), 1, BinaryOperator::Or));
        let Node::Binary(_, others) = &others[0].1 else { panic!("{parsed:?}") };
        let (BinaryOperator::And, Node::Binary(sum, equals)) = &others[0] else { panic!("{parsed:?}") };
        assert!(matches!(&**sum, Node::Binary(_, others) if others[0].0 == BinaryOperator::Plus));
        let (BinaryOperator::Equal, Node::Member(_, accesses)) = &equals[0] else { panic!("{parsed:?}") };
        assert!(matches!(&accesses[..], [Access::Field(_), Access::Index(_), Access::Method(..)]));
    }

    #[test]
    fn what_is_too_large_is_not_decided() {
        for text in [
            "(".repeat(10_000),
            "!".repeat(10_000),
            "[".repeat(10_000),
            "a ? b : ".repeat(10_000),
            " ".repeat(MAX_LENGTH + 1),
        ] {
            assert_eq!(parse(&text), Err(Problem::TooLarge));
        }
        assert!(parse(&vec!["a.b[0]"; 10_000].join(" + ")).is_ok(), "a chain is not nested");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in r"[ -~\n]{0,40}|\PC{0,20}|[rb'\x22\x5c()\[\].\n/a1 ]{0,20}") {
            if let Err(Problem::Syntax(error)) = parse(&text) {
                prop_assert!(error.position <= text.chars().count() + 1);
            }
        }

        /// Expressions that are made by the rules of CEL are accepted.
        #[test]
        fn expressions_by_the_grammar_are_accepted(text in expressions()) {
            let parsed = parse(&text);
            prop_assert!(parsed.is_ok(), "{}: {:?}", text, parsed);
        }
    }

    fn expressions() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec![
            "input",
            "x",
            "1",
            "2.5",
            "0xfu",
            "'a'",
            "r'\\'",
            "b\"\\x00\"",
            "true",
            "null",
            ".input",
            "[]",
            "{}",
            "T{}",
        ]);
        leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
            let operator = prop::sample::select(vec![
                "||", "&&", "==", "!=", "<", "<=", ">", ">=", " in ", "+", "-", "*", "/", "%",
            ]);
            prop_oneof![
                (inner.clone(), operator, inner.clone()).prop_map(|(a, operator, b)| format!("{a}{operator} {b}")),
                (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a})?({b}):{c}")),
                inner.clone().prop_map(|a| format!("!({a})")),
                inner.clone().prop_map(|a| format!("({a}).field")),
                inner.clone().prop_map(|a| format!("has(({a}).field)")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}).exists(x, {b})")),
                prop::collection::vec(inner.clone(), 0..3).prop_map(|all| format!("f({})", all.join(", "))),
                prop::collection::vec(inner.clone(), 1..3).prop_map(|all| format!("[{},]", all.join(","))),
                (inner.clone(), inner).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            ]
        })
    }
}
