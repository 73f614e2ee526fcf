//! The signals that end a worker.

use std::io;

use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use tokio_util::sync::CancellationToken;

use crate::boxed::BoxStream;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{self, Needs};

/// The signals that this process receives from now on.
pub(super) fn listen() -> Result<BoxStream<()>> {
    runtime::require("a worker that ends at a signal", Needs::TimersAndSockets)?;
    let signals = Signals::new().map_err(|error| {
        Error::new(ErrorKind::Config, "the signals of the process cannot be received")
            .without_side_effects()
            .with_source(error)
    })?;
    Ok(BoxStream::new(unfold(signals, |mut signals| async move { signals.next().await.map(|()| ((), signals)) })))
}

/// The first signal shuts a worker down, and the second one ends it. Further ones have no effect.
pub(super) async fn follow(
    mut signals: impl Stream<Item = ()> + Unpin,
    stop: CancellationToken,
    force: CancellationToken,
) {
    if signals.next().await.is_none() {
        return;
    }
    tracing::info!("received a signal; the worker shuts down, and a second signal ends it immediately");
    stop.cancel();
    if signals.next().await.is_some() {
        tracing::warn!("received a second signal; the worker ends immediately");
        force.cancel();
    }
}

/// SIGINT, which a terminal sends at Ctrl-C, and SIGTERM, which systemd, Docker and Kubernetes send.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Option<()> {
        tokio::select! {
            signal = self.interrupt.recv() => signal,
            signal = self.terminate.recv() => signal,
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Option<()> {
        tokio::signal::ctrl_c().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::stream;
    use tokio::sync::Notify;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::embedded::Engine;
    use crate::workflow::{Context, Task};

    const SECOND: Duration = Duration::from_secs(1);

    /// A signal each second, so many times.
    fn every_second(count: usize) -> BoxStream<()> {
        BoxStream::new(stream::iter(0..count).then(|_| sleep(SECOND)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_stops_and_the_second_one_forces() {
        for (count, expected) in [(0, [false, false]), (1, [true, false]), (2, [true, true]), (3, [true, true])] {
            let (stop, force) = (CancellationToken::new(), CancellationToken::new());
            follow(every_second(count), stop.clone(), force.clone()).await;
            assert_eq!([stop.is_cancelled(), force.is_cancelled()], expected, "{count} signals");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_drains_at_a_signal_and_ends_at_a_second_one() {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        // The seconds that the task takes, the number of signals, and the expected end.
        for (seconds, signals, expected, is_completed) in [(10, 1, 10, true), (10, 2, 2, false), (60, 1, 32, false)] {
            let running = Arc::new(Notify::new());
            let code = move |running: Arc<Notify>, (): (), _: Context| async move {
                running.notify_one();
                sleep(seconds * SECOND).await;
                Ok(())
            };
            let nap: Task<(), ()> = Task::with_state("nap", Arc::clone(&running), code);
            let worker = hatchet.worker("worker").register(&nap).build().unwrap().start().await.unwrap();
            let run = hatchet.run(&nap, &()).start().await.unwrap();
            running.notified().await;
            let started = Instant::now();
            let report = worker.run_until_signals(every_second(signals)).await.unwrap();
            let counts = (report.completed, report.unfinished, report.total());
            assert_eq!(counts, (u64::from(is_completed), u64::from(!is_completed), 1), "{report}");
            assert_eq!(started.elapsed(), expected * SECOND, "{seconds} s, {signals} signals: {report}");
            if !is_completed {
                run.cancel().send().await.unwrap();
            }
        }
    }
}
