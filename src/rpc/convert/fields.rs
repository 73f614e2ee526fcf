//! Fields of the REST API's JSON that can be missing in several ways.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::model::RunStatus;

/// Deserializes a list that can be `null`.
pub(super) fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(source).map(Option::unwrap_or_default)
}

/// Deserializes an id that can be missing: `null`, an empty string, or zeros.
pub(super) fn optional_id<'de, D: Deserializer<'de>, I: From<Uuid>>(source: D) -> Result<Option<I>, D::Error> {
    let Some(text) = Option::<Cow<'de, str>>::deserialize(source)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let id: Uuid = text.parse().map_err(serde::de::Error::custom)?;
    Ok((!id.is_nil()).then(|| id.into()))
}

pub(super) fn status<'de, D: Deserializer<'de>>(source: D) -> Result<RunStatus, D::Error> {
    Cow::<'de, str>::deserialize(source).map(|name| RunStatus::from_name(&name))
}
