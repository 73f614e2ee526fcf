//! What starts the runs of a definition, and the options of those runs.

use serde::Serialize;

use super::super::dag::Workflow;
use super::super::sticky::Sticky;
use super::super::task::Task;
use crate::model::payload::encode_input;
use crate::model::{EventFilter, Idempotency};

impl<I, O> Task<I, O> {
    /// Starts a run for each event with this key.
    ///
    /// The payload of the event is the input of the run. With several keys, a run is started for an event with any of them.
    ///
    /// `*` matches any string, including the empty one. The engine also interprets `_` as any character and `%` as any string: an event
    /// `orderXmade` starts a workflow that listens to `order_made`. An event that matches two keys starts two runs. The client's
    /// namespace is prepended to the key, as it is to the keys of pushed events.
    ///
    /// ```
    /// use hatchet::{Context, Task};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Order { id: String }
    ///
    /// let ship = Task::new("ship", async |order: Order, _: Context| Ok(order.id));
    /// let ship = ship.on_event("order:paid").on_event("order:retry:*");
    /// ```
    #[must_use]
    pub fn on_event(self, key: impl Into<String>) -> Self {
        self.with_options(|options| options.start.events.push(key.into()))
    }

    /// Adds a filter for the events that start runs; see [`EventFilter`].
    ///
    /// The filters replace those of the previous version of the definition; a definition without filters keeps them. The task must have an
    /// [event key](Self::on_event).
    #[must_use]
    pub fn default_filter(self, filter: EventFilter) -> Self {
        self.with_options(|options| options.start.filters.push(filter))
    }

    /// Starts a run at each time of a cron expression. With several expressions, a run is started at the times of any of them.
    ///
    /// An expression has five fields (minute, hour, day, month, weekday, where Sunday is 0), or six fields with seconds first. Fields can
    /// contain names such as `MON` and `JAN`, lists, ranges and steps. Times are in UTC, unless the expression begins with a time zone,
    /// such as `TZ=Europe/Oslo `. The input of the runs is the [`cron_input`](Self::cron_input).
    #[must_use]
    pub fn cron(self, expression: impl Into<String>) -> Self {
        self.with_options(|options| options.start.crons.push(expression.into()))
    }

    /// Sets the input of the runs of all [crons](Self::cron) of the definition.
    ///
    /// The default is an empty object, which the input type must accept.
    #[must_use]
    pub fn cron_input(self, input: &I) -> Self
    where
        I: Serialize,
    {
        let input = encode_input("input", input).map_err(|error| error.to_string());
        self.with_options(|options| options.start.cron_input = Some(input))
    }

    /// Allows only one run per key; see [`Idempotency`].
    #[must_use]
    pub fn idempotency(self, idempotency: Idempotency) -> Self {
        self.with_options(|options| options.start.idempotency = Some(idempotency))
    }

    /// Keeps the tasks of a run on one worker: the [requested](crate::builder::RunBuilder::desired_worker) one, or the one that ran the
    /// first task.
    #[must_use]
    pub fn sticky(self, sticky: Sticky) -> Self {
        self.with_options(|options| options.start.sticky = Some(sticky))
    }
}

impl<I, O> Workflow<I, O> {
    /// Starts a run for each event with this key.
    ///
    /// The payload of the event is the input of the run. With several keys, a run is started for an event with any of them.
    ///
    /// `*` matches any string, including the empty one. The engine also interprets `_` as any character and `%` as any string: an event
    /// `orderXmade` starts a workflow that listens to `order_made`. An event that matches two keys starts two runs. The client's
    /// namespace is prepended to the key, as it is to the keys of pushed events.
    ///
    /// ```
    /// use hatchet::{Context, Task, Workflow};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Order { id: String }
    ///
    /// let ship = Task::new("ship", async |order: Order, _: Context| Ok(order.id));
    /// let order = Workflow::<Order>::new("order").task(&ship).on_event("order:paid").on_event("order:retry:*");
    /// ```
    #[must_use]
    pub fn on_event(self, key: impl Into<String>) -> Self {
        self.with_options(|options| options.start.events.push(key.into()))
    }

    /// Adds a filter for the events that start runs; see [`EventFilter`].
    ///
    /// The filters replace those of the previous version of the definition; a definition without filters keeps them. The workflow must have
    /// an [event key](Self::on_event).
    #[must_use]
    pub fn default_filter(self, filter: EventFilter) -> Self {
        self.with_options(|options| options.start.filters.push(filter))
    }

    /// Starts a run at each time of a cron expression. With several expressions, a run is started at the times of any of them.
    ///
    /// An expression has five fields (minute, hour, day, month, weekday, where Sunday is 0), or six fields with seconds first. Fields can
    /// contain names such as `MON` and `JAN`, lists, ranges and steps. Times are in UTC, unless the expression begins with a time zone,
    /// such as `TZ=Europe/Oslo `. The input of the runs is the [`cron_input`](Self::cron_input).
    #[must_use]
    pub fn cron(self, expression: impl Into<String>) -> Self {
        self.with_options(|options| options.start.crons.push(expression.into()))
    }

    /// Sets the input of the runs of all [crons](Self::cron) of the definition.
    ///
    /// The default is an empty object, which the input type must accept.
    #[must_use]
    pub fn cron_input(self, input: &I) -> Self
    where
        I: Serialize,
    {
        let input = encode_input("input", input).map_err(|error| error.to_string());
        self.with_options(|options| options.start.cron_input = Some(input))
    }

    /// Allows only one run per key; see [`Idempotency`].
    #[must_use]
    pub fn idempotency(self, idempotency: Idempotency) -> Self {
        self.with_options(|options| options.start.idempotency = Some(idempotency))
    }

    /// Keeps the tasks of a run on one worker: the [requested](crate::builder::RunBuilder::desired_worker) one, or the one that ran the
    /// first task.
    #[must_use]
    pub fn sticky(self, sticky: Sticky) -> Self {
        self.with_options(|options| options.start.sticky = Some(sticky))
    }
}
