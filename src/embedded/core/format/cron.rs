//! Cron expressions: when a cron fires next.

use chrono::{
    DateTime, Datelike as _, Days, NaiveDate, NaiveDateTime, NaiveTime, Offset as _, TimeDelta, TimeZone as _,
    Timelike as _, Utc,
};
use chrono_tz::Tz;

use crate::model::cron::{Expression, Schedule};

type At = DateTime<Utc>;

/// Where the search for the next time ends. There is a 29th of February at least every eight years.
const MAX_YEARS_AHEAD: i32 = 9;

/// A schedule in a time zone.
#[derive(Debug, Clone)]
pub(crate) struct CronSchedule {
    schedule: Schedule,
    zone: Tz,
}

impl CronSchedule {
    /// Parses what a definition may contain. `None` if the expression or its time zone is invalid.
    pub(crate) fn of_definition(text: &str) -> Option<Self> {
        Self::new(Expression::parse(text).map(Schedule::Calendar).ok()?)
    }

    /// Parses what REST accepts.
    pub(crate) fn of_rest(text: &str) -> Option<Self> {
        Self::new(Schedule::parse(text).ok()?)
    }

    fn new(schedule: Schedule) -> Option<Self> {
        let zone = match &schedule {
            Schedule::Calendar(expression) if !expression.zone.is_empty() => expression.zone.parse().ok()?,
            _ => Tz::UTC,
        };
        Some(Self { schedule, zone })
    }

    /// The first time after another. `None` for a day that does not exist in any year.
    pub(crate) fn next(&self, after: At) -> Option<At> {
        let expression = match &self.schedule {
            Schedule::Every(length) => return Some(after.with_nanosecond(0)? + *length),
            Schedule::Calendar(expression) => expression,
        };
        let (mut since, mut offset) = (after, self.offset(after));
        let mut shown = (after + offset).naive_utc();
        loop {
            // Assumes that the offset stays the same. If it changes before the result, searches again from the change.
            let next = (expression.next(shown)? - offset).and_utc();
            let Some(change) = self.change(since, next) else { return Some(next) };
            (since, offset) = (change, self.offset(change));
            shown = (change + offset).naive_utc() - TimeDelta::seconds(1);
        }
    }

    /// The first change of the zone's offset between two times.
    fn change(&self, after: At, until: At) -> Option<At> {
        if self.zone == Tz::UTC {
            return None;
        }
        let mut before = after.with_nanosecond(0)?;
        while before < until {
            let mut later = until.min(before + TimeDelta::days(1));
            if self.offset(later) != self.offset(before) {
                while later - before > TimeDelta::seconds(1) {
                    let middle = before + TimeDelta::seconds((later - before).num_seconds() / 2);
                    *if self.offset(middle) == self.offset(before) { &mut before } else { &mut later } = middle;
                }
                return Some(later);
            }
            before = later;
        }
        None
    }

    /// The zone's offset from UTC.
    fn offset(&self, at: At) -> TimeDelta {
        let offset = self.zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        TimeDelta::seconds(offset.local_minus_utc().into())
    }
}

impl Expression {
    /// The first local time after another.
    fn next(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let start = after.with_nanosecond(0)? + TimeDelta::seconds(1);
        let (mut day, mut from) = (start.date(), start.time());
        let last = day.year() + MAX_YEARS_AHEAD;
        while day.year() <= last {
            if !has(self.months, day.month()) {
                day = next_month(day)?;
                from = NaiveTime::MIN;
            } else if let Some(time) = self.is_day(day).then(|| self.time(from)).flatten() {
                return Some(day.and_time(time));
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

    /// The first time of a day that is `from` or later.
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
            ("@every 90s", "2026-01-01T00:00:09.25Z", Some("2026-01-01T00:01:39Z")),
            ("TZ=Asia/Kolkata @daily", "2026-01-01T00:00:00Z", Some("2026-01-01T18:30:00Z")),
            ("TZ=Europe/Oslo 0 9 * * *", "2026-01-01T07:59:59Z", Some("2026-01-01T08:00:00Z")),
            ("TZ=Europe/Oslo 0 9 * * *", "2026-03-28T08:00:00Z", Some("2026-03-29T07:00:00Z")),
            ("TZ=Europe/Oslo 0 9 1 7 *", "2026-01-01T08:00:00Z", Some("2026-07-01T07:00:00Z")),
            // What the clock leaves out in March is not made up for; what it shows twice in October fires twice.
            ("TZ=Europe/Oslo 30 2 * * *", "2026-03-28T01:30:00Z", Some("2026-03-30T00:30:00Z")),
            ("TZ=Europe/Oslo 30 2 * * *", "2026-10-24T22:00:00Z", Some("2026-10-25T00:30:00Z")),
            ("TZ=Europe/Oslo 30 2 * * *", "2026-10-25T00:30:00Z", Some("2026-10-25T01:30:00Z")),
            ("TZ=Europe/Oslo 30 2 * * *", "2026-10-25T01:30:00Z", Some("2026-10-26T01:30:00Z")),
            ("TZ=Europe/Oslo 0 0 31 2 *", "2026-03-01T00:00:00Z", None),
        ] {
            assert_eq!(CronSchedule::of_rest(text).unwrap().next(at(after)), next.map(at), "{text} after {after}");
        }
    }

    proptest! {
        /// Second by second, the first that all fields allow is the next one.
        #[test]
        fn it_is_what_counting_finds(
            second in 0u32..60, minute in 0u32..60, hour in 0u32..24, step in 1u32..20, start in 0i64..40_000_000,
        ) {
            let after = at("2026-01-01T00:00:00Z") + chrono::TimeDelta::seconds(start);
            let cron = CronSchedule::of_definition(&format!("{second}/{step} {minute}-59 {hour}-23 * * *")).unwrap();
            let counted = (1..200_000).map(|seconds| after + chrono::TimeDelta::seconds(seconds)).find(|at| {
                at.second() >= second && (at.second() - second).is_multiple_of(step) && at.minute() >= minute && at.hour() >= hour
            });
            prop_assert_eq!(cron.next(after), counted);
        }

        /// Minute by minute, the first at which the zone's clock shows the wanted time.
        #[test]
        fn it_is_what_the_clock_of_the_zone_shows(
            zone in proptest::sample::select(vec!["Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
            minute in 0u32..60, hour in 0u32..24, start in 0i64..40_000_000,
        ) {
            let after = at("2026-01-01T00:00:00Z") + TimeDelta::seconds(start);
            let cron = CronSchedule::of_definition(&format!("TZ={zone} {minute} {hour} * * *")).unwrap();
            let zone: Tz = zone.parse().unwrap();
            let first = after.with_second(0).unwrap();
            let counted = (1..5_000).map(|minutes| first + TimeDelta::minutes(minutes)).find(|at| {
                let shown = at.with_timezone(&zone);
                (shown.hour(), shown.minute()) == (hour, minute)
            });
            prop_assert_eq!(cron.next(after), counted);
        }
    }

    #[test]
    fn unknown_zones_are_rejected() {
        assert!(CronSchedule::of_definition("TZ=Europe/Atlantis 0 9 * * *").is_none());
        assert!(CronSchedule::of_rest("CRON_TZ=Nowhere @daily").is_none());
        assert!(CronSchedule::of_definition("TZ= 0 9 * * *").is_some());
    }
}
