//! The error of an invalid configuration, with all its problems.

use std::fmt;

/// The error of an invalid configuration, with all its problems.
///
/// `Display` prints the number of problems, and then one line for each problem:
///
/// ```
/// use hatchet::Config;
/// use hatchet::config::TlsStrategy;
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
///   token: expected an API token (a JWT: three base64url parts joined by dots), got no value
///   host_port: expected host:port, optionally after http://, https://, grpc:// or grpcs://, with an IPv6 host in \
/// brackets, got \"localhost:70700\" (port out of range 1 to 65535)
///   rpc_timeout: expected 1ms to 24h, got 0ns");
/// ```
///
/// # What to do
///
/// Print the error and exit. A retry fails in the same way. The error never contains the token or a private key.
///
/// `Error::from` converts a `ConfigError` to an [`Error`](crate::Error) with the same message, and with the `ConfigError` as its source:
///
/// ```
/// use std::error::Error as _;
/// use hatchet::Config;
/// use hatchet::config::ConfigError;
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

    /// Returns all problems, in the order of the settings. The slice is never empty.
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

impl crate::Error {
    /// Returns the [`ConfigError`], if an invalid configuration caused this error.
    ///
    /// ```
    /// use hatchet::{Config, Error};
    ///
    /// let error: Error = Config::builder().host_port("localhost").build().unwrap_err().into();
    /// assert!(error.config_error().is_some());
    /// ```
    pub fn config_error(&self) -> Option<&ConfigError> {
        std::error::Error::source(self)?.downcast_ref()
    }
}

impl From<ConfigError> for crate::Error {
    fn from(error: ConfigError) -> Self {
        Self::new(crate::ErrorKind::Config, error.to_string()).without_side_effects().with_source(error)
    }
}

impl std::error::Error for ConfigError {}

/// A missing or invalid value, as part of a [`ConfigError`].
///
/// ```
/// use hatchet::Config;
///
/// let error = Config::builder().build().unwrap_err();
/// let problem = &error.problems()[0];
/// assert_eq!((problem.name(), problem.got()), ("token", "no value"));
/// assert_eq!(problem.expected(), "an API token (a JWT: three base64url parts joined by dots)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    name: String,
    got: String,
    expected: String,
}

impl Problem {
    pub(super) const fn new(name: String, got: String, expected: String) -> Self {
        Self { name, got, expected }
    }

    /// Returns the environment variable, the method of the builder, or the claim of the token (`token claim NAME`) with the value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the value in quotes, or a description of the value. The text never contains the token or a private key.
    #[must_use]
    pub fn got(&self) -> &str {
        &self.got
    }

    /// Returns a description of the expected values.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, got {}", self.name, self.expected, self.got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_counts_and_lists_the_problems() {
        let problem = |name: &str| Problem::new(name.to_owned(), "\"tsl\"".to_owned(), "none, tls, mtls".to_owned());
        assert_eq!(
            ConfigError::new(vec![problem("A")]).to_string(),
            "1 problem in the configuration\n  A: expected none, tls, mtls, got \"tsl\""
        );
        let two = ConfigError::new(vec![problem("A"), problem("B")]);
        assert_eq!(
            two.to_string(),
            "2 problems in the configuration\n  A: expected none, tls, mtls, got \"tsl\"\n  B: expected none, tls, mtls, got \"tsl\""
        );
        assert_eq!(two.problems().iter().map(Problem::name).collect::<Vec<_>>(), ["A", "B"]);
    }
}
