//! When a cron fires next.

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveTime, Timelike as _, Utc};

use super::types::{At, Fault};
use crate::model::cron::{Expression, Problem};

/// Where the search for the next time ends: no February is the 29th for at most eight years.
const FURTHEST: i32 = 9;

impl Problem {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Invalid(_) => Fault::invalid("Invalid cron expression"),
            Self::Zone(zone) => Fault::unimplemented(&format!("crons of the time zone {zone}")),
            Self::Every => Fault::unimplemented("@every of crons"),
        }
    }
}

impl Expression {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> At {
        text.parse().unwrap()
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
