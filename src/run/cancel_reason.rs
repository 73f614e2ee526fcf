//! Why a run is cancelled, and who requests it.

use crate::error::{Error, Result};
use crate::model::payload::excerpt;
use crate::observe::cancel_line;

/// Limits of this crate: a log line has at most 10,000 characters.
const MAX_REASON_LENGTH: usize = 4000;
const MAX_NAME_LENGTH: usize = 200;

/// The reason and the author of the cancellation of one of many runs; see
/// [`CancelManyBuilder::each`](crate::builder::CancelManyBuilder::each).
///
/// ```no_run
/// # async fn example(hatchet: hatchet::Client, first: hatchet::RunId, second: hatchet::RunId) -> hatchet::Result<()> {
/// let many = hatchet.cancel_many([first, second]).by("ada");
/// many.each(|id, reason| if id == first { reason.reason("duplicate") } else { reason }).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a reason has no effect unless it is returned"]
pub struct CancelReason {
    reason: Option<String>,
    by: Option<String>,
}

impl CancelReason {
    /// Sets the reason (1 to 4000 characters). The default is the reason of all runs.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Sets the author (1 to 200 characters). The default is the author of all runs.
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    pub(crate) fn set_reason(&mut self, reason: String) {
        self.reason = Some(reason);
    }

    pub(crate) fn set_by(&mut self, who: String) {
        self.by = Some(who);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reason.is_none() && self.by.is_none()
    }

    pub(super) fn check(&self) -> Result<()> {
        let limits = [("reason", &self.reason, MAX_REASON_LENGTH), ("author", &self.by, MAX_NAME_LENGTH)];
        for (field, text, longest) in limits {
            let Some(text) = text else { continue };
            let length = text.chars().count();
            if text.trim().is_empty() || length > longest {
                let found = format!(
                    "expected 1 to {longest} characters that are not all whitespace, got {length} ({:?})",
                    excerpt(text)
                );
                return Err(Error::invalid(field, found));
            }
            if text.contains('\0') {
                return Err(Error::invalid(
                    field,
                    "expected a string without U+0000, got one that contains it: the server cannot store it",
                ));
            }
        }
        Ok(())
    }

    /// The text and the metadata of the log line of one run, which may have a reason and an author of its own.
    pub(super) fn line(&self, own: Option<&Self>) -> Option<(String, String)> {
        let reason = own.and_then(|own| own.reason.as_deref()).or(self.reason.as_deref());
        let by = own.and_then(|own| own.by.as_deref()).or(self.by.as_deref());
        (reason.is_some() || by.is_some()).then(|| cancel_line(reason, by))
    }
}
