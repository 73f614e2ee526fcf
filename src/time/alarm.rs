//! A timer that stays registered with the runtime while its owner does other things.

use std::future::pending;
use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for moments that change often. A timer that would only resolve too early is kept: it wakes its owner once in vain, which costs
/// less than a new one for each change.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Resolves at a moment, or never if there is none. Cancel safe.
    pub(crate) async fn at(&mut self, moment: Option<Instant>) {
        let Some(moment) = moment else { return pending().await };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(moment)));
        if sleep.is_elapsed() || sleep.deadline() > moment {
            sleep.as_mut().reset(moment);
        }
        sleep.as_mut().await;
        if sleep.deadline() < moment {
            sleep.as_mut().reset(moment);
            sleep.as_mut().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_resolves_at_the_moment_of_the_last_call() {
        let (start, mut alarm) = (Instant::now(), Alarm::default());
        assert!(alarm.at(Some(start + 5 * SECOND)).now_or_never().is_none());
        for seconds in [9, 2, 7, 30] {
            // Another moment has replaced it before it was due.
            let later = Instant::now() + 4 * SECOND * seconds;
            assert!(alarm.at(Some(later)).now_or_never().is_none());
            let moment = Instant::now() + SECOND * seconds;
            alarm.at(Some(moment)).await;
            assert_eq!(Instant::now(), moment);
        }
        alarm.at(Some(start)).await;
        assert!(alarm.at(None).now_or_never().is_none());
    }
}
