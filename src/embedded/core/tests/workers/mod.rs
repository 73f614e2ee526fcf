//! Workers.

mod assignment;
mod refresh;
