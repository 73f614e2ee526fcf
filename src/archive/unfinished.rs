//! What a process that was killed leaves in a local directory: an object is written to a file with another name first, `<name>#<number>`. The
//! store does not list these files.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::{MANIFEST, RUNS};

/// A file whose object was never created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnfinishedFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Finds the unfinished files of an archive that have not changed since `last`. It blocks.
pub(super) fn find(root: &Path, last: SystemTime) -> io::Result<Vec<UnfinishedFile>> {
    let (mut directories, mut found) = (vec![root.join(RUNS), root.join(MANIFEST)], Vec::new());
    while let Some(directory) = directories.pop() {
        let Some(entries) = if_exists(fs::read_dir(&directory))? else { continue };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if is_unfinished(&entry.file_name()) {
                found.extend(unchanged(&entry, last)?);
            }
        }
    }
    Ok(found)
}

/// Deletes an unfinished file. It is not an error if there is none. It blocks.
pub(super) fn delete(file: &UnfinishedFile) -> io::Result<()> {
    if_exists(fs::remove_file(&file.path)).map(|_| ())
}

fn unchanged(entry: &DirEntry, last: SystemTime) -> io::Result<Option<UnfinishedFile>> {
    let Some(metadata) = if_exists(entry.metadata())? else { return Ok(None) };
    let file = UnfinishedFile { path: entry.path(), bytes: metadata.len() };
    Ok((metadata.is_file() && metadata.modified()? <= last).then_some(file))
}

fn is_unfinished(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.rsplit_once('#')).map_or("", |(_, number)| number);
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// Another process may have finished or deleted it.
fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_number_are_unfinished() {
        for (name, expected) in [
            ("a.parquet#1", true),
            ("a.parquet#12", true),
            ("a#b.json#3", true),
            ("a.parquet", false),
            ("a.parquet#", false),
            ("a#1.parquet", false),
            ("a.parquet#x1", false),
        ] {
            assert_eq!(is_unfinished(OsStr::new(name)), expected, "{name}");
        }
    }
}
