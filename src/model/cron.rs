//! Cron expressions in the engine's format: five fields, or six with seconds first. Invalid ones are rejected before they are sent. The
//! embedded engine uses the same parser.

use std::time::Duration;

use crate::time::parse_duration;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Shorthands, which are allowed for crons that are created by REST, and not for those of a definition.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The units of an `@every`.
const UNITS: [(&str, f64); 8] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// The name of a field, its minimum and maximum, and names for its numbers.
type Kind = (&'static str, u32, u32, &'static [&'static str]);
const SECOND: Kind = ("second", 0, 59, &[]);
const MINUTE: Kind = ("minute", 0, 59, &[]);
const HOUR: Kind = ("hour", 0, 23, &[]);
const DAY: Kind = ("day", 1, 31, &[]);
const MONTH: Kind = ("month", 1, 12, &MONTHS);
const WEEKDAY: Kind = ("weekday", 0, 6, &WEEKDAYS);

/// An expression: the numbers that each field allows, as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expression {
    /// The name of a time zone, which only an engine can look up. Empty for UTC.
    pub(crate) zone: Box<str>,
    pub(crate) seconds: u64,
    pub(crate) minutes: u64,
    pub(crate) hours: u64,
    pub(crate) days: Field,
    pub(crate) months: u64,
    pub(crate) weekdays: Field,
}

/// A field for days. If one of the two fields is `*`, the other one decides. If none is, a day must match only one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) allowed: u64,
    pub(crate) star: bool,
}

/// When a cron fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Schedule {
    Calendar(Expression),
    /// Whole seconds, and at least one.
    Every(Duration),
}

/// What was found, and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem(pub(crate) String);

impl Expression {
    /// What a definition may say.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let (zone, text) = split_zone(text);
        fields(zone, text)
    }
}

impl Schedule {
    /// What REST may say: also the shorthands.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let (zone, text) = split_zone(text);
        if let Some(length) = text.strip_prefix("@every ") {
            let length = parse_duration(length, &UNITS);
            let accepted = "@every and a length like 90s or 1h30m";
            let length = length.ok_or_else(|| Problem(format!("expected {accepted}, got {text:?}")))?;
            return Ok(Self::Every(Duration::from_secs(length.as_secs().max(1))));
        }
        let known = SHORTHANDS.into_iter().find(|(name, _)| *name == text);
        fields(zone, known.map_or(text, |(_, meaning)| meaning)).map(Self::Calendar)
    }
}

/// A time zone's name stands before everything else, not even after a blank.
fn split_zone(text: &str) -> (&str, &str) {
    let zoned = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
    let (zone, rest) = zoned.map_or(("", text), |zoned| zoned.split_once(' ').unwrap_or((zoned, "")));
    (zone, rest.trim())
}

fn fields(zone: &str, text: &str) -> Result<Expression, Problem> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [seconds, minutes, hours, days, months, weekdays] = match *words.as_slice() {
        [minutes, hours, days, months, weekdays] => ["0", minutes, hours, days, months, weekdays],
        [seconds, minutes, hours, days, months, weekdays] => [seconds, minutes, hours, days, months, weekdays],
        _ => {
            let count = words.len();
            return Err(Problem(format!("expected 5 fields, or 6 with seconds first, got {count}")));
        }
    };
    let read = |text: &str, (name, least, most, names): Kind| {
        let accepted = format_args!("{least} to {most}, *, lists, ranges and steps");
        field(text, least, most, names)
            .ok_or_else(|| Problem(format!("expected {accepted} as the {name}, got {text:?}")))
    };
    Ok(Expression {
        zone: zone.into(),
        seconds: read(seconds, SECOND)?.allowed,
        minutes: read(minutes, MINUTE)?.allowed,
        hours: read(hours, HOUR)?.allowed,
        days: read(days, DAY)?,
        months: read(months, MONTH)?.allowed,
        weekdays: read(weekdays, WEEKDAY)?,
    })
}

