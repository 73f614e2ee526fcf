//! The text formats of the engine: durations, JSON in two styles, cron expressions, UUIDs.

pub(crate) mod cron;
pub(crate) mod duration;
pub(crate) mod json;
pub(crate) mod uuid;
