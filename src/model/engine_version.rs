//! Versions of the engine, and the options that need one.

use std::fmt;

/// A version of the engine. What follows the three numbers, such as `-alpha.1`, is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EngineVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl EngineVersion {
    /// The first version that has the concurrency strategies for queued runs.
    pub(crate) const QUEUED_STRATEGIES: Self = Self::new(0, 105, 16);
    /// The first version with `max_runs_expression` and tenant-scoped concurrency limits.
    pub(crate) const SHARED_LIMITS: Self = Self::new(0, 106, 5);
    /// The first version that supports the delay of a retry which a task chooses.
    pub(crate) const RETRY_DELAYS: Self = Self::new(0, 111, 0);

    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Parses `v0.104.7`, with or without the `v`. `None` for other strings, such as `dev`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next()?;
        let mut numbers = numbers.split('.').map(|number| number.parse().ok());
        let version = Self::new(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// An option that older engines reject, or ignore without an error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Requirement {
    /// The option, with the definition that it belongs to.
    pub(crate) option: String,
    /// The first version with the option.
    pub(crate) version: EngineVersion,
}

/// The options that an engine does not have, in one text. `None` is an engine that is too old to report its version.
pub(crate) fn unsupported(requirements: &[Requirement], found: Option<EngineVersion>) -> Option<String> {
    let found_text =
        found.map_or_else(|| "an engine that does not report its version".to_owned(), |found| found.to_string());
    let is_missing = |requirement: &&Requirement| found.is_none_or(|found| found < requirement.version);
    let missing = requirements.iter().filter(is_missing);
    let texts: Vec<_> = missing
        .map(|Requirement { option, version }| {
            format!("{option}: expected engine {version} or later, got {found_text}")
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_and_compared() {
        let parse = |text| EngineVersion::parse(text);
        assert_eq!(parse("v0.104.7"), Some(EngineVersion::new(0, 104, 7)));
        assert_eq!(parse("0.104.7-alpha.1+abc"), parse(" v0.104.7\n"));
        assert!(parse("v0.105.16") > parse("v0.105.9") && parse("v1.0.0") > parse("v0.999.0"));
        assert_eq!(parse("v0.104.7").unwrap().to_string(), "v0.104.7");
        for text in ["", "dev", "v1", "1.2", "1.2.x", "1.2.3.4", "v-1.2.3", "99999999999.0.0"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn missing_options_are_named_with_both_versions() {
        let requirement =
            |option: &str, patch| Requirement { option: option.into(), version: EngineVersion::new(0, 105, patch) };
        let requirements = [requirement("one", 1), requirement("two", 16)];
        let found = |patch| unsupported(&requirements, Some(EngineVersion::new(0, 105, patch)));
        assert_eq!(found(16), None);
        assert_eq!(found(2).unwrap(), "two: expected engine v0.105.16 or later, got v0.105.2");
        assert_eq!(
            unsupported(&requirements, None).unwrap(),
            "one: expected engine v0.105.1 or later, got an engine that does not report its version; \
             two: expected engine v0.105.16 or later, got an engine that does not report its version"
        );
        assert_eq!(unsupported(&[], None), None);
    }
}
