//! The text formats of the engine: durations, JSON in two styles, cron expressions, UUIDs, and the problems of requests.

pub(crate) mod cron;
pub(crate) mod duration;
pub(crate) mod json;
pub(crate) mod uuid;
pub(crate) mod validation;
