//! The text formats of the engine: durations, JSON in two styles, cron expressions.

pub(crate) mod cron;
pub(crate) mod duration;
pub(crate) mod json;
