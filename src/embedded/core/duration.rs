//! The engine's grammar for lengths of time.

use std::time::Duration;

use crate::time::parse_length;

pub(super) const REFUSAL: &str = "Invalid duration. Durations must be one or more <number><unit> components, where unit is one of: 'ms', 's', 'm', 'h'. For example: '10s', '1h30m', '1.5h'";

/// Reads `1h30m`, `1.5s`, `.5s`, `500ms`. No days.
pub(super) fn parse(text: &str) -> Option<Duration> {
    parse_length(text, &[("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)])
}

/// How the engine writes a delay: `2s`, `1.5s`.
pub(super) fn text(length: Duration) -> String {
    format!("{}s", length.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_engine_accepts_and_refuses() {
        for (text, millis) in [
            ("0s", 0),
            ("60s", 60_000),
            ("1.5s", 1_500),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1m1m", 120_000),
            (".5s", 500),
            ("1.s", 1_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "60", "1d", "-5s", "1 s", "1S", "1us", "5s ", " 5s", "abc", "9999999h", ".s", "1.2.3s"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(super::text(Duration::from_millis(2250)), "2.25s");
        assert_eq!(super::text(Duration::from_secs(2)), "2s");
    }

    proptest! {
        #[test]
        fn what_this_crate_writes_the_engine_reads(millis in 0u64..10_000_000) {
            let length = Duration::from_millis(millis);
            prop_assert_eq!(parse(&crate::time::duration_text(length)), Some(length));
        }
    }
}
