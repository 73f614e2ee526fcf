//! The cost of what a test does, without that of other tests.

use std::time::Duration;

/// The processor time of this thread, which other programs do not affect. If the system does not report it, the real time.
#[expect(clippy::disallowed_methods, reason = "the cost is measured in real time")]
pub(crate) async fn cost(future: impl Future) -> Duration {
    let (real, used) = (std::time::Instant::now(), processor_time());
    future.await;
    used.zip(processor_time()).map_or_else(|| real.elapsed(), |(before, after)| after.saturating_sub(before))
}

/// From Linux, in units of 10 ms.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Duration::from_millis(10 * ticks))
}
