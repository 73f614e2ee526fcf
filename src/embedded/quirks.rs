//! The real engine's defects, by name, so that tests can enable them.
//!
//! Statuses, codes, texts, the order of messages and the fields of values are always those of the real engine. Defects are disabled by
//! default.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Error;

macro_rules! quirks {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A defect of the real engine that the embedded engine can reproduce.
        ///
        /// ```
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> hatchet::Result<()> {
        /// use hatchet::embedded::{Engine, Quirk};
        ///
        /// let engine = Engine::builder().quirks(Quirk::LateTimeouts).start().await?;
        /// # engine.shutdown().await;
        /// # Ok(())
        /// # }
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Quirk { $($(#[$doc])* $name),* }

        const ALL: &[Quirk] = &[$(Quirk::$name),*];

        fn name(quirk: Quirk) -> &'static str {
            match quirk { $(Quirk::$name => stringify!($name)),* }
        }
    };
}

impl Quirk {
    /// All quirks.
    pub const ALL: &[Self] = ALL;

    /// Returns the name of the variant, such as `RestLag`.
    pub fn as_str(self) -> &'static str {
        name(self)
    }
}

quirks! {
    /// Starting a run of an unknown workflow, or a run whose idempotency key cannot be evaluated, returns the id of a run that is
    /// never created. Without this quirk: `INVALID_ARGUMENT`.
    NeverCreatedRuns,
    /// If more than five calls start runs at the same time, the runs of the further calls are queued: these calls return ids, and gRPC does
    /// not find the runs until they are created.
    QueuedTriggers,
    /// REST does not find a run for the first tenth of a second after its creation, and an event a little longer. The runs of one
    /// call appear one after another, a millisecond apart.
    RestLag,
    /// The server reports every failed attempt as the end of the run, even if another attempt follows. Streams that watch the run by its
    /// id end there.
    EarlyEnd,
    /// Tasks that depend on a task whose output is not a JSON object are never created.
    StuckDependents,
    /// A cancellation of a DAG has no effect on tasks that wait for a sleep or an event: they run when the wait is over.
    UncancellableWaits,
    /// The cancellations of one call are executed one after another. All but the first are executed after the response; thousands of
    /// cancellations take seconds. A run that ends in the meantime is cancelled after its end, with the effects of any late cancellation.
    SlowCancels,
    /// One in five tasks that are cancelled while queued still times out when its schedule timeout passes. Then REST
    /// shows the run as failed, in its details and in lists. gRPC still shows it as cancelled.
    TimedOutCancels,
    /// Only the first 200 replays of a call are executed, one after another. If the replays of the previous call have not finished,
    /// none is executed. The response is always that of a success.
    LostReplays,
    /// A bulk start request with new runs and with a child that has already been started runs that child a second time, under the same id.
    /// Without this quirk, the call returns the child's id and nothing else happens.
    RestartedChildren,
    /// If children with the same key or index are started at the same time, two are created. Without this quirk, only one is created.
    RacingChildren,
    /// A run that is started in the first five seconds after another run of its workflow has the same version, even if there
    /// is a newer one.
    StaleVersions,
    /// A task of a DAG is assigned some time after the tasks that it depends on have ended. In between, gRPC shows the run as
    /// queued again.
    LateDependents,
    /// The server reports a DAG as completed as soon as it has started, and the streams of its watchers end.
    EarlyDagEnd,
    /// A subscription to a run by its id that is opened right after the run was started begins a second late, and misses all earlier
    /// events.
    LateSubscription,
    /// A chunk that is not UTF-8 ends the streams of all watchers of its run, with `INTERNAL`. Without this quirk, invalid bytes are
    /// replaced by U+FFFD.
    BrokenChunks,
    /// A cancellation or a report after the end of a task adds a second end. gRPC shows one end and, after a few minutes, the
    /// other one; which one is first after a cancellation is random. REST shows the completed one, and the result stream sends both.
    TwoFinalRows,
    /// Chunks of tasks are sent up to 90 ms late, those of more than 4000 bytes up to 0.9 s, and all other events overtake them: a stream
    /// that ends with the run loses the last ones. From five seconds after the first chunk of an attempt, its chunks are no longer in
    /// order. A chunk waits five seconds for earlier chunks that the stream has not received.
    LateChunks,
    /// A report with a retry count that is higher than that of the current attempt ends the task in REST. gRPC shows it as running, and it
    /// keeps its slot until the current attempt ends. Without this quirk, such a report is only recorded.
    EarlyReports,
    /// A DAG that is replayed is shown as ended, with the results of its last attempts, while all tasks that the replay will restart wait
    /// for sleeps, events or other tasks. Without this quirk, it is shown as running.
    HiddenReplayWaits,
    /// A paused worker is assigned tasks for up to another second and a half. New runs of a paused workflow start for a few seconds, if it
    /// had other runs in the five seconds before.
    LatePause,
    /// In half of the cases, the engine does not detect the end of a worker's stream: the worker counts as active and is assigned tasks that
    /// cannot be sent to it. These fail after ten retries.
    UndetectedClose,
    /// After `Unsubscribe`, a worker still counts as active: its heartbeats are accepted, and it is assigned tasks that cannot be sent to
    /// it. These fail after ten retries. Without this quirk, its heartbeats are rejected and it is assigned nothing.
    UndetectedUnsubscribe,
    /// Execution and schedule timeouts are detected up to a second late, and the ends of sleeps in DAGs 0.7 to 0.9 s late.
    LateTimeouts,
    /// A task that failed and has a backoff stays in its queue for seconds after the backoff is over.
    SlowBackoffQueue,
    /// Half of the tasks that are assigned as soon as they are queued have a QUEUED event whose timestamp is some
    /// milliseconds after ASSIGNED. REST shows such a task, if it is fetched by its id, as queued while it runs.
    LateTimestamps,
    /// REST shows related changes separately and in any order: the end of a task before its start, a new status of a run before the events
    /// of its task, an event before its runs, a new run before its tasks, and temporarily a failed attempt as the end of the run. The same
    /// holds for the failure of a DAG whose on-failure task has not run yet. A task that ended as soon as it was assigned, and whose end
    /// was reported without the worker's id, is not found by its worker.
    UnorderedRows,
    /// REST shows an attempt that follows another one a second late, and until then the end of the previous one.
    SlowHistory,
    /// REST has two creation times of a run. In run details and in list rows of DAGs, `createdAt` is 14 to 40 ms later than
    /// `metadata.createdAt`, by which lists are sorted and paged. `startedAt` and `finishedAt` are late by the same amount. A task
    /// that is cancelled or skipped when it is created ends 20 ms after its creation.
    LateCreationTimes,
    /// A schedule that is created with a time in the past starts its run seconds later, at the engine's next check. Without this
    /// quirk: immediately.
    LateSchedules,
    /// REST accepts a cron with an invalid expression, which soon disappears. Without this quirk, it is rejected.
    DisappearingCrons,
    /// A cron that the new version of its workflow lacks fires once more, if it is due before the engine's next check.
    LingeringCrons,
    /// An engine before v0.106.5 ignores the newer fields of a concurrency limit, such as `max_runs_expression`. Without this quirk, it
    /// rejects them.
    IgnoredConcurrencyFields,
    /// The schedule timeout of a task that waits for a concurrency slot has no effect until a slot of its key changes. Without this quirk,
    /// the task ends in time.
    LateLimitTimeouts,
    /// Rate limits are refilled up to a few seconds late, and give no units for more than a second after their first use. Without this
    /// quirk, they are refilled in time.
    SlowRateLimits,
    /// The schedule timeout of a task that waits for a rate limit has no effect before the limit is refilled, if that is more than two seconds
    /// away. The task then ends, although it could start. Without this quirk, it ends in time.
    LateRateLimitTimeouts,
    /// `ReleaseSlot` does not free the slot before the end of the attempt.
    UnreleasedSlots,
    /// A task that requests slots of other types takes a slot of the default type, too.
    ExtraDefaultSlots,
    /// The end of the first task of a DAG frees an idempotency key that should be held until the run has ended.
    EarlyFreeKeys,
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Parses the name of a quirk, as in Rust. Other names are [`InvalidInput`](crate::ErrorKind::InvalidInput).
impl FromStr for Quirk {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|quirk| quirk.as_str() == name);
        found
            .copied()
            .ok_or_else(|| Error::invalid("quirk", format_args!("expected a name of Quirk::ALL, got {name:?}")))
    }
}

