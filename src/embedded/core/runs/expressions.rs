//! Expressions of tasks: evaluated when a task is created, on the input and the metadata of its run.

use serde_json::Value;

use crate::embedded::core::expression::{Environment, Expression, Names, StepValue, object};
use crate::embedded::core::store::{Cel, Core, TaskKey};

/// A name that definitions may use, and that has no value.
const PARENTS: &str = "parents";
/// How many errors of an expression cel-go reports.
const MAX_ERRORS: usize = 100;
/// The maximum size in bytes of a line that cel-go shows in an error.
const MAX_LINE_BYTES: usize = 16_384;
/// The engine's error for an empty expression.
pub(crate) const EMPTY: &str = "ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// What the expressions of a task are evaluated on.
pub(crate) struct Scope {
    input: Value,
    metadata: Value,
    task: Value,
}

impl Scope {
    pub(crate) fn of(core: &Core, key: TaskKey) -> Option<Self> {
        let (run, task) = core.runs.task(key)?;
        let parse = |text| object(&serde_json::from_str(text).unwrap_or_default());
        Some(Self { input: parse(run.last_input()), metadata: parse(&run.metadata), task: task.id.to_string().into() })
    }

    /// The value of an expression, if it is a string. `what` names it in the error.
    pub(crate) fn text(&self, cel: &Cel, what: &str) -> Result<String, String> {
        self.string(cel, what).map_err(|problem| failed(&cel.text, &problem))
    }

    /// The same, with an error that does not contain the expression.
    pub(crate) fn string(&self, cel: &Cel, what: &str) -> Result<String, String> {
        match self.value(cel)? {
            StepValue::Text(value) => Ok(value),
            StepValue::Number(_) => Err(format!("expected string output for {what}, got int")),
        }
    }

    /// The value of an expression, if it is a number. Doubles are truncated.
    pub(crate) fn number(&self, cel: &Cel, what: &str) -> Result<i64, String> {
        match self.value(cel).map_err(|problem| failed(&cel.text, &problem))? {
            StepValue::Number(value) => Ok(value),
            StepValue::Text(_) => Err(failed(&cel.text, &format!("expected int output for {what}, got string"))),
        }
    }

    fn value(&self, cel: &Cel) -> Result<StepValue, String> {
        if let Some(problem) = undeclared(&cel.text) {
            return Err(problem);
        }
        // Only definitions of batches may have invalid expressions: others are rejected.
        let Some(expression) = &cel.parsed else { return Err("it is not valid CEL".into()) };
        let names = [("input", &self.input), ("additional_metadata", &self.metadata), ("workflow_run_id", &self.task)];
        expression.step_value(&Names(&names))
    }
}

/// The error of expressions that use `parents`: definitions accept that, but it has no value. One error for each use, as many as
/// cel-go reports.
fn undeclared(text: &str) -> Option<String> {
    let positions = uses(text, PARENTS);
    // The word can also be the variable of a macro, or be a part of a string.
    if positions.is_empty() || Expression::parse(text, &Environment::KEY).is_ok() {
        return None;
    }
    let mut errors: Vec<_> = positions.iter().take(MAX_ERRORS).map(|position| undeclared_at(text, *position)).collect();
    if let Some(others @ 1..) = positions.len().checked_sub(MAX_ERRORS) {
        errors.push(format!("{others} more errors were truncated"));
    }
    Some(errors.join("\n"))
}

/// The error of one use, with its line in the format of cel-go.
fn undeclared_at(text: &str, position: usize) -> String {
    let before = text.get(..position).unwrap_or_default();
    let line = before.matches('\n').count();
    let start = before.rsplit('\n').next().unwrap_or_default();
    let column = start.chars().count() + 1;
    let problem =
        format!("ERROR: <input>:{}:{column}: undeclared reference to '{PARENTS}' (in container '')", line + 1);
    let source = text.split('\n').nth(line).unwrap_or_default();
    if source.len() > MAX_LINE_BYTES {
        return problem;
    }
    let dots: String = start.chars().map(|char| if char.is_ascii() { '.' } else { '\u{ff0e}' }).collect();
    format!("{problem}\n | {}\n | {dots}^", source.replace('\t', " "))
}

/// The positions at which an expression uses a name.
fn uses(text: &str, name: &str) -> Vec<usize> {
    let (mut found, mut quote, mut word) = (Vec::new(), None, String::new());
    let mut before = ' ';
    for (position, char) in text.char_indices().chain([(text.len(), ' ')]) {
        let is_word = char.is_ascii_alphanumeric() || char == '_';
        if quote.is_none() && !is_word {
            if word == name && before != '.' {
                found.push(position - word.len());
            }
            if !char.is_whitespace() || !word.is_empty() {
                before = char;
            }
        }
        match quote {
            Some(open) if char == open => quote = None,
            None if char == '\'' || char == '"' => quote = Some(char),
            _ => {}
        }
        if quote.is_none() && is_word {
            word.push(char);
        } else {
            word.clear();
        }
    }
    found
}

/// The error of a task whose expression cannot be evaluated.
pub(crate) fn failed(text: &str, problem: &str) -> String {
    format!("failed to parse step expression ({text}): {problem}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_of_an_undeclared_name_are_found() {
        for (text, positions) in [
            ("'p-'+parents.a.x", vec![5]),
            ("parents.a.x + parents.b.y", vec![0, 14]),
            ("input.parents", vec![]),
            ("'parents' + input.x", vec![]),
            ("xparents + parents_ + \"it's parents\"", vec![]),
        ] {
            assert_eq!(uses(text, PARENTS), positions, "{text}");
        }
        let error =
            "ERROR: <input>:1:6: undeclared reference to 'parents' (in container '')\n | 'p-'+parents.a.x\n | .....^";
        assert_eq!(undeclared("'p-'+parents.a.x").as_deref(), Some(error));
        // Characters that are not ASCII have a wide dot, and tabs are shown as spaces.
        let error =
            "ERROR: <input>:2:7: undeclared reference to 'parents' (in container '')\n | 'é '+ parents.a\n | .．....^";
        assert_eq!(undeclared("input.x +\n'é\t'+ parents.a").as_deref(), Some(error));
        // A long line is not shown, and the number of errors is limited.
        let error = undeclared(&vec![PARENTS; 10_000].join("+")).unwrap();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines[1], "ERROR: <input>:1:9: undeclared reference to 'parents' (in container '')");
        assert_eq!((lines.len(), lines[100]), (101, "9900 more errors were truncated"));
        for text in ["input.x", "input.list.exists(parents, parents == 1) ? 'a' : 'b'", r"'it\'s parents'"] {
            assert_eq!(undeclared(text), None, "{text}");
        }
    }
}
