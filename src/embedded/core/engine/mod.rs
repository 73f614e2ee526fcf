//! The entry points: the commands of the core as methods, and its turns.

mod commands;
mod definitions;
mod limits;
mod streams;
mod trigger_commands;
mod turns;
mod workers;

#[cfg(test)]
pub(crate) use turns::MAX_TIMERS_PER_TURN;
