//! Compares `docs/acceptance.md` with the names of the tests. The name of a test begins with the id of its row.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

#[path = "support/files.rs"]
mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const TABLE: &str = include_str!("../docs/acceptance.md");

#[test]
fn each_row_has_a_test() {
    let mut names = BTreeSet::new();
    for path in files::in_directory("tests").iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs")) {
        names.extend(test_names(&fs::read_to_string(path).unwrap()).into_iter().map(str::to_owned));
    }

    let problems = problems(TABLE, &names);

    assert!(problems.is_empty(), "docs/acceptance.md does not match the tests:\n{}", problems.join("\n"));
}

#[test]
fn all_kinds_of_mismatches_are_reported() {
    let table = "| a1 | tested | yes |\n| a2 | untested | yes |\n| a3 | tested | not yet |\n| a4 | untested | not yet |\n\
                 | a1 | again | yes |\n| a6 | unclear | maybe |\n| a7 | a | b | yes |";
    let names = ["a1_x", "a3_x", "a5_x", "another_test", "h2_is_not_an_id_of_the_table"].map(str::to_owned);

    assert_eq!(
        problems(table, &names.into()),
        [
            "row a1 occurs twice",
            "row a6 has the state \"maybe\", expected \"yes\" or \"not yet\"",
            "row a7 has 4 cells, expected 3",
            "row a2 is \"yes\", but no test begins with a2_",
            "row a3 is \"not yet\", but there is the test a3_x",
            "the test a5_x has no row",
        ]
    );
}

#[test]
fn test_names_are_found_in_both_forms() {
    let source = "rows! {\n    a1_x,\n    a2_x, a3_x,\n}\nasync fn a1_x(setup: Setup) {}\n#[test]\nfn a4_x() {}\n\
                  #[tokio::test(start_paused = true)]\n#[ignore]\nasync fn a5_x() {}\nfn a6_helper() {}";

    assert_eq!(test_names(source), ["a1_x", "a2_x", "a3_x", "a4_x", "a5_x"]);
}

fn problems(table: &str, names: &BTreeSet<String>) -> Vec<String> {
    let (mut states, mut problems) = (BTreeMap::new(), Vec::new());
    for line in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (id, state) = (cells[0], cells[cells.len() - 1]);
        if !is_id(id) {
            continue;
        }
        if cells.len() != 3 {
            problems.push(format!("row {id} has {} cells, expected 3", cells.len()));
        } else if !["yes", "not yet"].contains(&state) {
            problems.push(format!("row {id} has the state {state:?}, expected \"yes\" or \"not yet\""));
        } else if states.insert(id, state).is_some() {
            problems.push(format!("row {id} occurs twice"));
        }
    }
    let mut tests: BTreeMap<&str, &str> = BTreeMap::new();
    for name in names {
        if let Some((id, _)) = name.split_once('_').filter(|(id, _)| is_id(id)) {
            tests.entry(id).or_insert(name);
        }
    }
    for (id, state) in &states {
        match (*state, tests.get(id)) {
            ("yes", None) => problems.push(format!("row {id} is \"yes\", but no test begins with {id}_")),
            ("not yet", Some(name)) => problems.push(format!("row {id} is \"not yet\", but there is the test {name}")),
            _ => {}
        }
    }
    let sections: BTreeSet<_> = states.keys().map(|id| &id[..1]).collect();
    let without_row = tests.iter().filter(|(id, _)| sections.contains(&id[..1]) && !states.contains_key(*id));
    problems.extend(without_row.map(|(_, name)| format!("the test {name} has no row")));
    problems
}

/// One lower-case letter and a number.
fn is_id(text: &str) -> bool {
    let number = text.strip_prefix(|letter: char| letter.is_ascii_lowercase());
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The functions with a test attribute, and those in the `rows!` lists of the conformance suite.
fn test_names(source: &str) -> Vec<&str> {
    let (mut names, mut in_rows, mut is_test) = (Vec::new(), false, false);
    for line in source.lines().map(str::trim) {
        if in_rows {
            in_rows = line != "}";
            names.extend(line.trim_end_matches('}').split(',').map(str::trim).filter(|name| !name.is_empty()));
        } else if line == "rows! {" {
            in_rows = true;
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            if is_test {
                names.extend(rest.split(['(', '<']).next());
            }
            is_test = false;
        }
    }
    names
}
