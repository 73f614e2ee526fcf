//! The tasks of the tests.

use hatchet::{Context, Task, TaskError};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Number {
    pub(crate) n: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Doubled {
    pub(crate) doubled: i64,
}

pub(crate) fn double(name: String) -> Task<Number, Doubled> {
    Task::new(name, async |input: Number, _: Context| Ok(Doubled { doubled: input.n * 2 }))
}

/// Fails its first `n` attempts.
pub(crate) fn shaky(name: String) -> Task<Number, Doubled> {
    Task::new(name, async |input: Number, context: Context| {
        if i64::from(context.attempt()) <= input.n {
            return Err(TaskError::new(format!("broke at attempt {}", context.attempt())));
        }
        Ok(Doubled { doubled: input.n * 2 })
    })
}

/// Never ends by itself.
pub(crate) fn endless(name: String) -> Task<Number, Doubled> {
    Task::new(name, async |_: Number, _: Context| std::future::pending().await)
}
