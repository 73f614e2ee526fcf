//! The values of a configuration, with their sources.

use std::fmt;

/// The source of a value of a [`Config`](super::Config).
///
/// ```
/// use hatchet::config::Source;
///
/// assert_eq!(Source::Claim("sub").to_string(), "token claim sub");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A method of the [`ConfigBuilder`](super::ConfigBuilder).
    Builder,
    /// The environment variable with this name.
    Environment(&'static str),
    /// The claim with this name in the API token.
    Claim(&'static str),
    /// Another setting, which is named here. For example, the TLS server name is derived from the host.
    Derived(&'static str),
    /// The in-process engine, whose clients have its address, its tenant and its token.
    Embedded,
    /// The default, because no other source has a value.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builder => f.write_str("builder"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Claim(name) => write!(f, "token claim {name}"),
            Self::Derived(name) => write!(f, "derived from {name}"),
            Self::Embedded => f.write_str("embedded engine"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The value of one setting, with its source.
///
/// ```
/// use hatchet::config::Source;
/// # use hatchet::embedded::Engine;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// # let engine = Engine::start().await?;
/// # let client = engine.client();
/// let config = client.config();
/// let entry = config.explain().get("connect_timeout").unwrap();
/// assert_eq!((entry.value(), entry.source()), ("5s", Source::Default));
/// # engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
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

    /// Returns the name of the setting, which is the name of its method of [`ConfigBuilder`](super::ConfigBuilder).
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the value as a string: `(hidden)` for secrets, `(none)` if there is no value, `(not used)` if the value has no effect
    /// because of another setting.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns where the value comes from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }
}

/// All values of a configuration with their sources, returned by [`Config::explain`](super::Config::explain).
///
/// `Display` prints a table with one row for each setting: name, value and source. The table contains no secrets, so it can be logged.
///
/// ```no_run
/// let config = hatchet::Config::from_env()?;
/// for entry in config.explain() {
///     println!("{} = {} ({})", entry.name(), entry.value(), entry.source());
/// }
/// # Ok::<(), hatchet::config::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a> {
    entries: &'a [Entry],
}

impl<'a> Explanation<'a> {
    pub(super) const fn new(entries: &'a [Entry]) -> Self {
        Self { entries }
    }

    /// Iterates over the settings, always in the same order.
    pub fn iter(&self) -> std::slice::Iter<'a, Entry> {
        self.entries.iter()
    }

    /// Returns the setting with this name, or `None` if there is none.
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
        let max_width = |cell: fn(&Entry) -> &str| self.iter().map(|e| cell(e).chars().count()).max().unwrap_or(0);
        let (names, values) = (max_width(|e| e.name), max_width(|e| e.value.as_str()));
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
