//! Tests that read the project's own files.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of a folder of the project and of the folders in it, sorted.
pub(crate) fn in_folder(name: &str) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(name)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
