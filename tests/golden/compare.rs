//! Compares responses of the embedded engine (`ours`) with recorded responses of the real one (`theirs`).
//!
//! Ids, trace contexts and event numbers differ in each run, but equal ones must be in the same places. Times must have the same distance
//! from the start, within a tolerance, and equal times must be in the same places. Everything else must be equal.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::tokens::{Token, replace, split};

/// The engine uses a larger duration, in milliseconds, if the start or the end is unknown.
const MAX_DURATION_MS: i64 = 1_000_000_000_000;

pub(crate) struct Compare {
    /// When the run was started.
    theirs: DateTime<Utc>,
    pub(crate) ours: DateTime<Utc>,
    pub(crate) tolerance: TimeDelta,
    names: Pairs<String>,
    numbers: Pairs<(String, i64)>,
    timestamps: HashMap<DateTime<Utc>, DateTime<Utc>>,
    /// Whether times of one row that differ in the recording must also differ in our response.
    pub(crate) distinct_times: bool,
    pub(crate) differences: Vec<String>,
}

/// The mapping between recorded values and ours, in both directions.
struct Pairs<K> {
    to_ours: HashMap<K, K>,
    to_theirs: HashMap<K, K>,
}

impl<K: Hash + Eq + Clone + Debug> Pairs<K> {
    fn new() -> Self {
        Self { to_ours: HashMap::new(), to_theirs: HashMap::new() }
    }

    fn is_same(&mut self, theirs: &K, ours: &K) -> bool {
        self.to_ours.entry(theirs.clone()).or_insert_with(|| ours.clone()) == ours
            && self.to_theirs.entry(ours.clone()).or_insert_with(|| theirs.clone()) == theirs
    }
}

/// Pairs of times of one row that may be equal or different.
const RANDOMLY_EQUAL: [(&str, &str); 3] =
    [("createdAt", "startedAt"), ("metadata.createdAt", "queuedAt"), ("queuedAt", "taskInsertedAt")];

/// The times of a row, by their names.
type Times = BTreeMap<String, DateTime<Utc>>;

fn times(row: &Map<String, Value>) -> Times {
    let own = row.iter().map(|(name, value)| (name.clone(), value));
    let created = row.get("metadata").and_then(|metadata| metadata.get("createdAt"));
    let all = own.chain(created.map(|value| ("metadata.createdAt".to_owned(), value)));
    all.filter_map(|(name, value)| Some((name, value.as_str()?.parse().ok()?))).collect()
}

/// Whether our response may have more fields than the recording. Usually it may, because recordings are trimmed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Extra {
    Allowed,
    Forbidden,
}

impl Compare {
    pub(crate) fn new(theirs: DateTime<Utc>, ours: DateTime<Utc>, tolerance: TimeDelta) -> Self {
        let (names, numbers) = (Pairs::new(), Pairs::new());
        Self {
            theirs,
            ours,
            tolerance,
            names,
            numbers,
            timestamps: HashMap::new(),
            distinct_times: false,
            differences: Vec::new(),
        }
    }

    /// Our time for a recorded time.
    pub(crate) fn our_time(&self, theirs: DateTime<Utc>) -> DateTime<Utc> {
        self.ours + (theirs - self.theirs)
    }

    /// Our name for a recorded name, or the same name if it is unknown.
    pub(crate) fn name(&self, theirs: &str) -> String {
        self.names.to_ours.get(theirs).cloned().unwrap_or_else(|| theirs.to_owned())
    }

