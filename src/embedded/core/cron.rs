//! Cron expressions, as the engine's parser takes them: five fields, or six with seconds first.

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveTime, Timelike as _, Utc};

use super::types::{At, Fault};

/// Where the search for the next time ends: no February is the 29th for at most eight years.
const FURTHEST: i32 = 9;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// What crons that are created by REST may be, and those of a definition may not.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// An expression: the numbers that each field allows, as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expression {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: Field,
    months: u64,
    weekdays: Field,
}

/// Of the two that name a day, one that is a star leaves it to the other; two that are none mean any of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    allowed: u64,
    star: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    Invalid,
    /// There are no time zones here but one.
    Zone(String),
    /// There is no `@every` here.
    Every,
}

impl Problem {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Invalid => Fault::invalid("Invalid cron expression"),
            Self::Zone(zone) => Fault::unimplemented(&format!("crons of the time zone {zone}")),
            Self::Every => Fault::unimplemented("@every of crons"),
        }
    }
}

impl Expression {
    /// What a definition may say.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let mut words: Vec<_> = text.split_whitespace().collect();
        if let Some(first) = words.first().copied()
            && let Some(zone) = first.strip_prefix("TZ=").or_else(|| first.strip_prefix("CRON_TZ="))
        {
            words.remove(0);
            if !["UTC", "Etc/UTC", "GMT", "Etc/GMT", "Z", ""].contains(&zone) {
                // What is wrong with the rest is wrong in any zone.
                fields(&words)?;
                return Err(Problem::Zone(zone.to_owned()));
            }
        }
        fields(&words)
    }

    /// The same, and the shorthands.
    pub(crate) fn parse_any(text: &str) -> Result<Self, Problem> {
        if text.trim_start().starts_with("@every ") {
            return Err(Problem::Every);
        }
        let known = SHORTHANDS.into_iter().find(|(name, _)| *name == text.trim());
        Self::parse(known.map_or(text, |(_, meaning)| meaning))
    }

    /// The first time after a moment. None for a day that no year has.
    pub(crate) fn next(&self, after: At) -> Option<At> {
        let start = after.with_nanosecond(0)? + chrono::TimeDelta::seconds(1);
        let (mut day, mut from) = (start.date_naive(), start.time());
        let last = day.year() + FURTHEST;
        while day.year() <= last {
            if !has(self.months, day.month()) {
                day = next_month(day)?;
                from = NaiveTime::MIN;
            } else if let Some(time) = self.is_day(day).then(|| self.time(from)).flatten() {
                return Some(DateTime::from_naive_utc_and_offset(day.and_time(time), Utc));
            } else {
                day = day.checked_add_days(Days::new(1))?;
                from = NaiveTime::MIN;
            }
        }
        None
    }

    fn is_day(&self, day: NaiveDate) -> bool {
        let (date, weekday) =
            (has(self.days.allowed, day.day()), has(self.weekdays.allowed, day.weekday().num_days_from_sunday()));
        if self.days.star || self.weekdays.star { date && weekday } else { date || weekday }
    }

    /// The first time of a day that is not before one.
    fn time(&self, from: NaiveTime) -> Option<NaiveTime> {
        let after = |allowed: u64, least: u32| (least..60).find(|number| has(allowed, *number));
        let whole = |hour| NaiveTime::from_hms_opt(hour, after(self.minutes, 0)?, after(self.seconds, 0)?);
        let hour = after(self.hours, from.hour())?;
        if hour > from.hour() {
            return whole(hour);
        }
        let minute = after(self.minutes, from.minute());
        let same = minute.filter(|minute| *minute == from.minute());
        if let Some(second) = same.and_then(|_| after(self.seconds, from.second())) {
            return NaiveTime::from_hms_opt(hour, from.minute(), second);
        }
        let least = from.minute() + u32::from(same.is_some());
        if let Some(minute) = after(self.minutes, least) {
            return NaiveTime::from_hms_opt(hour, minute, after(self.seconds, 0)?);
        }
        whole(after(self.hours, hour + 1)?)
    }
}

fn has(allowed: u64, number: u32) -> bool {
    allowed.checked_shr(number).is_some_and(|bits| bits & 1 == 1)
}

fn next_month(day: NaiveDate) -> Option<NaiveDate> {
    match day.month() {
        12 => NaiveDate::from_ymd_opt(day.year() + 1, 1, 1),
        month => NaiveDate::from_ymd_opt(day.year(), month + 1, 1),
    }
}

