//! Measures two sides in turn, because the speed of a machine varies.

use std::time::Duration;

/// Measures `rounds` pairs of times of both sides, after one pair as a warm-up.
pub(crate) async fn interleaved(
    rounds: usize,
    raw: impl AsyncFn() -> Duration,
    sdk: impl AsyncFn() -> Duration,
) -> Vec<(Duration, Duration)> {
    let mut pairs = Vec::new();
    for number in 0..=rounds {
        // The order alternates, because the second side may profit from a warm cache.
        let pair = if number % 2 == 0 {
            let raw = raw().await;
            (raw, sdk().await)
        } else {
            let sdk = sdk().await;
            (raw().await, sdk)
        };
        if number > 0 {
            pairs.push(pair);
        }
    }
    pairs
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