/// A list of ranges. Empty parts of it are passed over.
fn field(text: &str, least: u32, most: u32, names: &[&str]) -> Option<Field> {
    let mut all = Field { allowed: 0, star: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let one = range(part, least, most, names)?;
        all = Field { allowed: all.allowed | one.allowed, star: all.star | one.star };
    }
    Some(all)
}

fn range(text: &str, least: u32, most: u32, names: &[&str]) -> Option<Field> {
    let (bounds, step) = match text.split_once('/') {
        Some((bounds, step)) => (bounds, Some(number(step, &[], 0)?)),
        None => (text, None),
    };
    let (start, end, star) = if ["*", "?"].contains(&bounds) {
        // A step makes it a choice of its own.
        (least, most, step.is_none_or(|step| step == 1))
    } else if let Some((start, end)) = bounds.split_once('-') {
        (number(start, names, least)?, number(end, names, least)?, false)
    } else {
        let start = number(bounds, names, least)?;
        (start, if step.is_some() { most } else { start }, false)
    };
    let step = step.unwrap_or(1);
    if start < least || end > most || start > end || step == 0 {
        return None;
    }
    let numbers = (start..=end).step_by(usize::try_from(step).ok()?);
    Some(Field { allowed: numbers.fold(0, |bits, number| bits | 1 << number), star })
}

fn number(text: &str, names: &[&str], first: u32) -> Option<u32> {
    let text = text.to_lowercase();
    match names.iter().position(|name| *name == text) {
        Some(at) => Some(u32::try_from(at).ok()? + first),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_engine_accepts_and_rejects() {
        for text in [
            "* * * * *",
            "*/3 * * * * *",
            "0 9 * JAN MON",
            "0 9 ? * MON-FRI",
            "  0  9 * * *",
            "0 0 31 2 *",
            "TZ=UTC 0 9 * * *",
            "CRON_TZ=Europe/Oslo   0 9 * * *",
            "0 9 * * 0",
            "1,2,5-9/2 * * * *",
            "5/15 * * * *",
        ] {
            assert!(Expression::parse(text).is_ok(), "{text}");
        }
        for text in [
            "@daily",
            "@every 1m",
            "* * * *",
            "* * * * * * *",
            "",
            "60 * * * *",
            "0 9 * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "L * * * *",
            "* * 0 * *",
            "* * * 13 *",
            "-1 * * * *",
            "a * * * *",
            "* * L * *",
            "not a cron",
            " TZ=UTC 0 9 * * *",
            "TZ=UTC",
            "TZ=UTC 0 9 * *",
        ] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
        assert_eq!(&*Expression::parse("TZ=Europe/Oslo 0 9 * * *").unwrap().zone, "Europe/Oslo");
    }

    #[test]
    fn what_rest_accepts_beside_it() {
        for (text, same) in [("@hourly", "0 * * * *"), ("TZ=Asia/Tokyo @daily", "TZ=Asia/Tokyo 0 0 * * *")] {
            assert_eq!(Schedule::parse(text), Expression::parse(same).map(Schedule::Calendar), "{text}");
        }
        for (text, seconds) in [("@every 1m30s", 90), ("@every 1.5s", 1), ("@every 20ms", 1), ("@every 1000000µs", 1)]
        {
            assert_eq!(Schedule::parse(text), Ok(Schedule::Every(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["@every", "@every  90s", "@every 1 day", "@every x", "@every -1s", "@never", "@HOURLY"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, problem) in [
            ("0 9 * * 7", "expected 0 to 6, *, lists, ranges and steps as the weekday, got \"7\""),
            ("60 * * * *", "expected 0 to 59, *, lists, ranges and steps as the minute, got \"60\""),
            ("61 0 9 * * *", "expected 0 to 59, *, lists, ranges and steps as the second, got \"61\""),
            ("not a cron", "expected 5 fields, or 6 with seconds first, got 3"),
        ] {
            let Err(Problem(found)) = Expression::parse(text) else { panic!("{text}") };
            assert!(found.starts_with(problem), "{found}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[ -~]{0,20}") {
            let _ = Schedule::parse(&text);
        }
    }
}
