//! Holds what the embedded engine said against what the real one said.
//!
//! Ids, trace contexts and numbers of events are made up anew each time: they must only stand in the same places. Times
//! must be the same distance from the start, give or take, and what was stamped once must show the same stamp everywhere.
//! All else must be equal, to the blank.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::tokens::{Token, replace, split};

/// Above this a duration is the engine's way of saying that one of its ends is not known.
const ENDLESS: i64 = 1_000_000_000_000;

pub(crate) struct Compare {
    /// When the run was started, there and here.
    theirs: DateTime<Utc>,
    pub(crate) ours: DateTime<Utc>,
    pub(crate) slack: TimeDelta,
    names: Pairs<String>,
    numbers: Pairs<(String, i64)>,
    stamps: HashMap<DateTime<Utc>, DateTime<Utc>>,
    /// Whether times of one row that differ in the recording must differ here.
    pub(crate) apart: bool,
    pub(crate) differences: Vec<String>,
}

/// Which of theirs is which of ours, both ways.
struct Pairs<K> {
    there: HashMap<K, K>,
    back: HashMap<K, K>,
}

impl<K: Hash + Eq + Clone + Debug> Pairs<K> {
    fn new() -> Self {
        Self { there: HashMap::new(), back: HashMap::new() }
    }

    fn is_same(&mut self, theirs: &K, ours: &K) -> bool {
        self.there.entry(theirs.clone()).or_insert_with(|| ours.clone()) == ours
            && self.back.entry(ours.clone()).or_insert_with(|| theirs.clone()) == theirs
    }
}

/// Times of one row that are equal or not by chance.
const BY_CHANCE: [(&str, &str); 3] =
    [("createdAt", "startedAt"), ("metadata.createdAt", "queuedAt"), ("queuedAt", "taskInsertedAt")];

/// The times of a row, by their names.
type Times = BTreeMap<String, DateTime<Utc>>;

fn times(row: &Map<String, Value>) -> Times {
    let own = row.iter().map(|(name, value)| (name.clone(), value));
    let created = row.get("metadata").and_then(|metadata| metadata.get("createdAt"));
    let all = own.chain(created.map(|value| ("metadata.createdAt".to_owned(), value)));
    all.filter_map(|(name, value)| Some((name, value.as_str()?.parse().ok()?))).collect()
}

/// Whether we may say more than the recording has. Recordings are trimmed, so in general we may.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Extra {
    Allowed,
    Forbidden,
}

impl Compare {
    pub(crate) fn new(theirs: DateTime<Utc>, ours: DateTime<Utc>, slack: TimeDelta) -> Self {
        let (names, numbers) = (Pairs::new(), Pairs::new());
        Self { theirs, ours, slack, names, numbers, stamps: HashMap::new(), apart: false, differences: Vec::new() }
    }

    /// The moment here that a moment there stands for.
    pub(crate) fn moment(&self, theirs: DateTime<Utc>) -> DateTime<Utc> {
        self.ours + (theirs - self.theirs)
    }

    /// Our name for one of theirs, if it has come up.
    pub(crate) fn name(&self, theirs: &str) -> String {
        self.names.there.get(theirs).cloned().unwrap_or_else(|| theirs.to_owned())
    }

