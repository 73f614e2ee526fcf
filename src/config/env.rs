//! The two things this room reads from outside: variables and PEM files.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Where variables and files come from.
///
/// A trait, because a process has only one environment and changing it in a test is unsafe while
/// other tests run.
pub(super) trait World {
    /// The variable of this name, if it is set.
    fn var(&self, name: &str) -> Option<OsString>;

    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The environment and the files of this process.
pub(super) struct Process;

impl World for Process {
    fn var(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_variables_and_files() {
        assert!(Process.var("PATH").is_some());
        assert_eq!(Process.var("HATCHET_CLIENT_NO_SUCH_VARIABLE"), None);
        assert!(Process.read(Path::new("no/such/file.pem")).is_err());
    }
}
