//! Pages of lists, and the tokens to continue after them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{TaskId, Total};
use crate::error::{Error, Result};

/// A page of matching runs or tasks, newest first, and the number of all matching items.
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client) -> hatchet::Result<()> {
/// use hatchet::model::Window;
///
/// let all = hatchet.runs(Window::all());
/// let first = all.page(50).await?;
/// println!("{} of {}", first.items.len(), first.total);
/// if let Some(token) = first.next {
///     let second = all.after(token).page(50).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The matching runs or tasks, newest first.
    pub items: Vec<T>,
    /// The number of all matching runs or tasks.
    pub total: Total,
    /// The token of the next page. `None` if there are no more items.
    pub next: Option<PageToken>,
}

impl<T> Page<T> {
    /// Iterates over the items of the page.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }
}

/// The items of the page. Its total and its token are dropped.
impl<T> IntoIterator for Page<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Page<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Where the next page begins; see [`RunQuery::after`](crate::builder::RunQuery::after).
///
/// A token can be sent to another process as a string. It is valid only for the same filter. Its length is about 60 characters, or up to
/// 22,000 if the page ends within a bulk of 1000 runs, which have the same creation time.
///
/// ```
/// use hatchet::model::PageToken;
///
/// assert!("not a token".parse::<PageToken>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PageToken {
    /// Identifies the filter.
    pub(crate) filter: u64,
    /// The creation time of the last item.
    pub(crate) until: DateTime<Utc>,
    /// The number of rows of that time that were read.
    pub(crate) offset: u32,
    /// The rows of that time that were read.
    pub(crate) seen: Vec<TaskId>,
}

const VERSION: u8 = 1;

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(self.filter.to_be_bytes());
        bytes.extend(self.until.timestamp_micros().to_be_bytes());
        bytes.extend(self.offset.to_be_bytes());
        self.seen.iter().for_each(|row| bytes.extend(Uuid::from(*row).as_bytes()));
        f.pad(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for PageToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid =
            || Error::invalid("page token", "expected a token of this version of the crate, got another string");
        parse(&URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?).ok_or_else(invalid)
    }
}

fn parse(bytes: &[u8]) -> Option<PageToken> {
    let (version, rest) = bytes.split_first()?;
    let (filter, rest) = rest.split_first_chunk()?;
    let (until, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (seen, remainder) = rest.as_chunks::<16>();
    (*version == VERSION && remainder.is_empty()).then_some(())?;
    Some(PageToken {
        filter: u64::from_be_bytes(*filter),
        until: DateTime::from_timestamp_micros(i64::from_be_bytes(*until))?,
        offset: u32::from_be_bytes(*offset),
        seen: seen.iter().map(|id| Uuid::from_bytes(*id).into()).collect(),
    })
}

impl fmt::Debug for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageToken({})", self.until)
    }
}

impl Serialize for PageToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PageToken {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tokens_are_parsed_from_their_strings(
            filter in any::<u64>(), micros in 0i64..4_000_000_000_000_000, offset in any::<u32>(),
            seen in proptest::collection::vec(any::<u128>(), 0..5),
        ) {
            let until = DateTime::from_timestamp_micros(micros).unwrap();
            let seen = seen.into_iter().map(|id| Uuid::from_u128(id).into()).collect();
            let token = PageToken { filter, until, offset, seen };
            prop_assert_eq!(&token.to_string().parse::<PageToken>().unwrap(), &token);
            let json = serde_json::to_string(&token).unwrap();
            prop_assert_eq!(serde_json::from_str::<PageToken>(&json).unwrap(), token);
        }

        #[test]
        fn any_other_string_is_rejected_or_parsed(text in ".*") {
            if let Ok(token) = text.parse::<PageToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
