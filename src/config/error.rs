//! What is wrong with a configuration: everything at once.

use std::fmt;

/// A configuration cannot be built; lists *every* problem, not just the first.
///
/// The text is one line that counts them, then a line for each:
///
/// ```
/// use hatchet::{Config, TlsStrategy};
/// use std::time::Duration;
///
/// let error = Config::builder()
///     .host_port("localhost:70700")
///     .tls_strategy(TlsStrategy::None)
///     .rpc_timeout(Duration::ZERO)
///     .build()
///     .unwrap_err();
///
/// assert_eq!(error.problems().len(), 3);
/// assert_eq!(error.to_string(), "\
/// 3 problems in the configuration
///   token: found nothing, accepted: an API token (a JWT: three base64url parts joined by dots)
///   host_port: found \"localhost:70700\" (a port that is not 1 to 65535), accepted: host:port, \
/// plain or after http://, https://, grpc:// or grpcs://, an IPv6 host in brackets
///   rpc_timeout: found 0ns, accepted: 1ms to 24h");
/// ```
///
/// # What to do
///
/// Print it and stop: it is about how the program was started, so trying again changes nothing.
/// It never contains the token or a private key.
///
/// An [`Error`](crate::Error) that is converted from it has the same text, and this error as its source:
///
/// ```
/// use std::error::Error as _;
/// use hatchet::{Config, ConfigError};
///
/// let error = hatchet::Error::from(Config::builder().build().unwrap_err());
/// let problems = error.source().and_then(|source| source.downcast_ref::<ConfigError>()).unwrap().problems();
/// assert_eq!(problems[0].name(), "token");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) const fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// Every problem that was found, in the order of the settings. Never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("1 problem in the configuration")?,
            n => write!(f, "{n} problems in the configuration")?,
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl From<ConfigError> for crate::Error {
    fn from(error: ConfigError) -> Self {
        Self::new(crate::ErrorKind::Config, error.to_string()).unsent().with_source(error)
    }
}

impl std::error::Error for ConfigError {}

/// One bad or missing value, as part of a [`ConfigError`].
///
/// Reads `NAME: found "tsl", accepted: none, tls, mtls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    name: String,
    found: String,
    accepted: String,
}

impl Problem {
    pub(super) const fn new(name: String, found: String, accepted: String) -> Self {
        Self { name, found, accepted }
    }

    /// Where the value came from, or where it is missing: the environment variable, else the
    /// builder's field, else `token claim NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was found: in quotes when it is the value itself, else a description of it.
    /// Never the token or a private key.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What would have been accepted.
    #[must_use]
    pub fn accepted(&self) -> &str {
        &self.accepted
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, accepted: {}", self.name, self.found, self.accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_and_lists() {
        let problem = |name: &str| Problem::new(name.to_owned(), "\"tsl\"".to_owned(), "none, tls, mtls".to_owned());
        assert_eq!(
            ConfigError::new(vec![problem("A")]).to_string(),
            "1 problem in the configuration\n  A: found \"tsl\", accepted: none, tls, mtls"
        );
        let two = ConfigError::new(vec![problem("A"), problem("B")]);
        assert_eq!(
            two.to_string(),
            "2 problems in the configuration\n  A: found \"tsl\", accepted: none, tls, mtls\n  B: found \"tsl\", accepted: none, tls, mtls"
        );
        assert_eq!(two.problems().iter().map(Problem::name).collect::<Vec<_>>(), ["A", "B"]);
    }
}
