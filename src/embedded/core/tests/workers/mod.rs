//! Workers.

mod assignment;
mod logs;
mod refresh;
mod slots;
