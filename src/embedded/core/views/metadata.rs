//! Filters on the metadata of runs, events, schedules and crons.

use serde_json::Value;

use crate::embedded::core::store::Run;

/// Pairs of a key and a value in metadata, as `key:value`.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetadataFilter {
    pairs: Vec<(String, String)>,
    match_any: bool,
}

/// A string that is not a pair.
#[derive(Debug)]
pub(crate) struct NoPair(pub(crate) String);

impl MetadataFilter {
    /// Splits each string at its first colon. Strings without one are ignored. Of several values for one key, the last counts.
    pub(crate) fn lenient<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut filter = Self::default();
        for (key, value) in texts.filter_map(|text| text.split_once(':')) {
            filter.replace(key, value);
        }
        filter
    }

    /// Splits each text at its first colon. Of several values for one key, the last counts.
    pub(crate) fn last_of_key<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, NoPair> {
        let mut filter = Self::default();
        for text in texts {
            let (key, value) = text.split_once(':').ok_or_else(|| NoPair(text.to_owned()))?;
            filter.replace(key, value);
        }
        Ok(filter)
    }

    /// Splits each text at its first colon. All pairs count.
    pub(crate) fn all<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, NoPair> {
        Self::of(texts.map(|text| text.split_once(':').ok_or_else(|| NoPair(text.to_owned()))))
    }

    /// Splits each text at its only colon. All pairs count.
    pub(crate) fn with_one_colon<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, NoPair> {
        let split = |text: &'a str| text.split_once(':').filter(|(_, value)| !value.contains(':'));
        Self::of(texts.map(|text| split(text).ok_or_else(|| NoPair(text.to_owned()))))
    }

    fn of<'a>(pairs: impl Iterator<Item = Result<(&'a str, &'a str), NoPair>>) -> Result<Self, NoPair> {
        let pairs = pairs.map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())));
        Ok(Self { pairs: pairs.collect::<Result<_, _>>()?, match_any: false })
    }

    fn replace(&mut self, key: &str, value: &str) {
        self.pairs.retain(|(other, _)| other != key);
        self.pairs.push((key.to_owned(), value.to_owned()));
    }

    /// Any of the pairs is enough. Without this, all of them are needed.
    pub(crate) fn match_any(self) -> Self {
        Self { match_any: true, ..self }
    }

    /// The number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(crate) fn matches_run(&self, run: &Run) -> bool {
        self.pairs.is_empty() || self.matches(serde_json::from_str(&run.metadata).ok().as_ref())
    }

    pub(crate) fn matches(&self, metadata: Option<&Value>) -> bool {
        if self.pairs.is_empty() {
            return true;
        }
        let has = |(key, wanted): &(String, String)| match metadata.and_then(|metadata| metadata.get(key)) {
            Some(Value::String(text)) => text == wanted,
            // With any-of, the engine also compares the JSON text of values that are not strings.
            Some(other) => self.match_any && serde_json::to_string(other).is_ok_and(|text| text == *wanted),
            None => false,
        };
        if self.match_any { self.pairs.iter().any(has) } else { self.pairs.iter().all(has) }
    }
}
