//! What was decided, and who decided it.

use std::fmt;

/// Which layer a value of a [`Config`](super::Config) came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A setter of the [`ConfigBuilder`](super::ConfigBuilder).
    Builder,
    /// The environment variable of this name.
    Environment(&'static str),
    /// The claim of this name in the API token.
    Claim(&'static str),
    /// It follows from another setting, named here: the TLS server name from the host, for example.
    Derived(&'static str),
    /// The embedded engine, which is in this process and needs no address.
    Embedded,
    /// Nothing said otherwise.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builder => f.write_str("builder"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Claim(name) => write!(f, "token claim {name}"),
            Self::Derived(name) => write!(f, "follows from {name}"),
            Self::Embedded => f.write_str("embedded engine"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One setting, its value and where that came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    name: &'static str,
    value: String,
    source: Source,
}

impl Entry {
    pub(super) const fn new(name: &'static str, value: String, source: Source) -> Self {
        Self { name, value, source }
    }

    /// The setting, by the name of its builder method.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The value as text. `(hidden)` for secrets, `(none)` when there is no value, `(not used)`
    /// when another setting makes it meaningless.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The layer that the value came from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }
}

/// A whole configuration with the origin of each value; made by
/// [`Config::explain`](super::Config::explain).
///
/// `Display` prints an aligned table with a line for each setting: name, value, source.
/// Secrets were left out when it was made, so it is safe to log.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a> {
    entries: &'a [Entry],
}

impl<'a> Explanation<'a> {
    pub(super) const fn new(entries: &'a [Entry]) -> Self {
        Self { entries }
    }

    /// The settings, always in the same order.
    pub fn iter(&self) -> std::slice::Iter<'a, Entry> {
        self.entries.iter()
    }

    /// The setting with this name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

impl<'a> IntoIterator for Explanation<'a> {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &Explanation<'a> {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |cell: fn(&Entry) -> &str| self.iter().map(|e| cell(e).chars().count()).max().unwrap_or(0);
        let (names, values) = (widest(|e| e.name), widest(|e| e.value.as_str()));
        for (line, Entry { name, value, source }) in self.iter().enumerate() {
            if line > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{name:<names$}  {value:<values$}  {source}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_by_characters() {
        let entries = [
            Entry::new("token", "(hidden)".to_owned(), Source::Environment("HATCHET_CLIENT_TOKEN")),
            Entry::new("host_port", "é:1".to_owned(), Source::Claim("grpc_broadcast_address")),
            Entry::new("namespace", "(none)".to_owned(), Source::Default),
        ];
        let explanation = Explanation::new(&entries);
        assert_eq!(
            explanation.to_string(),
            "token      (hidden)  environment variable HATCHET_CLIENT_TOKEN\n\
             host_port  é:1       token claim grpc_broadcast_address\n\
             namespace  (none)    default"
        );
        assert_eq!(explanation.into_iter().count(), 3);
        assert_eq!(explanation.get("host_port").map(Entry::value), Some("é:1"));
        assert_eq!(Explanation::new(&[]).to_string(), "");
    }
}