impl Serialize for Quirk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Quirk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A set of [`Quirk`]s.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// use hatchet::embedded::{Engine, Quirk, Quirks};
///
/// // An engine with all defects of the real one.
/// let engine = Engine::builder().quirks(Quirks::all()).start().await?;
/// // An engine with one defect, for a test of its effects.
/// let lossy = Engine::builder().quirks(Quirk::LostReplays).start().await?;
/// # engine.shutdown().await;
/// # lossy.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Quirks(u64);

const _: () = assert!(Quirk::ALL.len() < u64::BITS as usize);

impl Quirks {
    /// Returns the empty set: the engine behaves as the documentation of Hatchet says.
    pub const fn none() -> Self {
        Self(0)
    }

    /// Returns the set of all quirks, as in the real engine.
    pub const fn all() -> Self {
        Self((1 << Quirk::ALL.len()) - 1)
    }

    /// Returns this set with one more quirk.
    #[must_use]
    pub const fn with(self, quirk: Quirk) -> Self {
        Self(self.0 | 1 << quirk as u64)
    }

    /// Returns this set with one quirk removed, if the set contains it.
    #[must_use]
    pub const fn without(self, quirk: Quirk) -> Self {
        Self(self.0 & !(1 << quirk as u64))
    }

    /// Iterates over the quirks of the set, in the order of [`Quirk::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL.iter().copied().filter(move |quirk| self.contains(*quirk))
    }

    /// Returns whether an engine with this set reproduces the quirk.
    pub const fn contains(self, quirk: Quirk) -> bool {
        self.0 & 1 << quirk as u64 != 0
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

impl Extend<Quirk> for Quirks {
    fn extend<I: IntoIterator<Item = Quirk>>(&mut self, quirks: I) {
        *self = quirks.into_iter().fold(*self, Self::with);
    }
}

impl IntoIterator for Quirks {
    type Item = Quirk;
    type IntoIter = std::vec::IntoIter<Quirk>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().collect::<Vec<_>>().into_iter()
    }
}

