//! Parsing a kind of timeout.

use std::str::FromStr;

use super::TimeoutKind;
use super::name::parse_name;
use crate::error::Error;

impl FromStr for TimeoutKind {
    type Err = Error;

    /// Parses `execution` or `schedule`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(name: &str) -> Result<Self, Error> {
        parse_name("kind of timeout", &[Self::Execution, Self::Schedule], name)
    }
}
