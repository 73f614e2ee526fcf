//! Tests that read the project's own files.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of a directory of the project and of the directories in it, sorted.
pub(crate) fn in_directory(name: &str) -> Vec<PathBuf> {
    let (mut directories, mut found) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(name)], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
