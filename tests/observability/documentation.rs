//! The events in the documentation of `telemetry`, and the fields that each event has.

use std::collections::BTreeSet;

use super::files;

/// The names in the documentation of `telemetry` are those of the code.
#[test]
fn each_event_is_documented_and_each_documented_event_exists() {
    let documentation = std::fs::read_to_string("src/telemetry/mod.rs").unwrap();
    let rows = documentation.lines().filter_map(|line| line.strip_prefix("//! | `")?.split_once("` | `"));
    let levels = ["ERROR", "WARN", "INFO", "DEBUG"];
    let rows = rows.filter(|(level, _)| levels.contains(level));
    let documented: BTreeSet<_> =
        rows.map(|(level, row)| (level.to_owned(), row.split('`').next().unwrap().to_owned())).collect();
    let mut logged = BTreeSet::new();
    for path in files::in_directory("src") {
        let source = std::fs::read_to_string(&path).unwrap();
        for (level, event) in logged_events(&source) {
            let message =
                event.trim_end_matches([',', '\n', ' ']).strip_suffix('"').and_then(|event| event.rsplit_once('"'));
            let (_, message) = message.unwrap_or_else(|| panic!("{}: no message in {event}", path.display()));
            logged.insert((level.to_uppercase(), message.to_owned()));
        }
    }
    let unknown: Vec<_> = documented.difference(&logged).collect();
    assert!(unknown.is_empty() && documented.len() > 60, "documented, and never logged: {unknown:#?}");
    // Only some events for debugging are documented.
    let missing: Vec<_> = logged.difference(&documented).filter(|(level, _)| levels[..3].contains(&&**level)).collect();
    assert!(missing.is_empty(), "logged, and not documented: {missing:#?}");
}

/// The events of the crate that are about a run, a task or an attempt have its ids, if these are known where it occurs.
#[test]
fn o1_each_event_about_a_run_or_an_attempt_has_its_ids() {
    /// Those are about others, such as a definition, or the ids are what cannot be read.
    const WITHOUT: [&str; 4] = [
        "stream of run events failed",
        "stream of run events failed again",
        "failed to decode a batch",
        "a rate limit has fewer units than an attempt of a task consumes; the task never starts",
    ];
    let (mut count, mut without) = (0, BTreeSet::new());
    for path in files::in_directory("src") {
        for (_, event) in logged_events(&std::fs::read_to_string(&path).unwrap()) {
            let Some((fields, message)) = event.trim_end_matches([',', '\n', ' ', '"']).split_once('"') else {
                continue;
            };
            let has_word =
                |words: &[&str]| message.split(|c: char| !c.is_alphabetic()).any(|word| words.contains(&word));
            let is_about_attempt = has_word(&["attempt", "task", "assignment"]);
            if let Some(known) = WITHOUT.iter().find(|known| **known == message) {
                without.insert(*known);
            } else if is_about_attempt || has_word(&["run"]) {
                count += 1;
                let has = |name: &str| fields.contains(&format!("{name} = ")) || fields.contains(&format!(" {name},"));
                let needed = if is_about_attempt { &["run_id", "task_id", "attempt"][..] } else { &["run_id"] };
                assert!(needed.iter().all(|name| has(name)), "{}: {needed:?} in {event}", path.display());
            }
        }
    }
    assert!(count > 15, "{count}");
    assert_eq!(without.len(), WITHOUT.len(), "{without:?}");
}

/// The level of each event of a source file, and what is between its parentheses.
fn logged_events(source: &str) -> Vec<(&'static str, &str)> {
    let levels = ["error", "warn", "info", "debug", "trace"];
    // What tests log is not documented.
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let events = source.split("tracing::").filter_map(|rest| {
        levels.iter().find_map(|level| Some((*level, rest.strip_prefix(level)?.strip_prefix("!(")?)))
    });
    events.map(|(level, rest)| (level, &rest[..length_of_arguments(rest)])).collect()
}

/// The number of bytes before the parenthesis that closes the arguments of a macro.
fn length_of_arguments(source: &str) -> usize {
    let (mut depth, mut is_text) = (1, false);
    let closing = source.char_indices().find(|(_, character)| {
        match character {
            '"' => is_text = !is_text,
            '(' if !is_text => depth += 1,
            ')' if !is_text => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    closing.unwrap().0
}
