//! What starts runs.

mod crons;
mod events;
mod schedules;
