//! Times of two sides, measured in turn.

use std::time::Duration;

use tokio::time::Instant;

use crate::interleaved::{interleaved, median};

/// The times of both sides, raw and SDK, in microseconds.
pub(crate) struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    /// Measures `rounds` pairs.
    pub(crate) async fn measure(
        rounds: usize,
        raw: impl AsyncFn() -> Duration,
        sdk: impl AsyncFn() -> Duration,
    ) -> Self {
        Self::of(interleaved(rounds, raw, sdk).await.into_iter())
    }

    /// Pairs that have been measured before.
    pub(crate) fn of(pairs: impl Iterator<Item = (Duration, Duration)>) -> Self {
        Self(pairs.map(|(raw, sdk)| (micros(raw), micros(sdk))).collect())
    }

    /// Prints a row: the medians per item, and the median of the ratios.
    pub(crate) fn print(&self, what: &str, items: usize) {
        let each = |micros: f64| micros / count(items);
        let (raw, sdk) = (each(self.median(|pair| pair.0)), each(self.median(|pair| pair.1)));
        println!("{what:<52} {raw:>10.2} {sdk:>10.2} {:>7.2}", self.median(|pair| pair.1 / pair.0));
    }

    /// The maximum time of the SDK.
    pub(crate) fn max_sdk(&self) -> Duration {
        Duration::from_secs_f64(self.0.iter().map(|pair| pair.1).fold(0.0, f64::max) / 1e6)
    }

    fn median(&self, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
        median(self.0.iter().map(of))
    }
}

pub(crate) fn head(unit: &str) {
    println!("\n{unit:<52} {:>10} {:>10} {:>7}", "raw", "SDK", "ratio");
}

/// The time of `times` sequential executions.
pub(crate) async fn timed(times: usize, work: impl AsyncFn()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        work().await;
    }
    start.elapsed()
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn count(items: usize) -> f64 {
    f64::from(u32::try_from(items).unwrap())
}
