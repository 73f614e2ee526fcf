//! The engine's duration format.

use std::time::Duration;

/// The maximum of all durations that users can set. Longer ones overflow, in the engine first.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Parses durations like `1h30m` and `.5s`: numbers, each with one of the given units, which are pairs of a name and its seconds. `ms`
/// must come before `m`. Signs and blanks are not allowed. The maximum is 2^63 nanoseconds.
pub(crate) fn parse_duration(text: &str, units: &[(&str, f64)]) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, tail) = rest.split_at(number);
        if !digits.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (unit, tail) = units.iter().find_map(|(unit, seconds)| Some((seconds, tail.strip_prefix(unit)?)))?;
        total += digits.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok().filter(|length| i64::try_from(length.as_nanos()).is_ok())
}

/// Formats a duration for the engine: `90s`, `1500ms`.
///
/// The engine has no unit below a millisecond. Shorter durations are rounded up, because a timeout must not become zero.
pub(crate) fn format_duration(length: Duration) -> String {
    let millis = length.as_nanos().div_ceil(1_000_000);
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_written_duration_is_in_the_grammar_and_never_shorter(nanos in 0u64..=u64::MAX / 2) {
            let length = Duration::from_nanos(nanos);
            let text = format_duration(length);
            let (number, unit) = match text.strip_suffix("ms") {
                Some(number) => (number, 1),
                None => (text.strip_suffix('s').unwrap(), 1000),
            };
            let millis = number.parse::<u64>().unwrap() * unit;
            prop_assert!(Duration::from_millis(millis) >= length);
            prop_assert!(Duration::from_millis(millis) < length + Duration::from_millis(1));
        }
    }
}
