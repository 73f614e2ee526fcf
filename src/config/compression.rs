//! The compression of messages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The compression of gRPC messages.
///
/// ```
/// use hatchet::Config;
/// use hatchet::config::Compression;
///
/// let builder = Config::builder().compression(Compression::Gzip);
/// # let _ = builder;
/// assert_eq!(Compression::Gzip.as_str(), "gzip");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compression {
    /// No compression in either direction.
    #[default]
    None,
    /// Requests are compressed with gzip, and responses may be. This saves bandwidth. It does not allow larger messages, because the
    /// engine limits their size after decompression.
    Gzip,
}

impl Compression {
    /// Returns the value of `HATCHET_CLIENT_GRPC_COMPRESSION`: `none` or `gzip`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
        }
    }

    pub(super) fn from_name(text: &str) -> Option<Self> {
        [Self::None, Self::Gzip].into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text))
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Parses the value of its environment variable: `none` or `gzip`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other string.
    fn from_str(text: &str) -> Result<Self, Error> {
        let problem = || Error::invalid("compression", format_args!("expected none or gzip, got {text:?}"));
        Self::from_name(text).ok_or_else(problem)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
