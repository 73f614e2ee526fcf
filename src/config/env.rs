//! Access to environment variables and files.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// A source of environment variables and files.
///
/// It is a trait because a process has only one environment, and tests that run in parallel must not change it.
pub(super) trait Env {
    /// The value of a variable, if it is set.
    fn var(&self, name: &str) -> Option<OsString>;

    /// The content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The environment and the files of this process.
pub(super) struct ProcessEnv;

impl Env for ProcessEnv {
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
    fn variables_and_files_of_the_process_are_read() {
        assert!(ProcessEnv.var("PATH").is_some());
        assert_eq!(ProcessEnv.var("HATCHET_CLIENT_NO_SUCH_VARIABLE"), None);
        assert!(ProcessEnv.read(Path::new("no/such/file.pem")).is_err());
    }
}
