//! Checks of CEL expressions that need no parser. Only the engine parses CEL: what passes here can still be refused by it.

use super::payload::excerpt;

/// The problem of a text that cannot be a CEL expression.
pub(crate) fn expression_problem(text: &str) -> Option<String> {
    scan(text).err().map(|expected| describe(expected, text))
}

/// The problem of an expression that cannot return a key of runs or tasks. The engine offers no outputs of parents to such expressions,
/// and fails a task whose key is not a string.
pub(crate) fn key_problem(text: &str) -> Option<String> {
    input_problem(text).or_else(|| {
        let word = text.trim();
        let is_literal = ["true", "false", "null"].contains(&word) || word.parse::<f64>().is_ok();
        is_literal.then(|| describe("a CEL expression that returns a string", text))
    })
}

/// The problem of an expression over the input of a run, to which the engine offers no outputs of parents.
pub(crate) fn input_problem(text: &str) -> Option<String> {
    match scan(text) {
        Err(expected) => Some(describe(expected, text)),
        Ok(names) => {
            let uses_parents = names.contains(&"parents");
            uses_parents.then(|| describe("a CEL expression over input and additional_metadata, without parents", text))
        }
    }
}

fn describe(expected: &str, text: &str) -> String {
    format!("expected {expected}, got {:?}", excerpt(text))
}

/// The names that an expression uses, without those of fields and methods. The error is what was expected.
fn scan(text: &str) -> Result<Vec<&str>, &'static str> {
    if text.trim().is_empty() {
        return Err("a CEL expression");
    }
    if text.contains('\0') {
        return Err("a CEL expression without U+0000");
    }
    let (mut rest, mut open, mut names, mut is_field) = (text, Vec::new(), Vec::new(), false);
    while let Some(first) = rest.chars().next() {
        let was_field = std::mem::take(&mut is_field);
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find('\n').and_then(|end| comment.get(end..)).unwrap_or_default();
        } else if first.is_ascii_alphabetic() || first == '_' {
            let (word, after) = split_word(rest);
            if is_string_prefix(word) && after.starts_with(['"', '\'']) {
                rest = after_string(after, word.contains(['r', 'R']))?;
            } else {
                if !was_field {
                    names.push(word);
                }
                rest = after;
            }
        } else if first.is_ascii_digit() {
            // A suffix, such as that of `1u` or `0x1F`, is no name.
            rest = split_word(rest).1;
        } else if first == '"' || first == '\'' {
            rest = after_string(rest, false)?;
        } else {
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            match first {
                '(' => open.push(')'),
                '[' => open.push(']'),
                '{' => open.push('}'),
                ')' | ']' | '}' if open.pop() != Some(first) => return Err("a CEL expression with balanced brackets"),
                // A field may be separated by blanks from its dot.
                '.' => is_field = true,
                blank if blank.is_whitespace() => is_field = was_field,
                _ => {}
            }
        }
    }
    if open.is_empty() { Ok(names) } else { Err("a CEL expression with balanced brackets") }
}

fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Whether a string with these letters before its quote is a raw string or bytes.
fn is_string_prefix(word: &str) -> bool {
    ["r", "b", "rb", "br"].iter().any(|prefix| word.eq_ignore_ascii_case(prefix))
}

/// What follows a string, which begins with its quote.
fn after_string(text: &str, is_raw: bool) -> Result<&str, &'static str> {
    const UNCLOSED: &str = "a CEL expression whose strings are closed";
    let quote = text.get(..1).unwrap_or_default();
    let triple = quote.repeat(3);
    let is_long = text.starts_with(&triple);
    let end = if is_long { triple.as_str() } else { quote };
    let mut rest = text.get(end.len()..).unwrap_or_default();
    loop {
        if let Some(after) = rest.strip_prefix(end) {
            return Ok(after);
        }
        let mut chars = rest.chars();
        match chars.next() {
            None => return Err(UNCLOSED),
            Some('\n' | '\r') if !is_long => return Err(UNCLOSED),
            Some('\\') if !is_raw => drop(chars.next()),
            Some(_) => {}
        }
        rest = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_expressions_pass() {
        for text in [
            "input.tenant",
            "'constant'",
            "input['a)'] + \"(\" + additional_metadata.x",
            r"'it\'s' + 'b'",
            r"r'\' + 'x'",
            "b'a' == rb\"\\\"",
            "'''it's\nlong''' + \"\"\"\"a\"\"\"",
            "size(input.list.filter(x, x > 1u)) > 0x1F ? 'a' : 'b' // a ( comment",
            "input.parents + input . parents",
            "{'a': [1, 2]}.a[0] == 1",
        ] {
            assert_eq!(input_problem(text), None, "{text}");
        }
        assert_eq!(key_problem("input.tenant"), None);
        assert_eq!(expression_problem("parents.a.x == 1"), None);
    }

    #[test]
    fn expressions_that_cannot_be_valid_are_refused() {
        for (text, problem) in [
            ("", "expected a CEL expression, got \"\""),
            (" \n", "expected a CEL expression, got \" \\n\""),
            ("a\0", "expected a CEL expression without U+0000, got \"a\\0\""),
            ("size(input.a", "expected a CEL expression with balanced brackets, got \"size(input.a\""),
            ("input.a]", "expected a CEL expression with balanced brackets, got \"input.a]\""),
            ("(input.a]", "expected a CEL expression with balanced brackets, got \"(input.a]\""),
            ("'a", "expected a CEL expression whose strings are closed, got \"'a\""),
            ("'a\n'", "expected a CEL expression whose strings are closed, got \"'a\\n'\""),
            (r"'a\'", "expected a CEL expression whose strings are closed, got \"'a\\\\'\""),
        ] {
            assert_eq!(expression_problem(text).as_deref(), Some(problem));
        }
        assert_eq!(
            key_problem("parents.a.x").unwrap(),
            "expected a CEL expression over input and additional_metadata, without parents, got \"parents.a.x\""
        );
        for text in ["1", " 2.5", "true"] {
            assert!(key_problem(text).unwrap().starts_with("expected a CEL expression that returns a string, got"));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_scanned(text in ".*") {
            let _ = scan(&text);
        }

        #[test]
        fn texts_of_quotes_and_brackets_are_scanned(text in "[rb'\"\\\\()\\[\\].\n/a1 ]{0,20}") {
            let _ = scan(&text);
        }
    }
}