    /// A request of theirs in our terms: with our ids, at our times. A stamp of theirs that has come up is ours for it.
    pub(crate) fn translate(&self, request: &Value, late: TimeDelta) -> Value {
        match request {
            Value::String(text) => replace(text, |token| match token {
                Token::Name(name) => self.name(name),
                Token::Time(at) => {
                    let ours = self.stamps.get(at).copied().unwrap_or_else(|| self.moment(*at) + late);
                    ours.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
                }
            })
            .into(),
            Value::Array(items) => items.iter().map(|item| self.translate(item, late)).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.translate(value, late))).collect(),
            other => other.clone(),
        }
    }

    pub(crate) fn differ(&mut self, path: &str, what: impl Debug) {
        self.differences.push(format!("{path}: {what:?}"));
    }

    pub(crate) fn check(&mut self, path: &str, extra: Extra, theirs: &Value, ours: &Value) {
        match (theirs, ours) {
            (Value::Object(theirs), Value::Object(ours)) => {
                if self.apart {
                    self.check_apart(path, &times(theirs), &times(ours));
                }
                for (key, value) in theirs {
                    match ours.get(key) {
                        Some(our) => self.check(&format!("{path}.{key}"), extra, value, our),
                        None => self.differ(&format!("{path}.{key}"), format!("recorded {value}, missing here")),
                    }
                }
                for (key, value) in
                    ours.iter().filter(|(key, _)| extra == Extra::Forbidden && !theirs.contains_key(*key))
                {
                    self.differ(&format!("{path}.{key}"), format!("not recorded, here {value}"));
                }
            }
            (Value::Array(theirs), Value::Array(ours)) => {
                if theirs.len() != ours.len() {
                    self.differ(
                        path,
                        format!("recorded {} items, here {}: {theirs:?} {ours:?}", theirs.len(), ours.len()),
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
                    self.differ(path, format!("recorded {theirs}, here {ours}"));
                }
            }
            _ if theirs == ours => {}
            _ => self.differ(path, format!("recorded {theirs}, here {ours}")),
        }
    }

    /// Two times that differ in the recording must differ here: otherwise a client that confuses them passes all tests.
    fn check_apart(&mut self, path: &str, theirs: &Times, ours: &Times) {
        let pairs =
            theirs.iter().enumerate().flat_map(|(at, one)| theirs.iter().skip(at + 1).map(move |other| (one, other)));
        for ((name, at), (other, later)) in pairs {
            let one = ours.get(name).is_some_and(|our| Some(our) == ours.get(other));
            if at != later && one && !BY_CHANCE.contains(&(name.as_str(), other.as_str())) {
                self.differ(path, format!("{name} and {other} differ in the recording and are equal here"));
            }
        }
    }

    fn is_same_number(&mut self, path: &str, theirs: i64, ours: i64) -> bool {
        match path.rsplit('.').next().unwrap_or_default() {
            "at_ms" => TimeDelta::milliseconds(theirs - ours).abs() <= self.slack,
            "duration" if theirs != 0 && theirs.abs() < ENDLESS => {
                TimeDelta::milliseconds(theirs - ours).abs() <= self.slack
            }
            key @ ("id" | "taskId") => self.numbers.is_same(&(key.into(), theirs), &(key.into(), ours)),
            _ => theirs == ours,
        }
    }

    fn check_text(&mut self, path: &str, theirs: &str, ours: &str) {
        // Bytes are base64 in JSON; it is the text in them that is compared.
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
            self.differ(path, format!("recorded {theirs:?}, here {ours:?}"));
        }
    }

    fn is_same_time(&mut self, path: &str, theirs: DateTime<Utc>, ours: DateTime<Utc>) -> bool {
        if theirs == ours {
            return true;
        }
        // In a message for people, the time is cut to the second.
        let cut = if path.ends_with(".message") { TimeDelta::seconds(1) } else { TimeDelta::zero() };
        let near = (self.moment(theirs) - ours).abs() <= self.slack + cut;
        near && *self.stamps.entry(theirs).or_insert(ours) == ours
    }

    /// Events of a task come newest first by their stamps. Where theirs are a few milliseconds apart, chance made the order.
    pub(crate) fn check_events(&mut self, path: &str, extra: Extra, theirs: &Value, ours: &Value) {
        let task = |row: &Value| row["taskId"].as_str().unwrap().to_owned();
        let key = |row: &Value, task: String| (row["eventType"].clone(), row["retryCount"].clone(), task);
        let at = |row: &Value| row["timestamp"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        let (theirs, ours) = (theirs["rows"].as_array().unwrap(), ours["rows"].as_array().unwrap());
        let mut last: Option<(DateTime<Utc>, usize)> = None;
        for row in theirs {
            let Some(place) = ours.iter().position(|our| key(our, task(our)) == key(row, self.name(&task(row)))) else {
                self.differ(path, format!("missing here: {row}"));
                continue;
            };
            self.check(&format!("{path}[{}]", row["eventType"]), extra, row, &ours[place]);
            if last.is_some_and(|(before, place_before)| {
                before - at(row) > TimeDelta::milliseconds(50) && place < place_before
            }) {
                self.differ(path, format!("out of order here: {}", ours[place]));
            }
            last = Some((at(row), place));
        }
        let known: Vec<_> = theirs.iter().map(|row| key(row, self.name(&task(row)))).collect();
        for row in ours.iter().filter(|row| !known.contains(&key(row, task(row)))) {
            self.differ(path, format!("not recorded, here {row}"));
        }
    }
}

#[test]
fn times_that_differ_in_a_recording_must_differ_here() {
    use serde_json::json;
    let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let row = |created: &str, shown: &str| json!({"metadata": {"createdAt": created}, "createdAt": shown, "startedAt": shown});
    let differences = |theirs: &Value, ours: &Value| {
        let mut compare = Compare::new(start, start, TimeDelta::seconds(1));
        compare.apart = true;
        compare.check("row", Extra::Forbidden, theirs, ours);
        compare.differences.len()
    };
    let (one, other) = ("2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.03Z");
    assert_eq!(differences(&row(one, other), &row(one, other)), 0);
    assert_eq!(differences(&row(one, other), &row(one, one)), 2, "of both other times");
    assert_eq!(differences(&row(one, one), &row(one, other)), 0, "the reverse is allowed");
}