impl fmt::Debug for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quirks_can_be_added_and_removed() {
        assert!(Quirk::ALL.iter().all(|quirk| Quirks::all().contains(*quirk) && !Quirks::none().contains(*quirk)));
        let one = Quirks::none().with(Quirk::RestLag);
        assert_eq!(format!("{one:?}"), "{RestLag}");
        assert_eq!(one.without(Quirk::RestLag), Quirks::none());
        assert_eq!((Quirks::from(Quirk::RestLag), Quirks::from([Quirk::RestLag, Quirk::RestLag])), (one, one));
        assert_eq!(one.into_iter().collect::<Vec<_>>(), [Quirk::RestLag]);
        assert_eq!(Quirks::all().iter().collect::<Vec<_>>(), Quirk::ALL);
        assert_eq!(Quirks::all().iter().collect::<Quirks>(), Quirks::all());
    }

    #[test]
    fn quirks_have_names() {
        for quirk in Quirk::ALL {
            assert_eq!((quirk.to_string().parse().ok(), quirk.to_string()), (Some(*quirk), format!("{quirk:?}")));
        }
        let error = "restlag".parse::<Quirk>().unwrap_err();
        assert_eq!(error.to_string(), r#"invalid quirk: expected a name of Quirk::ALL, got "restlag""#);
        let json = serde_json::to_string(&Quirk::RestLag).unwrap();
        assert_eq!((json.as_str(), serde_json::from_str(&json).unwrap()), (r#""RestLag""#, Quirk::RestLag));
        assert!(serde_json::from_str::<Quirk>(r#""x""#).is_err());
    }
}
