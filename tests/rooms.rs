//! Data flows one way: a room uses only rooms above it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop on what it did not expect"
)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom.
const ROOMS: [&str; 16] = [
    "error",
    "runtime",
    "time",
    "config",
    "transport",
    "rpc",
    "model",
    "client",
    "run",
    "list",
    "trigger",
    "watch",
    "workflow",
    "worker",
    "raw",
    "embedded",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    found
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap().to_owned();
            let name = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (name, inside, text)
        })
        .collect()
}

/// What `lib.rs` shows at the top, and the room it comes from.
fn shown() -> HashMap<String, String> {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut shown = HashMap::new();
    for statement in lib.split(';').filter_map(|statement| statement.split("pub use ").nth(1)) {
        let (room, names) = statement.split_once("::").unwrap();
        for name in names.trim_matches(['{', '}']).split([',', '{', '}']).map(str::trim).filter(|name| !name.is_empty())
        {
            shown.insert(name.to_owned(), room.to_owned());
        }
    }
    shown
}

/// The rooms that a source names after `crate::`, also by what the top shows of them.
fn used(text: &str, shown: &HashMap<String, String>) -> Vec<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.match_indices("crate::").map(move |(at, name)| &line[at + name.len()..]))
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|name| !name.is_empty()))
        .map(|name| shown.get(name).cloned().unwrap_or_else(|| name.to_owned()))
        .collect()
}

fn place(room: &str) -> usize {
    ROOMS.iter().position(|name| *name == room).unwrap_or_else(|| panic!("{room} is not a room"))
}

#[test]
fn no_room_uses_a_later_one() {
    let (mut wrong, top) = (Vec::new(), shown());
    for (room, file, text) in all_sources().into_iter().filter(|(room, ..)| room != "lib") {
        for other in used(&text, &top) {
            if place(&other) > place(&room) {
                wrong.push(format!("{} uses {other}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_600_lines_of_code() {
    let code = |text: &str| text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    let long: Vec<_> =
        all_sources().into_iter().filter(|(.., text)| code(text) > 600).map(|(_, file, _)| file).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn what_must_not_be_public_is_seen_by_few_rooms_only() {
    // Generated messages stay with the calls; tonic and hyper stay with those that make them, or answer them.
    let rules: [(&str, &[&str]); 4] = [
        ("pb::", &["rpc", "raw", "embedded"]),
        ("prost_types::", &["time", "rpc", "embedded"]),
        ("hyper_util::", &["transport", "embedded"]),
        ("tonic::", &["transport", "rpc", "raw", "embedded"]),
    ];
    for (room, file, text) in all_sources() {
        for (name, rooms) in rules {
            let public = text.lines().any(|line| line.trim_start().starts_with("pub fn") && line.contains(name));
            assert!(!public || room == "raw", "{} shows {name} to users", file.display());
            assert!(!text.contains(name) || rooms.contains(&room.as_str()), "{} uses {name}", file.display());
        }
    }
}
