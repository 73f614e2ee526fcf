//! The real engine's defects, by name, so that tests can meet them on purpose.
//!
//! What is contract (statuses, codes, texts, the order of messages, where a value is found) is the same always. What is
//! a defect is off unless it is asked for: a user's own tests run without any.

use std::fmt;

macro_rules! quirks {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One defect of the real engine that the embedded one can show.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Quirk { $($(#[$doc])* $name),* }

        impl Quirk {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

quirks! {
    /// Starting a run of a workflow that does not exist, or whose idempotency key cannot be evaluated, is answered with the
    /// id of a run that never exists. Without this: `INVALID_ARGUMENT`.
    PhantomRuns,
    /// If more than five calls start runs at the same time, the runs of the others are queued: the calls return ids, and gRPC does not
    /// know these runs for a moment.
    QueuedTriggers,
    /// REST does not know a run for the first tenth of a second of its life, and an event a little longer. The runs of one
    /// call appear one after the other, a millisecond apart.
    RestLag,
    /// Every failed attempt is announced as the end of the run, also when there is another one, and watching by run id
    /// ends there.
    EarlyEnd,
    /// What comes after a task whose output is no JSON object never comes to be.
    StuckFollowers,
    /// A cancel of a DAG does not reach its tasks that wait for a sleep or an event: they run when that comes.
    DeafWaits,
    /// The cancels of one call are done one after the other, all but the first after its answer, which takes seconds for
    /// thousands. What ends in the meantime is damaged as by any cancel that comes too late.
    SlowCancels,
    /// One in five tasks that are cancelled while queued still gets a scheduling timeout when its schedule timeout passes. Then REST
    /// shows the run as failed, in its details and in lists. gRPC still shows it as cancelled.
    TimedOutCancels,
    /// Of one call's replays only the first 200 are done, one after the other; and of a call that comes before the last
    /// one's are through, none. All are answered as if they were done.
    LostReplays,
    /// A bulk trigger with new runs and with a child that has been started before runs that child once more, under the same
    /// id. Without this, the child's id comes back and nothing else happens.
    RestartedChildren,
    /// Of children that are started at once with one key or index, two come to be. Without this, one does.
    RacingChildren,
    /// A run that is started in the first five seconds after another one of its workflow is of the same version, even if there
    /// is a newer one.
    StaleVersions,
    /// What follows in a DAG is given to a worker a moment after what it waited for has ended; in between, gRPC shows the run as
    /// queued again.
    LateFollowers,
    /// A DAG that has begun is announced as completed, and those who watch it are hung up on.
    EarlyDagEnd,
    /// Watching a run by its id, right after its trigger, begins a second late and misses what was before.
    LateAttach,
    /// A cancel or a report after a task's end is recorded beside it. gRPC then shows the one and, after some minutes, the
    /// other, and which comes first after a cancel is a matter of chance; REST shows the completed one; the result stream
    /// sends both.
    TwoFinalRows,
    /// A worker that was paused is given tasks for up to a second and a half more.
    LatePause,
    /// In half of the cases, the end of a worker's stream is not noticed: the worker counts as active, is given tasks that
    /// cannot be sent to it, and they fail for good after ten tries.
    ForgottenClose,
    /// Execution and schedule timeouts are noticed up to a second late, the ends of sleeps in DAGs 0.7 to 0.9 s.
    LateTimeouts,
    /// A task that failed with a back-off lies in its queue for seconds after its delay is over.
    IdleQueue,
    /// Half of the tasks that are given to a worker as soon as they are queued have a QUEUED event that is stamped some
    /// milliseconds after ASSIGNED. REST shows such a task, asked for by itself, as queued for as long as it runs.
    LateStamps,
    /// REST gets what happens in pieces and in no order: a task's end is there before its beginning, a run's new state
    /// before its task's events, an event before its runs, and for a moment a failed attempt is the run's end. So is the
    /// failure of a DAG whose on-failure task is yet to run. A task that ended as soon as it was assigned, and whose end was
    /// reported without the worker's id, is not found by its worker.
    ScatteredRows,
    /// REST hears a second late of an attempt that follows another, and until then shows how that one ended. Only together with
    /// [`ScatteredRows`](Self::ScatteredRows).
    SlowHistory,
    /// REST has two creation times of a run. In run details and in list rows of DAGs, `createdAt` is 14 to 40 ms later than
    /// `metadata.createdAt`, by which lists are sorted and paged. `startedAt` and `finishedAt` are late by the same amount. A task
    /// that is cancelled or skipped when it is created ends 20 ms after its creation.
    LateCreationTimes,
    /// A schedule whose time is over when it is made starts its run seconds later, when the engine looks next. Without this:
    /// at once.
    LateSchedules,
    /// REST accepts a cron that it cannot read, and soon afterwards it is gone. Without this: it is refused.
    VanishingCrons,
    /// A cron that a new version of its workflow has no more fires once more, if its time comes before the engine looks.
    LingeringCrons,
    /// Of a run of several tasks, the end of the first frees the idempotency key that is to be taken until the run has ended.
    /// Without this: the end of the run.
    EarlyFreeKeys,
}

/// A set of [`Quirk`]s.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::embedded::{Engine, Quirk, Quirks};
///
/// // An engine as users meet it: what passes here passes there.
/// let engine = Engine::builder().quirks(Quirks::all()).start().await?;
/// // One with a single defect, for a test of what it leads to.
/// let lossy = Engine::builder().quirks(Quirk::LostReplays).start().await?;
/// # engine.shutdown().await;
/// # lossy.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks(u32);

impl Quirks {
    /// An engine as it should be.
    pub const fn none() -> Self {
        Self(0)
    }

    /// The engine as it is.
    pub fn all() -> Self {
        Quirk::ALL.iter().copied().collect()
    }

    /// These, and one more.
    #[must_use]
    pub const fn with(self, quirk: Quirk) -> Self {
        Self(self.0 | 1 << quirk as u32)
    }

    /// These, less one.
    #[must_use]
    pub const fn without(self, quirk: Quirk) -> Self {
        Self(self.0 & !(1 << quirk as u32))
    }

    /// Whether one is among them.
    pub const fn has(self, quirk: Quirk) -> bool {
        self.0 & 1 << quirk as u32 != 0
    }
}

impl From<Quirk> for Quirks {
    fn from(quirk: Quirk) -> Self {
        Self::none().with(quirk)
    }
}

impl<const N: usize> From<[Quirk; N]> for Quirks {
    fn from(quirks: [Quirk; N]) -> Self {
        quirks.into_iter().collect()
    }
}

impl FromIterator<Quirk> for Quirks {
    fn from_iter<I: IntoIterator<Item = Quirk>>(quirks: I) -> Self {
        quirks.into_iter().fold(Self::none(), Self::with)
    }
}

impl fmt::Debug for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Quirk::ALL.iter().filter(|quirk| self.has(**quirk))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_quirks() {
        assert!(Quirk::ALL.iter().all(|quirk| Quirks::all().has(*quirk) && !Quirks::none().has(*quirk)));
        let one = Quirks::none().with(Quirk::RestLag);
        assert_eq!(format!("{one:?}"), "{RestLag}");
        assert_eq!(one.without(Quirk::RestLag), Quirks::none());
        assert_eq!((Quirks::from(Quirk::RestLag), Quirks::from([Quirk::RestLag, Quirk::RestLag])), (one, one));
    }
}