    /// A recorded request with our ids and times. A recorded timestamp that is known becomes ours.
    pub(crate) fn translate(&self, request: &Value, delay: TimeDelta) -> Value {
        match request {
            Value::String(text) => replace(text, |token| match token {
                Token::Name(name) => self.name(name),
                Token::Time(at) => {
                    let ours = self.timestamps.get(at).copied().unwrap_or_else(|| self.our_time(*at) + delay);
                    ours.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
                }
            })
            .into(),
            Value::Array(items) => items.iter().map(|item| self.translate(item, delay)).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.translate(value, delay))).collect(),
            other => other.clone(),
        }
    }

    pub(crate) fn differ(&mut self, path: &str, what: impl Debug) {
        self.differences.push(format!("{path}: {what:?}"));
    }

    pub(crate) fn check(&mut self, path: &str, extra: Extra, theirs: &Value, ours: &Value) {
        match (theirs, ours) {
            (Value::Object(theirs), Value::Object(ours)) => {
                if self.distinct_times {
                    self.check_distinct_times(path, &times(theirs), &times(ours));
                }
                for (key, value) in theirs {
                    match ours.get(key) {
                        Some(our) => self.check(&format!("{path}.{key}"), extra, value, our),
                        None => self.differ(&format!("{path}.{key}"), format!("recorded {value}, got nothing")),
                    }
                }
                for (key, value) in
                    ours.iter().filter(|(key, _)| extra == Extra::Forbidden && !theirs.contains_key(*key))
                {
                    self.differ(&format!("{path}.{key}"), format!("not recorded, got {value}"));
                }
            }
            (Value::Array(theirs), Value::Array(ours)) => {
                if theirs.len() != ours.len() {
                    self.differ(
                        path,
                        format!("recorded {} items, got {}: {theirs:?} {ours:?}", theirs.len(), ours.len()),
                    );
                }
                for (at, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                    self.check(&format!("{path}[{at}]"), extra, theirs, ours);
                }
            }
            (Value::String(theirs), Value::String(ours)) => self.check_text(path, theirs, ours),
            (Value::Number(number), Value::Number(our)) => {
                let same = match (number.as_i64(), our.as_i64()) {
                    (Some(number), Some(our)) => self.is_same_number(path, number, our),
                    _ => number == our,
                };
                if !same {
                    self.differ(path, format!("recorded {theirs}, got {ours}"));
                }
            }
            _ if theirs == ours => {}
            _ => self.differ(path, format!("recorded {theirs}, got {ours}")),
        }
    }

    /// Two times that differ in the recording must also differ in our response. Otherwise a client that confuses them passes all tests.
    fn check_distinct_times(&mut self, path: &str, theirs: &Times, ours: &Times) {
        let pairs =
            theirs.iter().enumerate().flat_map(|(at, one)| theirs.iter().skip(at + 1).map(move |other| (one, other)));
        for ((name, at), (other, later)) in pairs {
            let one = ours.get(name).is_some_and(|our| Some(our) == ours.get(other));
            if at != later && one && !RANDOMLY_EQUAL.contains(&(name.as_str(), other.as_str())) {
                self.differ(path, format!("{name} and {other} differ in the recording, got equal times"));
            }
        }
    }

    fn is_same_number(&mut self, path: &str, theirs: i64, ours: i64) -> bool {
        match path.rsplit('.').next().unwrap_or_default() {
            "at_ms" => TimeDelta::milliseconds(theirs - ours).abs() <= self.tolerance,
            "duration" if theirs != 0 && theirs.abs() < MAX_DURATION_MS => {
                TimeDelta::milliseconds(theirs - ours).abs() <= self.tolerance
            }
            key @ ("id" | "taskId") => self.numbers.is_same(&(key.into(), theirs), &(key.into(), ours)),
            _ => theirs == ours,
        }
    }

    fn check_text(&mut self, path: &str, theirs: &str, ours: &str) {
        // Bytes are base64 in JSON. The decoded strings are compared.
        let decode = |text: &str| String::from_utf8(STANDARD.decode(text).ok()?).ok();
        if path.contains("response")
            && let (Some(theirs), Some(ours)) = (decode(theirs), decode(ours))
            && !theirs.is_empty()
        {
            return self.check_tokens(path, &theirs, &ours);
        }
        self.check_tokens(path, theirs, ours);
    }

    fn check_tokens(&mut self, path: &str, theirs: &str, ours: &str) {
        let (fixed, tokens) = split(theirs);
        let (our_fixed, our_tokens) = split(ours);
        let same = fixed == our_fixed
            && tokens.iter().zip(&our_tokens).all(|tokens| match tokens {
                (Token::Name(theirs), Token::Name(ours)) => self.names.is_same(theirs, ours),
                (Token::Time(theirs), Token::Time(ours)) => self.is_same_time(path, *theirs, *ours),
                _ => false,
            });
        if !same {
            self.differ(path, format!("recorded {theirs:?}, got {ours:?}"));
        }
    }

    fn is_same_time(&mut self, path: &str, theirs: DateTime<Utc>, ours: DateTime<Utc>) -> bool {
        if theirs == ours {
            return true;
        }
        // Times in messages are truncated to seconds.
        let truncated = if path.ends_with(".message") { TimeDelta::seconds(1) } else { TimeDelta::zero() };
        let near = (self.our_time(theirs) - ours).abs() <= self.tolerance + truncated;
        near && *self.timestamps.entry(theirs).or_insert(ours) == ours
    }

    /// The events of a task are sorted by timestamp, newest first. Recorded events within 50 ms of each other may have any order.
    pub(crate) fn check_events(&mut self, path: &str, extra: Extra, theirs: &Value, ours: &Value) {
        let task = |row: &Value| row["taskId"].as_str().unwrap().to_owned();
        let key = |row: &Value, task: String| (row["eventType"].clone(), row["retryCount"].clone(), task);
        let at = |row: &Value| row["timestamp"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        let (theirs, ours) = (theirs["rows"].as_array().unwrap(), ours["rows"].as_array().unwrap());
        let mut last: Option<(DateTime<Utc>, usize)> = None;
        for row in theirs {
            let Some(place) = ours.iter().position(|our| key(our, task(our)) == key(row, self.name(&task(row)))) else {
                self.differ(path, format!("expected {row}, got nothing"));
                continue;
            };
            self.check(&format!("{path}[{}]", row["eventType"]), extra, row, &ours[place]);
            if last.is_some_and(|(before, place_before)| {
                before - at(row) > TimeDelta::milliseconds(50) && place < place_before
            }) {
                self.differ(path, format!("wrong order: {}", ours[place]));
            }
            last = Some((at(row), place));
        }
        let known: Vec<_> = theirs.iter().map(|row| key(row, self.name(&task(row)))).collect();
        for row in ours.iter().filter(|row| !known.contains(&key(row, task(row)))) {
            self.differ(path, format!("not recorded, got {row}"));
        }
    }
}

#[test]
fn times_that_differ_in_a_recording_must_differ() {
    use serde_json::json;
    let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let row = |created: &str, shown: &str| json!({"metadata": {"createdAt": created}, "createdAt": shown, "startedAt": shown});
    let differences = |theirs: &Value, ours: &Value| {
        let mut compare = Compare::new(start, start, TimeDelta::seconds(1));
        compare.distinct_times = true;
        compare.check("row", Extra::Forbidden, theirs, ours);
        compare.differences.len()
    };
    let (one, other) = ("2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.03Z");
    assert_eq!(differences(&row(one, other), &row(one, other)), 0);
    assert_eq!(differences(&row(one, other), &row(one, one)), 2, "one difference for each of the other times");
    assert_eq!(differences(&row(one, one), &row(one, other)), 0, "times that are equal in the recording may differ");
}
