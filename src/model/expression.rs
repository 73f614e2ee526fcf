//! Checks of CEL expressions before they are sent. Only the engine checks names and types: what passes here can still be rejected by it.

use super::cel::{Access, LiteralType, Node, Problem, parse};
use super::payload::excerpt;

/// The outputs of a task's parents, which only some expressions can use.
const PARENTS: &str = "parents";
/// The methods whose first argument declares a variable.
const MACROS: [&str; 5] = ["all", "exists", "exists_one", "filter", "map"];

/// The problem of a string that is not a CEL expression.
pub(crate) fn expression_problem(text: &str) -> Option<String> {
    parsed(text).err()
}

/// The problem of an expression of a key of runs or tasks: the engine fails a task whose key is not a string.
pub(crate) fn key_problem(text: &str) -> Option<String> {
    input_problem(text).or_else(|| literal_problem(text, LiteralType::String))
}

/// The problem of an expression of a number of runs or units: the engine fails a task for which it is not a number.
pub(crate) fn number_problem(text: &str) -> Option<String> {
    input_problem(text).or_else(|| literal_problem(text, LiteralType::Number))
}

/// The problem of an expression of a condition or a filter, which counts as false unless it returns a boolean.
pub(crate) fn condition_problem(text: &str) -> Option<String> {
    expression_problem(text).or_else(|| literal_problem(text, LiteralType::Bool))
}

/// The problem of an expression that is a literal of another type than the expected one.
fn literal_problem(text: &str, expected: LiteralType) -> Option<String> {
    let found = parsed(text).ok()??.literal_type()?;
    let what = match expected {
        LiteralType::Bool => "a boolean",
        LiteralType::Number => "a number",
        LiteralType::String | LiteralType::Other => "a string",
    };
    (found != expected).then(|| describe(&format!("a CEL expression that returns {what}"), text))
}

/// The problem of an expression over the input of a run, to which the engine offers no outputs of parents.
pub(crate) fn input_problem(text: &str) -> Option<String> {
    let node = match parsed(text) {
        Ok(node) => node?,
        Err(problem) => return Some(problem),
    };
    let (mut uses_parents, mut is_variable) = (false, false);
    node.visit(&mut |node| match node {
        Node::Name(name) => uses_parents |= name.trim_start_matches('.') == PARENTS,
        Node::Member(_, accesses) => is_variable |= accesses.iter().any(declares_parents),
        _ => {}
    });
    let is_rejected = uses_parents && !is_variable;
    is_rejected.then(|| describe("a CEL expression over input and additional_metadata, without parents", text))
}

/// Whether this is a macro whose variable is called `parents`. Then the name can mean the variable, and the engine decides.
fn declares_parents(access: &Access) -> bool {
    let Access::Method(method, arguments) = access else { return false };
    let [Node::Name(variable), _, ..] = arguments.as_slice() else { return false };
    variable == PARENTS && MACROS.contains(&method.as_str())
}

/// The syntax tree, or the problem of a string that is not CEL. `None` if the string is too large to be checked.
fn parsed(text: &str) -> Result<Option<Node>, String> {
    if text.trim().is_empty() {
        return Err(describe("a CEL expression", text));
    }
    if text.contains('\0') {
        return Err(describe("a CEL expression without U+0000", text));
    }
    match parse(text) {
        Ok(node) => Ok(Some(node)),
        Err(Problem::TooLarge) => Ok(None),
        Err(Problem::Syntax(error)) => {
            let text = describe("a CEL expression", text);
            Err(format!("{text}: at character {}: expected {}, got {}", error.position, error.expected, error.got))
        }
    }
}

fn describe(expected: &str, text: &str) -> String {
    format!("expected {expected}, got {:?}", excerpt(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_expressions_pass() {
        for text in [
            "input.tenant",
            "'constant'",
            "input.parents + input . parents",
            "{'parents': [1, 2]}.parents[0] == 1",
            "size(input.list.filter(x, x > 1u)) > 0x1F ? 'a' : 'b' // a ( comment",
            "input.list.exists(x, has(x.parents))",
            "input.list.exists(parents, parents > 1)",
        ] {
            assert_eq!(input_problem(text), None, "{text}");
        }
        for text in ["input.tenant", "'a'", "r'a'", "-input.a", "string(1)"] {
            assert_eq!(key_problem(text), None, "{text}");
        }
        assert_eq!(expression_problem("parents.a.x == 1"), None);
        assert_eq!(key_problem(&"(".repeat(10_000)), None, "it is too large to be checked");
    }

    #[test]
    fn expressions_that_are_not_valid_are_rejected() {
        for (text, problem) in [
            ("", "expected a CEL expression, got \"\""),
            (" \n", "expected a CEL expression, got \" \\n\""),
            ("a\0", "expected a CEL expression without U+0000, got \"a\\0\""),
            (
                "input.a == 'x' and input.b",
                "expected a CEL expression, got \"input.a == 'x' and input.b\": at character 16: expected an operator or the end, \
                 got \"and input.b\"",
            ),
            (
                "size(input.a",
                "expected a CEL expression, got \"size(input.a\": at character 13: expected \",\" or \")\", got the end",
            ),
        ] {
            assert_eq!(expression_problem(text).as_deref(), Some(problem));
        }
        for text in ["parents.a.x", "input.x + [parents][0].a.x", "f(parents)", "input.list.exists(x, x == parents)"] {
            assert_eq!(
                key_problem(text).unwrap(),
                format!("expected a CEL expression over input and additional_metadata, without parents, got {text:?}")
            );
        }
    }

    #[test]
    fn literals_of_another_type_are_rejected() {
        for (text, [is_key, is_number, is_condition]) in [
            ("'a'", [true, false, false]),
            ("1", [false, true, false]),
            (" 2.5", [false, true, false]),
            ("3u", [false, true, false]),
            ("-1", [false, true, false]),
            ("(1)", [false, true, false]),
            ("true", [false, false, true]),
            ("null", [false; 3]),
            ("b'a'", [false; 3]),
            ("[1]", [false; 3]),
            ("-'a'", [false; 3]),
            // What these return is not known.
            ("input.a", [true; 3]),
            ("-input.a", [true; 3]),
            ("!input.a", [true; 3]),
            ("[1][0]", [true; 3]),
            ("1 == 1 ? input.a : 'a'", [true; 3]),
        ] {
            for (problem, what, is_fine) in [
                (key_problem(text), "a string", is_key),
                (number_problem(text), "a number", is_number),
                (condition_problem(text), "a boolean", is_condition),
            ] {
                let expected = format!("expected a CEL expression that returns {what}, got {text:?}");
                assert_eq!(problem, (!is_fine).then_some(expected));
            }
        }
    }
}
