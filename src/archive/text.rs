//! Durations and numbers in messages.

use std::fmt;
use std::time::Duration;

/// A duration in its largest whole unit: `30 days`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length(pub(super) Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(24 * 3600, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
        match units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit)) {
            Some((unit, name)) if self.0.subsec_nanos() == 0 => Count(seconds / unit, name).fmt(f),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

/// A number of things: `1 file`, `2 files`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count(pub(super) u64, pub(super) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, name) = self;
        write!(f, "{count} {name}{}", if *count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_largest_whole_unit() {
        for (seconds, text) in [
            (30 * 24 * 3600, "30 days"),
            (24 * 3600, "1 day"),
            (36 * 3600, "36 hours"),
            (5400, "90 minutes"),
            (61, "61 seconds"),
            (0, "0ns"),
        ] {
            assert_eq!(Length(Duration::from_secs(seconds)).to_string(), text);
        }
        assert_eq!(Length(Duration::from_millis(1500)).to_string(), "1.5s");
        assert_eq!(Length(Duration::from_millis(500)).to_string(), "500ms");
    }
}