fn fields(words: &[&str]) -> Result<Expression, Problem> {
    let with_seconds = |fields: [&str; 6]| -> Option<Expression> {
        let [seconds, minutes, hours, days, months, weekdays] = fields;
        Some(Expression {
            seconds: field(seconds, 0, 59, &[])?.allowed,
            minutes: field(minutes, 0, 59, &[])?.allowed,
            hours: field(hours, 0, 23, &[])?.allowed,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?.allowed,
            weekdays: field(weekdays, 0, 6, &WEEKDAYS)?,
        })
    };
    let expression = match *words {
        [minutes, hours, days, months, weekdays] => with_seconds(["0", minutes, hours, days, months, weekdays]),
        [seconds, minutes, hours, days, months, weekdays] => {
            with_seconds([seconds, minutes, hours, days, months, weekdays])
        }
        _ => None,
    };
    expression.ok_or(Problem::Invalid)
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

    fn at(text: &str) -> At {
        text.parse().unwrap()
    }

    #[test]
    fn what_the_engine_accepts_and_refuses() {
        for text in [
            "* * * * *",
            "*/3 * * * * *",
            "0 9 * JAN MON",
            "0 9 ? * MON-FRI",
            "  0  9 * * *",
            "0 0 31 2 *",
            "TZ=UTC 0 9 * * *",
            "CRON_TZ=Etc/UTC 0 9 * * *",
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
        ] {
            assert_eq!(Expression::parse(text), Err(Problem::Invalid), "{text}");
        }
        assert_eq!(Expression::parse("TZ=Europe/Oslo 0 9 * * *"), Err(Problem::Zone("Europe/Oslo".into())));
        assert_eq!(Expression::parse_any("@hourly"), Expression::parse("0 * * * *"));
        assert_eq!(Expression::parse_any("@every 1m"), Err(Problem::Every));
        assert_eq!(Expression::parse_any("@never"), Err(Problem::Invalid));
    }

    #[test]
    fn the_next_times() {
        for (text, after, next) in [
            ("* * * * *", "2026-01-01T12:00:00Z", Some("2026-01-01T12:01:00Z")),
            ("*/3 * * * * *", "2026-01-01T12:00:00.5Z", Some("2026-01-01T12:00:03Z")),
            ("*/3 * * * * *", "2026-01-01T12:00:57Z", Some("2026-01-01T12:01:00Z")),
            ("0 9 * * *", "2026-01-01T09:00:00Z", Some("2026-01-02T09:00:00Z")),
            ("30 9 * * *", "2026-12-31T09:31:00Z", Some("2027-01-01T09:30:00Z")),
            ("59 23 28 2 *", "2026-03-01T00:00:00Z", Some("2027-02-28T23:59:00Z")),
            ("0 0 29 2 *", "2096-03-01T00:00:00Z", Some("2104-02-29T00:00:00Z")),
            ("0 0 31 2 *", "2026-03-01T00:00:00Z", None),
            // A Thursday; and then both the 13th and each Friday.
            ("0 0 13 * FRI", "2026-01-01T00:00:00Z", Some("2026-01-02T00:00:00Z")),
            ("0 0 13 * FRI", "2026-01-09T00:00:00Z", Some("2026-01-13T00:00:00Z")),
            ("0 0 13 * ?", "2026-01-01T00:00:00Z", Some("2026-01-13T00:00:00Z")),
            ("15,45 8-10 * * *", "2026-01-01T08:45:00Z", Some("2026-01-01T09:15:00Z")),
            ("10 0 0 1 JAN *", "2026-01-01T00:00:09Z", Some("2026-01-01T00:00:10Z")),
        ] {
            assert_eq!(Expression::parse(text).unwrap().next(at(after)), next.map(at), "{text} after {after}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[ -~]{0,20}") {
            let _ = Expression::parse_any(&text).map(|expression| expression.next(at("2026-01-01T00:00:00Z")));
        }

        /// Second by second, the first that all fields allow is the next one.
        #[test]
        fn it_is_what_counting_finds(
            second in 0u32..60, minute in 0u32..60, hour in 0u32..24, step in 1u32..20, start in 0i64..40_000_000,
        ) {
            let after = at("2026-01-01T00:00:00Z") + chrono::TimeDelta::seconds(start);
            let expression = Expression::parse(&format!("{second}/{step} {minute}-59 {hour}-23 * * *")).unwrap();
            let counted = (1..200_000).map(|seconds| after + chrono::TimeDelta::seconds(seconds)).find(|at| {
                at.second() >= second && (at.second() - second).is_multiple_of(step) && at.minute() >= minute && at.hour() >= hour
            });
            prop_assert_eq!(expression.next(after), counted);
        }
    }
}
