//! The signals that stop a worker.

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
    runtime::require("`run_until_signal`", Needs::TimersAndSockets)?;
    let signals = Signals::new().map_err(|error| {
        Error::new(ErrorKind::Config, "failed to install the signal handlers").without_side_effects().with_source(error)
    })?;
    Ok(BoxStream::new(unfold(signals, |mut signals| async move { signals.next().await.map(|()| ((), signals)) })))
}

/// The first signal shuts a worker down, and the second one stops it immediately. Further ones have no effect.
pub(super) async fn follow(
    mut signals: impl Stream<Item = ()> + Unpin,
    stop: CancellationToken,
    force: CancellationToken,
) {
    if signals.next().await.is_none() {
        return;
    }
    tracing::info!("received a signal, shutting down; a second signal stops the worker immediately");
    stop.cancel();
    if signals.next().await.is_some() {
        tracing::warn!("received a second signal, stopping immediately");
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

/// Ctrl-C and Ctrl-Break, the end of the console, and the shutdown of the system.
#[cfg(windows)]
struct Signals {
    ctrl_c: tokio::signal::windows::CtrlC,
    ctrl_break: tokio::signal::windows::CtrlBreak,
    ctrl_close: tokio::signal::windows::CtrlClose,
    ctrl_shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
        let (ctrl_c, ctrl_break, ctrl_close, ctrl_shutdown) =
            (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
        Ok(Self { ctrl_c, ctrl_break, ctrl_close, ctrl_shutdown })
    }

    async fn next(&mut self) -> Option<()> {
        tokio::select! {
            signal = self.ctrl_c.recv() => signal,
            signal = self.ctrl_break.recv() => signal,
            signal = self.ctrl_close.recv() => signal,
            signal = self.ctrl_shutdown.recv() => signal,
        }
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

    /// This number of signals, at this interval.
    fn signals(count: usize, interval: Duration) -> BoxStream<()> {
        BoxStream::new(stream::iter(0..count).then(move |_| sleep(interval)))
    }

    fn every_second(count: usize) -> BoxStream<()> {
        signals(count, SECOND)
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
    async fn a_worker_drains_on_the_first_signal_and_stops_on_the_second() {
        let engine = Engine::start().await.unwrap();
        let hatchet = engine.client();
        // The seconds that the task takes, the signals with their interval in milliseconds, and the expected end. A shutdown first pauses the
        // worker, for less than two seconds.
        for (seconds, (count, interval), expected, is_completed) in [
            (10, (1, 1000), 10_000, true),
            (10, (2, 1000), 2000, false),
            (10, (2, 0), 0, false),
            (10, (2, 3000), 6000, false),
            (60, (1, 1000), 32_000, false),
        ] {
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
            let signals = signals(count, Duration::from_millis(interval));
            let report = worker.run_until_signals(signals).await.unwrap();
            let counts = (report.completed, report.unfinished, report.total());
            assert_eq!(counts, (u64::from(is_completed), u64::from(!is_completed), 1), "{report}");
            assert_eq!(started.elapsed(), Duration::from_millis(expected), "{seconds} s, {count} signals: {report}");
            if !is_completed {
                run.cancel().send().await.unwrap();
            }
        }
    }
}
