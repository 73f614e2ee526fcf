//! When a server or a proxy allows a retry.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use crate::error::RetryAfter;

/// The delay before a retry that the server requests: a gRPC trailer, and a header of the embedded engine.
pub(crate) const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The same in seconds, from proxies.
const RETRY_AFTER: &str = "retry-after";

/// When the server allows a retry. A negative or invalid number of milliseconds forbids retries.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text(PUSHBACK) {
        let delay = |millis: u32| RetryAfter::Delay(Duration::from_millis(millis.into()));
        return Some(millis.parse().map_or(RetryAfter::Never, delay));
    }
    let seconds: u32 = text(RETRY_AFTER)?.parse().ok()?;
    Some(RetryAfter::Delay(Duration::from_secs(seconds.into())))
}

/// The headers of [`retry_after`] alone, to be kept after the others are gone.
pub(super) fn retry_headers(headers: &HeaderMap) -> HeaderMap {
    // Parsed once: each response is searched for them.
    static NAMES: [HeaderName; 2] = [HeaderName::from_static(PUSHBACK), header::RETRY_AFTER];
    NAMES.iter().filter_map(|name| headers.get(name).map(|value| (name.clone(), value.clone()))).collect()
}
