//! The engine's grammar of durations.

use std::time::Duration;

use crate::time::parse_duration;

/// What the engine's validator says about an invalid duration.
pub(crate) const REJECTION: &str = "Invalid duration. Durations must be one or more <number><unit> components, where unit is one of: 'ms', 's', 'm', 'h'. For example: '10s', '1h30m', '1.5h'";

/// Parses `1h30m`, `1.5s`, `.5s`, `500ms`. There is no unit for days.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    parse_duration(text, &[("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)])
}

/// Formats a duration as the engine does: `2s`, `1m30s`, `1h0m1.5s`, `500ms`.
pub(crate) fn text(length: Duration) -> String {
    let minutes = length.as_secs() / 60;
    let seconds = format!("{}s", Duration::new(length.as_secs() % 60, length.subsec_nanos()).as_secs_f64());
    match (minutes / 60, minutes % 60) {
        (0, 0) if length.is_zero() => "0s".into(),
        (0, 0) if length < Duration::from_millis(1) => format!("{}µs", length.as_secs_f64() * 1e6),
        (0, 0) if length < Duration::from_secs(1) => format!("{}ms", length.as_secs_f64() * 1e3),
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_engine_accepts_and_rejects() {
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
    }

    #[test]
    fn durations_are_formatted_as_in_go() {
        for (millis, text) in [
            (0, "0s"),
            (500, "500ms"),
            (2_000, "2s"),
            (2_250, "2.25s"),
            (60_000, "1m0s"),
            (90_500, "1m30.5s"),
            (3_600_000, "1h0m0s"),
            (86_400_000, "24h0m0s"),
        ] {
            assert_eq!(super::text(Duration::from_millis(millis)), text);
        }
        assert_eq!(super::text(Duration::from_micros(250)), "250µs");
    }

    proptest! {
        #[test]
        fn what_this_crate_writes_the_engine_parses(millis in 0u64..10_000_000) {
            let length = Duration::from_millis(millis);
            prop_assert_eq!(parse(&crate::time::format_duration(length)), Some(length));
        }
    }
}
