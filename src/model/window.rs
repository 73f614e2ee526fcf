//! Time windows.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::time::is_representable;

/// A time window for the creation of runs.
///
/// Both ends are inclusive.
///
/// ```
/// use std::time::Duration;
/// use hatchet::model::Window;
///
/// let hour = Window::last(Duration::from_secs(3600));
/// let since_new_year = Window::since("2027-01-01T00:00:00Z".parse().expect("a time"));
/// assert_ne!(hour, since_new_year);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The start, which can be relative to the time of the query.
    start: Start,
    /// The end, if there is one.
    #[serde(rename = "until")]
    end: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Start {
    At(DateTime<Utc>),
    Ago(Duration),
}

impl Window {
    /// Creates a window that begins `length` before each query, and has no end.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hatchet::model::Window;
    ///
    /// let day = Window::last(Duration::from_secs(24 * 3600));
    /// ```
    pub fn last(length: Duration) -> Self {
        Self { start: Start::Ago(length), end: None }
    }

    /// Creates a window that begins at `start` and has no end.
    ///
    /// ```
    /// use hatchet::model::Window;
    ///
    /// let window = Window::since("2026-11-01T00:00:00Z".parse().expect("a time"));
    /// ```
    pub fn since(start: DateTime<Utc>) -> Self {
        Self { start: Start::At(start), end: None }
    }

    /// Creates a window without limits.
    ///
    /// The engine drops runs after its retention period, which is 30 days by default; an archive keeps them.
    pub fn all() -> Self {
        Self { start: Start::At(DateTime::UNIX_EPOCH), end: None }
    }

    /// Sets the end of the window. By default, a window has no end. If this method is called several times, the last end applies.
    ///
    /// ```
    /// use hatchet::model::Window;
    ///
    /// let [start, end] = ["2026-11-01T00:00:00Z", "2026-11-30T23:59:59Z"].map(|time| time.parse().expect("a time"));
    /// let november = Window::since(start).until(end);
    /// ```
    #[must_use]
    pub fn until(self, end: DateTime<Utc>) -> Self {
        Self { end: Some(end), ..self }
    }

    pub(crate) fn start(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self.start {
            Start::At(at) => at,
            Start::Ago(length) => chrono::TimeDelta::from_std(length)
                .ok()
                .and_then(|length| now.checked_sub_signed(length))
                .map_or(DateTime::UNIX_EPOCH, |at| at.max(DateTime::UNIX_EPOCH)),
        }
    }

    pub(crate) fn end(&self) -> Option<DateTime<Utc>> {
        self.end
    }

    /// The same window, up to another end if that is earlier.
    #[cfg(feature = "archive")]
    pub(crate) fn up_to(self, end: DateTime<Utc>) -> Self {
        Self { end: Some(self.end.map_or(end, |own| own.min(end))), ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        let start = match self.start {
            Start::At(at) => Some(at),
            Start::Ago(_) => None,
        };
        if let Some(at) = start.into_iter().chain(self.end).find(|at| !is_representable(at)) {
            return Err(Error::invalid("filter", format_args!("expected a window in the years 1 to 9999, got {at}")));
        }
        match (self.start, self.end) {
            (Start::At(start), Some(end)) if end < start => Err(Error::invalid(
                "filter",
                format_args!(
                    "expected a window that ends after its start, got an end at {end}, before the start at {start}"
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: u32) -> DateTime<Utc> {
        format!("2026-11-{day:02}T00:00:00Z").parse().unwrap()
    }

    #[test]
    fn a_window_counts_back_from_when_it_is_asked_and_never_past_the_beginning() {
        assert_eq!(Window::last(Duration::from_secs(86_400)).start(day(2)), day(1));
        assert_eq!(Window::last(Duration::MAX).start(day(2)), DateTime::UNIX_EPOCH);
        assert_eq!(Window::since(day(1)).start(day(2)), day(1));
        for at in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
            assert!(
                Window::since(at).check().unwrap_err().to_string().contains("expected a window in the years 1 to 9999")
            );
        }
        assert!(Window::last(Duration::MAX).check().is_ok());
    }
}
